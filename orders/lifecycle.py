"""The one door: the only code that changes an order's status or fills.

The broker's answer, the stream, the poll, a look-up and reconciliation all bring the same
`OrderReport` to `observe`. Each change and its history row are one transaction with the order's
row locked. Never takes the account's lock and never talks to the broker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from orders import fills, statuses
from orders.models import Order, OrderHistory
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.port import OrderReport
from ordinis.numbers import plain

Source = OrderHistory.Source


@dataclass(frozen=True, slots=True)
class Origin:
    """Who brings a change: by which way it came, who acted, and why."""

    source: Source
    actor: str
    reason: str = ""


class MismatchedReport(Exception):
    """The broker's order is not the one we sent; nothing was taken from it. `foreign`: it was made
    before ours, which proves that ours does not exist, since an id is spent for ever."""

    def __init__(self, message: str, *, foreign: bool) -> None:
        super().__init__(message)
        self.foreign = foreign


# How far the broker's clock and ours may be apart.
_CLOCKS_DIFFER = timedelta(seconds=30)


def record_intent(order: Order, status: str, origin: Origin) -> None:
    """Stores a new order with its first history row, in the caller's transaction."""
    order.status = status
    _append(order, "", status, origin)  # the foreign key is checked at the commit
    order.save(force_insert=True)


def transition(order_id: UUID, to: str, origin: Origin, **changes: Any) -> Order:
    """Moves an order by our own decision and sets `changes` on it beside.

    We only ever decide on orders whose existence is unproved; once the broker has spoken of one,
    its word holds. Raises InvalidTransition, with nothing changed, when it has, or when the table
    does not allow the step.
    """
    with transaction.atomic():
        order = _locked(order_id)
        if order.status not in statuses.UNPROVED:
            raise statuses.InvalidTransition(order.status, to)
        statuses.check(order.status, to)
        before, order.status = order.status, to
        for name, value in changes.items():
            setattr(order, name, value)
        _append(order, before, to, origin)
        order.save(update_fields=("status", "updated_at", *_HISTORY, *changes))
    return order


def observe(order_id: UUID, report: OrderReport, origin: Origin) -> Order:
    """Takes in what the broker says of an order. Duplicated, late and out-of-order reports
    change nothing twice.

    Raises MismatchedReport when the report is of another order than ours.
    """
    with transaction.atomic():
        order = _locked(order_id)
        database_time: datetime = order.database_time  # type: ignore[attr-defined]
        _check_same(order, report)
        before = order.status
        after = _status_after(order, report)
        booked = fills.advance(order, report)
        first_word = order.acknowledged_at is None
        if not (booked or first_word or after != before):
            return order
        if first_word:
            order.broker_order_id = report.broker_order_id
            order.acknowledged_at = database_time
        _raise_incidents(order, report, before, after, booked)
        order.status = after
        order.broker_updated_at = max(
            filter(None, (report.updated_at, order.broker_updated_at)), default=None
        )
        if booked or after != before:
            reason = origin.reason or (f"{plain(booked)} filled" if booked else "")
            _append(order, before, after, Origin(origin.source, origin.actor, reason), report)
        order.save(
            update_fields=(
                "status",
                "filled_qty",
                "average_fill_price",
                "broker_order_id",
                "acknowledged_at",
                "broker_updated_at",
                "updated_at",
                *_HISTORY,
            )
        )
    return order


_HISTORY = ("history_length", "history_hash")


def _locked(order_id: UUID) -> Order:
    return (
        Order.objects.select_related("account", "strategy")
        .annotate(database_time=Now())  # of the start of this transaction
        .select_for_update(no_key=True, of=("self",))
        .get(pk=order_id)
    )


def _check_same(order: Order, report: OrderReport) -> None:
    if order.broker_order_id == report.broker_order_id:
        return
    ours = (order.client_order_id, order.symbol, order.side, order.type)
    theirs = (report.client_order_id, report.symbol, report.side, report.type)
    terms_agree = report.qty == order.qty and report.limit_price == order.limit_price
    foreign = (
        report.created_at is not None and report.created_at < order.created_at - _CLOCKS_DIFFER
    )
    if order.broker_order_id is not None or ours != theirs or not terms_agree or foreign:
        raise MismatchedReport(
            f"The broker's order {report.broker_order_id} ({report.side} {report.qty} "
            f"{report.symbol} at {report.limit_price}) is not order {order.client_order_id} "
            f"({order.side} {order.qty:f} {order.symbol} at {order.limit_price:f}).",
            foreign=foreign,
        )


def _status_after(order: Order, report: OrderReport) -> str:
    """The status after this report: the broker's, unless the report is older than what we know
    or the table does not allow it (an order that has ended stays ended)."""
    before, after = order.status, report.status
    if after == "filled" and max(report.filled_qty, order.filled_qty) < order.qty:
        # Its figures lag behind its status. Closed now, the missing shares would never be asked
        # for again; open, the next poll looks the order up.
        after = "partially_filled" if report.filled_qty else "new"
    if before == after:
        return before
    try:
        statuses.check(before, after)
    except statuses.InvalidTransition:
        return before
    if before in statuses.UNPROVED or not statuses.is_open(before):
        return after
    if not statuses.is_open(after):
        return after  # an end is final, whatever its time stamp
    known, told = order.broker_updated_at, report.updated_at
    if known and told and told != known:
        return after if told > known else before
    return after if statuses.progress(after) >= statuses.progress(before) else before


def _raise_incidents(
    order: Order, report: OrderReport, before: str, after: str, booked: Decimal
) -> None:
    """What a person must hear of: each is a sentence that says what was found."""
    found: list[tuple[str, str]] = []
    if report.status == "filled" and after != "filled" and statuses.is_open(after):
        told = f"{report.filled_qty:f} of {order.qty:f}"
        found.append(("filled_short", f"the broker calls it filled, but with {told} shares"))
    if not statuses.is_known(after) and after != before:
        found.append(("unknown_status", f"the broker reports the unknown status {after!r}"))
    if not statuses.is_open(before) and (booked or after != before):
        found.append(("late_report", f"believed {before}, but the broker reports {after}"))
    if order.filled_qty > order.qty:
        found.append(("overfill", f"filled {order.filled_qty:f} of {order.qty:f}"))
    for code, what in found:
        raise_alert(
            order.account_id,
            code=code,
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=f"Order {order.client_order_id} ({order.symbol}): {what}.",
        )


def _append(
    order: Order, before: str, after: str, origin: Origin, report: OrderReport | None = None
) -> None:
    now = datetime.now(UTC)
    row = OrderHistory(
        order=order,
        seq=order.history_length + 1,
        from_status=before,
        to_status=after,
        occurred_at=(report and report.updated_at) or now,
        received_at=now,
        source=origin.source,
        actor=origin.actor,
        reason=origin.reason,
        report=None if report is None else _storable(report.raw),
    )
    row.hash = row.digest(order.history_hash)
    row.save(force_insert=True)
    order.history_length, order.history_hash = row.seq, row.hash
    order.updated_at = now


def _storable(value: Any) -> Any:
    """The report as the database gives it back to the letter: its JSON type rewrites floats and
    refuses NUL and half characters, and the hash must still match."""
    if isinstance(value, Mapping):
        return {_text(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "")
