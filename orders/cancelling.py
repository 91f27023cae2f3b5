"""Cancels one order. The broker's yes is not yet a cancel: the order may still fill, and only its
own reports, through the door, say how it ended.

The wish is committed before the broker is asked, and asked again until the order has ended: it is
never lost with a process.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

from orders import lifecycle, statuses
from orders.errors import OrderCancellationError
from orders.lifecycle import Origin
from orders.models import Order
from orders.sending import get
from orders.sync import look_up
from ordinis.accounts.brokers import broker_for
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable, OrderRefused
from ordinis.failpoints import failpoint
from risk.figures import database_now

log = logging.getLogger("ordinis.orders")

# A cancel is asked for again after this long; a person hears of one that does not end.
_AGAIN = timedelta(seconds=10)
_PATIENCE = timedelta(seconds=60)


def cancel(order_id: UUID, origin: Origin) -> Order:
    """Has an order cancelled; one that has ended stays as it is, one that is unresolved is
    cancelled when it is found. Raises OrderCancellationError when the broker can't be asked."""
    (order,) = lifecycle.request_cancel([order_id], origin)
    failpoint("cancel.requested")
    if not order.is_open or order.status in statuses.UNPROVED:
        return order
    return ask(order)


def ask(order: Order) -> Order:
    """Asks the broker to cancel an order that it has acknowledged."""
    assert order.broker_order_id is not None, "it was acknowledged"
    Order.objects.filter(pk=order.pk).update(cancel_sent_at=database_now())
    failpoint("cancel.sent")
    try:
        known = broker_for(order.account).cancel(order.broker_order_id)
    except OrderRefused as refused:
        # It has ended meanwhile, or is being cancelled or replaced: its own report says which.
        log.info("cancel refused", extra={"order": str(order.pk), "error": refused.message})
        known = False
    except (BrokerUnavailable, BrokerRefused) as error:
        raise OrderCancellationError(
            "broker_unavailable",
            f"The broker could not be asked to cancel: {error.message} The cancel is kept, and "
            "tried again every few seconds; ask for the order to see how it ends.",
        ) from error
    failpoint("cancel.answered")
    if not known:
        look_up(order)
    return get(order.pk)


def due(now: datetime) -> list[UUID]:
    """Orders that were to be cancelled and have not ended, a while after the last attempt."""
    rows = Order.objects.filter(
        cancel_requested_at__isnull=False, acknowledged_at__isnull=False
    ).exclude(status__in=sorted(statuses.CLOSED))
    never, long_ago = (
        rows.filter(cancel_sent_at=None),
        rows.filter(cancel_sent_at__lte=now - _AGAIN),
    )
    return list((never | long_ago).order_by("cancel_sent_at").values_list("pk", flat=True)[:500])


def pursue(order_id: UUID) -> None:
    """Looks how a wanted cancel stands, and asks for it (again) where the order has not ended."""
    order = get(order_id)
    now = database_now()
    if order.cancel_requested_at is None or order.acknowledged_at is None or not order.is_open:
        return
    if order.cancel_sent_at is not None:
        if now - order.cancel_sent_at < _AGAIN:
            return  # its reports are on their way
        order = look_up(order)
    if order.is_open:
        _tell(order, now)
        try:
            ask(order)
        except OrderCancellationError as error:
            log.warning("not cancelled yet", extra={"order": str(order_id), "error": str(error)})
    else:
        end_alert(order.account_id, code="cancel_pending", subject=str(order_id))


def _tell(order: Order, now: datetime) -> None:
    assert order.cancel_requested_at is not None
    if now - order.cancel_requested_at < _PATIENCE:
        return
    raise_alert(
        order.account_id,
        code="cancel_pending",
        subject=str(order.pk),
        severity=Alert.Severity.CRITICAL,
        message=(
            f"Order {order.client_order_id} ({order.symbol}) was to be cancelled at "
            f"{order.cancel_requested_at:%H:%M:%S} UTC and is still {order.status}. It may fill. "
            "It is asked for again; look at it in the broker's own app."
        ),
    )
