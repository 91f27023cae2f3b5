"""Cancels one order. The broker's yes is not yet a cancel: the order may still fill, and only its
own reports, through the door, say how it ended.

The wish is committed before the broker is asked, and asked again until the order has ended: it is
never lost with a process.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from orders import lifecycle, statuses
from orders.errors import OrderCancellationError, OrderStatusError
from orders.lifecycle import Origin
from orders.models import Order
from orders.order_log import about
from orders.sending import get
from orders.sync import look_up
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable, OrderRefused
from ordinis.failpoints import failpoint
from risk.figures import database_now

log = logging.getLogger("ordinis.orders")

_ALERT = "cancel_pending"
# A cancel that the broker took up is asked for again after this long; a person hears of one that
# does not end.
_AGAIN = timedelta(seconds=10)
_PATIENCE = timedelta(seconds=60)


def cancel(order: Order, origin: Origin) -> Order:
    """Has an order cancelled, and what is about to replace it; one that has ended stays as it is,
    one that is unresolved is cancelled when it is found. Raises OrderCancellationError when the
    broker can't be asked."""
    with transaction.atomic():
        BrokerAccount.lock(order.account_id)  # whoever replaces it just now is stored before
        # All that has come of it: of a chain the one that works may be any.
        wanted = Order.objects.filter(chain=order.chain).values_list("pk", flat=True)
        marked = lifecycle.request_cancel(wanted if get(order.pk).is_open else [], origin)
    failpoint("cancel.requested")
    for each in marked:
        if each.is_open and each.status not in statuses.UNPROVED:
            ask(each)
    return get(order.pk)


def ask(order: Order) -> None:
    """Asks the broker to cancel an order that it has acknowledged, unless that was done a moment
    ago."""
    assert order.broker_order_id is not None, "it was acknowledged"
    row = Order.objects.filter(pk=order.pk)
    if not row.filter(_not_lately(database_now())).update(cancel_sent_at=Now()):
        return
    failpoint("cancel.sent")
    try:
        with about(order):
            taken_up = broker_for(order.account).cancel(order.broker_order_id)
    except OrderRefused as refused:
        # It has ended meanwhile, or is being cancelled or replaced: its own report says which.
        log.info("cancel refused", extra={"order": str(order.pk), "error": refused.message})
        taken_up = False
    except (BrokerUnavailable, BrokerRefused) as error:
        row.update(cancel_sent_at=None)
        raise OrderCancellationError(
            "broker_unavailable",
            f"The broker could not be asked to cancel: {error.message} The cancel is kept, and "
            "tried again every few seconds; ask for the order to see how it ends.",
        ) from error
    failpoint("cancel.answered")
    if not taken_up and _is_being_replaced(look_up(order)):
        # The broker cancels neither of the two meanwhile; their next report asks again.
        row.update(cancel_sent_at=None)


def due(now: datetime) -> list[UUID]:
    """Orders that were to be cancelled and have not ended, a while after the last attempt."""
    rows = Order.objects.filter(
        _not_lately(now), cancel_requested_at__isnull=False, acknowledged_at__isnull=False
    ).exclude(status__in=sorted(statuses.CLOSED))
    return list(rows.order_by("cancel_sent_at").values_list("pk", flat=True)[:500])


def pursue(order_id: UUID) -> None:
    """Looks how a wanted cancel stands, and asks for it (again) where the order has not ended."""
    order, now = get(order_id), database_now()
    if order.cancel_sent_at is not None:
        if now - order.cancel_sent_at < _AGAIN:
            return  # its reports are on their way
        try:
            order = look_up(order)
        except OrderStatusError as error:  # the cancel itself may get through
            log.warning("order not read", extra={"order": str(order_id), "error": str(error)})
    if order.cancel_requested_at is None or order.acknowledged_at is None or not order.is_open:
        return
    if now - order.cancel_requested_at >= _PATIENCE:
        _tell(order, order.cancel_requested_at)
    try:
        ask(order)
    except OrderCancellationError as error:
        log.warning("not cancelled yet", extra={"order": str(order_id), "error": str(error)})


def end_alerts() -> None:
    """Ends what was told of orders that have ended since, however that was learnt."""
    alerts = Alert.objects.filter(code=_ALERT, ended_at=None)
    told = Order.objects.filter(pk__in=list(alerts.values_list("subject", flat=True)))
    ended = told.filter(status__in=sorted(statuses.CLOSED)).values_list("pk", flat=True)
    if subjects := [str(order_id) for order_id in ended]:
        alerts.filter(subject__in=subjects).update(ended_at=Now())


def _not_lately(now: datetime) -> Q:
    return Q(cancel_sent_at=None) | Q(cancel_sent_at__lte=now - _AGAIN)


def _is_being_replaced(order: Order) -> bool:
    old = order.replaces
    return order.status == "pending_replace" or (old is not None and old.is_open)


def _tell(order: Order, since: datetime) -> None:
    raise_alert(
        order.account_id,
        code=_ALERT,
        subject=str(order.pk),
        severity=Alert.Severity.CRITICAL,
        message=(
            f"Order {order.client_order_id} ({order.symbol}) was to be cancelled at "
            f"{since:%H:%M:%S} UTC and is still {order.status}. It may fill. "
            "It is asked for again; look at it in the broker's own app."
        ),
    )
