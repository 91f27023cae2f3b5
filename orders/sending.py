"""Hands a committed intent to the broker, once, and stores what that proved.

The order is `submitting` in the database before this is called; whatever happens here, the
resolver (`orders.resolver`) finds out what became of it. Never called inside a transaction.
"""

import dataclasses
import logging
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings

from orders import lifecycle, statuses
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.order_log import about
from orders.outcomes import judge_outcomes
from ordinis.accounts.brokers import broker_for
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DuplicateClientOrderId,
    NotSent,
    OrderRefused,
    OutcomeUnknown,
)
from ordinis.broker.port import OrderReport, ReplaceRequest
from ordinis.failpoints import failpoint
from risk import figures, trading
from risk.states import ACTIVE, HALTED, TradingState

log = logging.getLogger("ordinis.orders")

_LAG = timedelta(seconds=2)


def patience() -> float:
    """Until when (monotonic seconds) an order committed now may be sent: later than that the
    resolver may have taken it over."""
    return time.monotonic() + settings.BROKER_TIMEOUT


def send(order: Order, *, sent_by: float) -> Order:
    """Sends a `submitting` order, or asks for the replacement that it is. Returns it in whatever
    state it reached."""
    failpoint("send.committed")
    if time.monotonic() > sent_by:
        return _lost(order, "The process was too slow to send it; the resolver takes it over.")
    state = trading.current(order.account_id)
    if why := barred(order, state):
        return _held_back(order, why)
    try:
        return _sent(order)
    finally:
        if state.probe == order.pk:
            judge_outcomes(order.account_id)


def barred(order: Order, state: TradingState) -> str:
    """Why an order that was judged a moment ago must not be sent any more; empty when it may."""
    if state.state == ACTIVE or state.probe == order.pk:
        return ""
    if state.state != HALTED and not order.adds_risk:
        return ""
    reasons = " ".join(reason.message for reason in state.reasons)
    return f"Trading has become {state.state} before it was sent. {reasons}".strip()


def _held_back(order: Order, why: str) -> Order:
    """It has not left, unless an earlier sending did."""
    if order.attempts > 1:
        # Not the broker's doing: the breaker must not count it as an answer that never came.
        return decide(order, statuses.UNRESOLVED, why, actor="resolver")
    if is_exit(order):
        return wait_again(order, why)
    violation = {"code": "trading_halted", "message": why, "limit": "0", "actual": "1"}
    return decide(order, statuses.DENIED, why, violations=[violation])


def _sent(order: Order) -> Order:
    try:
        with about(order):
            report = _hand_over(order)
    except OrderRefused as error:
        failpoint("send.refused")
        return _refused(order, error)
    except (OutcomeUnknown, DuplicateClientOrderId, NotSent) as error:
        # A duplicate means that an order of this id exists: the look-up will show whether it is
        # this one. What never left this machine is sent again by the resolver.
        failpoint("send.lost")
        return _lost(order, error.message)
    failpoint("send.answered")
    # It is the answer to what we sent just now, whatever the broker's clock says.
    report = dataclasses.replace(report, created_at=None)
    try:
        known = lifecycle.observe(order.pk, report, Origin(Source.SUBMIT, "broker"))
    except lifecycle.MismatchedReport as mismatch:
        _lost(order, str(mismatch))
        return settle_mismatch(order, mismatch)
    known.account, known.strategy = order.account, order.strategy
    return known


def resend(order: Order) -> Order:
    """Sends an unresolved order once more, with the same id and body (only the resolver does)."""
    sent_by = patience()
    order = lifecycle.transition(
        order.pk,
        statuses.SUBMITTING,
        Origin(Source.SUBMIT, "resolver", "The broker knows nothing of it: sent once more."),
        submitted_at=figures.database_now(),
        attempts=order.attempts + 1,
        lookups_missed=0,
        first_missed_at=None,
    )
    failpoint("resend.committed")
    return send(order, sent_by=sent_by)


