"""Finds out what became of orders whose answer was lost, or whose sender died.

Proof is an order found under our client id; or three misses over at least 10 seconds, and a list
of the account's orders without it. Only then is it sent again (same id, same body, so that the
broker itself refuses a second one), or, past its age limit or no longer wanted, given up as
`failed`. Never decides on one miss: a look-up can lag behind.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F, Q

from orders import lifecycle, statuses
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.order_log import about
from orders.sending import (
    barred,
    get,
    is_exit,
    resend,
    settle_mismatch,
    settle_refusal,
    wait_again,
)
from orders.sync import look_up
from ordinis.accounts.brokers import broker_for
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.broker.port import OrderReport
from ordinis.failpoints import failpoint
from risk import trading
from risk.figures import database_now

log = logging.getLogger("ordinis.orders")

_MISSES = 3
_OVER = timedelta(seconds=10)
_BATCH = 500
# The list of the account's orders starts so long before ours: clocks differ.
_LOOKED_BACK = timedelta(minutes=1)
# An order believed never to have arrived is looked up for this long: its request may have been on
# its way longer than anyone waited, and have filled at once.
_WATCHED = timedelta(hours=1)


def due(now: datetime) -> list[Order]:
    """Unresolved orders, and those whose sender must have died: it would have stored an
    outcome within the broker's timeout."""
    abandoned = now - timedelta(seconds=settings.BROKER_TIMEOUT + 5)
    return list(
        Order.objects.select_related("account", "strategy", "leg_of__account")
        .filter(
            Q(status=statuses.UNRESOLVED)
            | Q(status=statuses.SUBMITTING, submitted_at__lt=abandoned),
            # The leg of a pair has the fate of its order.
            Q(leg_of=None) | Q(leg_of__acknowledged_at__isnull=False),
        )
        # Those looked up least come first, so that none waits behind what stays unknown.
        .order_by("lookups_missed", "submitted_at")[:_BATCH]
    )


def watched(now: datetime) -> list[Order]:
    """Orders that failed lately, and stay watched."""
    return list(
        Order.objects.select_related("account", "strategy")
        .filter(status=statuses.FAILED, updated_at__gte=now - _WATCHED)
        .order_by("-updated_at")[:_BATCH]
    )


def watch(order: Order) -> Order:
    """Looks a failed order up; one that exists after all is reopened, with an incident."""
    try:
        with about(order):
            report = broker_for(order.account).order_by_client_id(order.client_order_id)
    except (BrokerUnavailable, BrokerRefused):
        return order  # the next watch asks again
    return _found(order, report) if report else order


def resolve(order: Order) -> Order:
    """One look-up of one order, and what follows from it."""
    if order.leg_of is not None:
        return _find_leg(order)
    if order.status == statuses.SUBMITTING:
        order = lifecycle.transition(
            order.pk,
            statuses.UNRESOLVED,
            Origin(Source.SUBMIT, "resolver", "Its sender ended before the broker's answer."),
        )
    try:
        with about(order):
            report = broker_for(order.account).order_by_client_id(order.client_order_id)
    except (BrokerUnavailable, BrokerRefused) as error:
        log.warning("look-up failed", extra={"order": str(order.pk), "error": error.message})
        return order
    failpoint("resolver.looked_up")
    return _found(order, report) if report else _missed(order)


def _find_leg(leg: Order) -> Order:
    """The broker's answer to a pair lacked its leg: the look-up of the order names it, or the list
    of all orders has one of its terms that we don't know. Absent from both, it is missing."""
    assert leg.leg_of is not None
    head = look_up(leg.leg_of)
    current = get(leg.pk)
    if current.status not in statuses.UNPROVED:
        return current
    if current.status == statuses.SUBMITTING:
        why = "The broker's answer to the pair did not name it."
        lifecycle.transition(leg.pk, statuses.UNRESOLVED, Origin(Source.SUBMIT, "resolver", why))
    listed = broker_for(leg.account).orders_since(
        (head.submitted_at or head.created_at) - _LOOKED_BACK
    )
    known = set(
        Order.objects.filter(
            account_id=leg.account_id,
            broker_order_id__in=[each.broker_order_id for each in listed.items],
        ).values_list("broker_order_id", flat=True)
    )
    like = [
        report
        for report in listed.items
        if report.broker_order_id not in known and _is_like(leg, report)
    ]
    # Parts of one parent have legs alike but for their shares; one that has shrunk is only told
    # apart when it is the only one.
    exact = [report for report in like if report.qty == leg.qty]
    if exact or len(like) == 1:
        return _found(leg, (exact or like)[0])
    if like or not _is_proved_absent(current) or not listed.complete:
        return current
    return _give_up(get(leg.pk), "The broker has the order of its pair, but knows nothing of it.")


def _is_like(leg: Order, report: OrderReport) -> bool:
    ours = (leg.symbol, leg.side, leg.stop_price)
    return ours == (report.symbol, report.side, report.stop_price) and report.replaces is None


def _found(order: Order, report: OrderReport) -> Order:
    try:
        return lifecycle.observe(
            order.pk, report, Origin(Source.SUBMIT, "resolver", "Found by its client order id.")
        )
    except lifecycle.MismatchedReport as mismatch:
        return settle_mismatch(order, mismatch)


def _is_proved_absent(order: Order) -> bool:
    """Counts one more look-up that found nothing; whether they are enough."""
    now = database_now()
    missing_since = order.first_missed_at or now
    Order.objects.filter(pk=order.pk, status=statuses.UNRESOLVED).update(
        lookups_missed=F("lookups_missed") + 1, first_missed_at=missing_since
    )
    return order.lookups_missed + 1 >= _MISSES and now - missing_since >= _OVER


def _missed(order: Order) -> Order:
    if not _is_proved_absent(order):
        return order
    listed = broker_for(order.account).orders_since(order.created_at - _LOOKED_BACK)
    found = [each for each in listed.items if each.client_order_id == order.client_order_id]
    if found:
        return _found(order, found[0])
    if not listed.complete:
        return order  # an absence from an incomplete list proves nothing
    failpoint("resolver.proved_absent")
    current = get(order.pk)
    if current.rejection is not None:  # sent twice, refused, and found nowhere
        return settle_refusal(current, current.rejection)
    why = barred(current, trading.current(current.account_id))
    if why and current.cancel_requested_at is None and is_exit(current):
        return wait_again(current, f"{why} It waits on.")
    if why := why or _unwanted(current, database_now()):
        return _give_up(current, f"The broker knows nothing of it. {why}")
    return resend(current)


def _unwanted(order: Order, now: datetime) -> str:
    """Why an order that never arrived must not be sent again; empty when it may be."""
    if order.cancel_requested_at is not None:
        return "It was to be cancelled."
    if order.replaces_id is not None:
        return "A replacement is not sent twice; the order that it was to replace stands."
    if now - (order.judged_at or order.created_at) >= timedelta(seconds=settings.RESEND_MAX_AGE):
        return "It is too old to send."
    return ""


def _give_up(order: Order, why: str) -> Order:
    failed = lifecycle.transition(order.pk, statuses.FAILED, Origin(Source.SUBMIT, "resolver", why))
    if order.parent_id is not None and order.replaces_id is None:
        raise_alert(
            order.account_id,
            code="dependent_failed",
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=(
                f"The {order.get_role_display().lower()} {order.client_order_id} "
                f"({order.symbol}) never reached the broker: the position stands without it."
            ),
        )
    return failed