def settle_mismatch(order: Order, mismatch: lifecycle.MismatchedReport) -> Order:
    """Tells a person that the broker has another order under our client id. One that is older
    than ours, by the broker's own clock, proves that ours was never taken; any other may be ours,
    changed: a person decides."""
    older = mismatch.foreign and _on_our_clock(order, mismatch.report)
    if older:
        try:
            return lifecycle.observe(order.pk, older, Origin(Source.SUBMIT, "broker"))
        except lifecycle.MismatchedReport as still:
            mismatch = still
    raise_alert(
        order.account_id,
        code="mismatched_order",
        subject=str(order.pk),
        severity=Alert.Severity.CRITICAL,
        message=str(mismatch),
    )
    if not (older and mismatch.foreign):
        return order
    spent = {"code": "client_order_id_spent", "message": str(mismatch), "fields": {}}
    why = f"The client order id was spent at the broker before. {mismatch}"
    return decide(order, statuses.REJECTED, why, rejection=spent)


def _on_our_clock(order: Order, report: OrderReport) -> OrderReport | None:
    """The report with its time moved by what the broker's clock is off; None when the broker's
    clock can't be asked, and nothing is proved."""
    assert report.created_at is not None, "it was called older"
    try:
        off = broker_for(order.account).clock().timestamp - figures.database_now()
    except (BrokerUnavailable, BrokerRefused) as error:
        log.warning("clock not read", extra={"order": str(order.pk), "error": error.message})
        return None
    return dataclasses.replace(report, created_at=report.created_at - off)


def _hand_over(order: Order) -> OrderReport:
    broker = broker_for(order.account)
    if order.replaces is None:
        return broker.submit(order.request)
    old = order.replaces
    assert old.broker_order_id is not None, "only what the broker has can be replaced"
    return broker.replace(
        old.broker_order_id,
        ReplaceRequest(
            client_order_id=order.client_order_id,
            qty=None if order.qty == old.qty else order.qty,
            limit_price=None if order.limit_price == old.limit_price else order.limit_price,
            stop_price=None if order.stop_price == old.stop_price else order.stop_price,
        ),
    )


def _refused(order: Order, error: OrderRefused) -> Order:
    refused = {"code": error.code, "message": error.message, "fields": error.fields}
    if order.attempts == 1:
        return settle_refusal(order, refused)
    # Only this sending was refused; the one before may have been taken, and may be why. The
    # refusal holds when the order is not found once more.
    why = f"Sending it again was refused: {error.message}"
    return decide(order, statuses.UNRESOLVED, why, rejection=refused)


def settle_refusal(order: Order, refused: dict[str, Any]) -> Order:
    """Ends an order that the broker has refused, and that is proved not to exist there. An exit
    that was refused for what passes waits on."""
    # A replacement that is refused leaves the order that it was to replace as it is.
    is_dependent = is_exit(order)
    message = str(refused["message"])
    if is_dependent and order.cancel_requested_at is None and _may_pass(message):
        return wait_again(order, f"The broker does not take it yet: {message}")
    settled = decide(order, statuses.REJECTED, message, rejection=refused)
    judge_outcomes(order.account_id)
    if is_dependent:
        raise_alert(
            order.account_id,
            code="dependent_rejected",
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=(
                f"The {order.get_role_display().lower()} {order.client_order_id} "
                f"({order.symbol}) was refused: {message} The position stands without it."
            ),
        )
    return settled


def is_exit(order: Order) -> bool:
    """Whether it waits for a parent, and replaces nothing."""
    return order.parent_id is not None and order.replaces_id is None


def wait_again(order: Order, why: str) -> Order:
    """An exit that the broker does not have, and that is to be sent later."""
    return decide(
        order,
        statuses.WAITING,
        why,
        submitted_at=None,
        attempts=0,
        rejection=None,
        retry_at=figures.database_now() + _LAG,
        # No pair any more: one of the two may be cancelled before they are sent again.
        order_class="",
        leg_of=None,
    )


def _may_pass(message: str) -> bool:
    """Whether an exit was refused because the broker does not see the parent's shares yet, or for
    an order on the other side that is still open."""
    passing = ("insufficient qty", "must be exit orders", "wash trade")
    return any(words in message for words in passing)


def _lost(order: Order, why: str) -> Order:
    return decide(order, statuses.UNRESOLVED, why)


def decide(order: Order, to: str, why: str, *, actor: str = "broker", **changes: Any) -> Order:
    """What the send proved. The stream may have told the order's fate before: then that holds."""
    try:
        return lifecycle.transition(order.pk, to, Origin(Source.SUBMIT, actor, why), **changes)
    except statuses.InvalidTransition:
        return get(order.pk)


def get(order_id: UUID) -> Order:
    return Order.objects.select_related("account", "strategy", "replaces").get(pk=order_id)
