"""The one door: the only code that changes an order's status or fills.

The broker's answer, the stream, the poll, a look-up and reconciliation all bring the same
`OrderReport` to `observe`. Each change and its history row are one transaction with the order's
row locked. Never takes the account's lock and never talks to the broker.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from orders import events, fills, incidents, statuses, wake
from orders.models import Fill, Order, OrderHistory
from orders.sameness import MismatchedReport, check_same, has_shrunk
from orders.steps import HISTORY, Origin, Source, append, make_step
from ordinis.broker.port import TERMINAL_STATUSES, OrderReport
from ordinis.failpoints import failpoint
from ordinis.numbers import plain

__all__ = ["MismatchedReport", "Origin", "Source"]  # what callers of the door need beside


def record_intent(order: Order, status: str, origin: Origin) -> None:
    """Stores a new order with its first history row, in the caller's transaction."""
    order.status = status
    order.chain = order.replaces.chain if order.replaces else order.pk
    step = append(order, "", status, origin)  # the foreign key is checked at the commit
    order.save(force_insert=True)
    events.record(order, [step])


def transition(order_id: UUID, to: str, origin: Origin, **changes: Any) -> Order:
    """Moves an order by our own decision and sets `changes` on it beside. The leg of an OCO pair
    has no request of its own: what is decided of its order is decided of it.

    We only ever decide on orders whose existence is unproved; once the broker has spoken of one,
    its word holds. Raises InvalidTransition, with nothing changed, when it has, or when the table
    does not allow the step.
    """
    with transaction.atomic():
        order = _locked(order_id)[0]
        # What may have been sent ends only by the broker's word.
        ends_here = to == statuses.CANCELED and order.status not in statuses.UNSENT
        if ends_here or order.status not in statuses.UNPROVED | statuses.UNSENT:
            raise statuses.InvalidTransition(order.status, to)
        legs = _legs(order)
        _decide(order, to, origin, changes)
        for leg in legs:
            shared = {name: changes[name] for name in _OF_THE_PAIR if name in changes}
            _decide(leg, to, origin, shared)
        if not order.is_open:  # what waits for it must not wait for ever
            wake.after_commit(order)
    return order


# What a decision on an order changes on its leg, too.
_OF_THE_PAIR = ("submitted_at", "attempts", "rejection", "leg_of", "retry_at")


def _decide(order: Order, to: str, origin: Origin, changes: dict[str, Any]) -> None:
    statuses.check(order.status, to)
    before, order.status = order.status, to
    for name, value in changes.items():
        setattr(order, name, value)
    step = append(order, before, to, origin)
    order.save(update_fields=("status", "updated_at", *HISTORY, *changes))
    events.record(order, [step])


def request_cancel(order_ids: Iterable[UUID], origin: Origin) -> list[Order]:
    """Notes that orders are to be cancelled: each is asked for until it has ended, and never sent
    again. One of which nothing has left for the broker ends here. Returns them by id."""
    with transaction.atomic():
        orders = list(
            Order.objects.select_related("account", "strategy")
            .filter(pk__in=list(order_ids))
            .order_by("pk")
            .select_for_update(no_key=True, of=("self",))
        )
        marked, steps = [], []
        for order in orders:
            if order.status in statuses.UNSENT:
                _decide(order, statuses.CANCELED, origin, {})
            elif order.is_open and order.cancel_requested_at is None:
                order.cancel_requested_at = datetime.now(UTC)
                steps.append(make_step(order, order.status, order.status, origin))
                marked.append(order)
        OrderHistory.objects.bulk_create(steps)
        Order.objects.bulk_update(marked, ("cancel_requested_at", "updated_at", *HISTORY), 500)
    return orders


def observe(order_id: UUID, report: OrderReport, origin: Origin) -> Order:
    """Takes in what the broker says of an order. Duplicated, late and out-of-order reports
    change nothing twice.

    Raises MismatchedReport when the report is of another order than ours.
    """
    with transaction.atomic():
        chain = _locked(order_id)
        order = chain[0]
        failpoint("observe.locked")
        shrunk = has_shrunk(report, chain)
        check_same(order, report, shrunk=shrunk)
        incidents.note_bust(order, report)
        before, filled_before = order.status, order.filled_qty
        order.qty = report.qty if shrunk and report.qty else order.qty
        after = _status_after(order, report)
        booked = fills.advance(order, report, chain)
        failpoint("observe.booked")
        first_word = order.acknowledged_at is None
        moved = booked or after != before or order.filled_qty != filled_before
        if moved or first_word or shrunk:
            _take_in(order, report, origin, before, after, booked)
        for leg, told in _paired(order, report):
            # In the same transaction: a pair of which only one order is known could be sent twice.
            observe(leg.pk, told, origin)
        failpoint("observe.before_commit")
    return order


def observe_ends(reports: Mapping[UUID, OrderReport], origin: Origin) -> set[UUID]:
    """`observe` for many orders at once, as after a cancel of all: those that have ended with
    nothing else to take in. Returns their ids; the others go to `observe` one by one."""
    with transaction.atomic():
        rows = _with_what_follows(Order.objects.filter(pk__in=list(reports)))
        ended = [order for order in rows if _merely_ends(order, reports[order.pk])]
        steps = []
        for order in ended:
            report = reports[order.pk]
            before, order.status = order.status, report.status
            order.broker_updated_at = report.updated_at or order.broker_updated_at
            steps.append(make_step(order, before, order.status, origin, report))
        OrderHistory.objects.bulk_create(steps)
        changed = ("status", "broker_updated_at", "updated_at", *HISTORY)
        Order.objects.bulk_update(ended, changed)
        events.record_all([(order, [step], []) for order, step in zip(ended, steps, strict=True)])
        for order in ended:
            wake.after_commit(order)
    return {order.pk for order in ended}


def _merely_ends(order: Order, report: OrderReport) -> bool:
    return (
        statuses.is_open(order.status)
        and order.broker_order_id == report.broker_order_id
        and report.status in TERMINAL_STATUSES - {"filled"}
        and (report.filled_qty, report.qty) == (order.filled_qty, order.qty)
        and not (report.execution or report.bust or report.legs or order.order_class)
    )


def _take_in(
    order: Order,
    report: OrderReport,
    origin: Origin,
    before: str,
    after: str,
    booked: list[Fill],
) -> None:
    database_time: datetime = order.database_time  # type: ignore[attr-defined]
    if order.acknowledged_at is None:
        order.broker_order_id = report.broker_order_id
        order.acknowledged_at = database_time
        order.rejection = None  # of a second sending; the first was taken
    incidents.raise_for(order, report, before, after, bool(booked))
    if before == statuses.FAILED:
        # It was written off, and whoever sent it has gone on since (SPEC O3).
        order.cancel_requested_at = order.cancel_requested_at or database_time
    order.status = after
    order.broker_updated_at = max(
        filter(None, (report.updated_at, order.broker_updated_at)), default=None
    )
    steps = []
    if booked or after != before:
        shares = plain(sum((fill.qty for fill in booked), Decimal(0)))
        reason = origin.reason or (f"{shares} filled" if booked else "")
        steps = [append(order, before, after, Origin(origin.source, origin.actor, reason), report)]
    order.save(
        update_fields=(
            "status",
            "qty",
            "filled_qty",
            "average_fill_price",
            "broker_order_id",
            "acknowledged_at",
            "rejection",
            "broker_updated_at",
            "cancel_requested_at",
            "updated_at",
            *HISTORY,
        )
    )
    events.record(order, steps, booked)
    wake.after_commit(order)


def adopt(predecessor: Order, report: OrderReport) -> Order:
    """The order that replaced one of ours in the broker's own app, as an order of ours: what its
    chain goes on to fill must be in the book."""
    with transaction.atomic():
        old = _locked(predecessor.pk)[0]
        # Asked for once the lock is held: another report may have brought it meanwhile.
        known = Order.objects.filter(
            account_id=old.account_id, client_order_id=report.client_order_id
        ).first()
        if known is not None:
            return known
        order = old.successor(
            client_order_id=report.client_order_id,
            qty=report.qty or old.qty,
            type=report.type,
            time_in_force=report.time_in_force,
            limit_price=report.limit_price,
            stop_price=report.stop_price,
            worst_price=report.limit_price or old.worst_price,
            cancel_requested_at=old.cancel_requested_at,
            created_at=report.created_at or datetime.now(UTC),
            submitted_at=datetime.now(UTC),
        )
        why = f"It replaced {old.client_order_id} at the broker, without Ordinis."
        record_intent(order, statuses.SUBMITTING, Origin(Source.POLL, "broker", why))
    return order


def _locked(order_id: UUID) -> list[Order]:
    """The order, and after it the others of its chain; locked in the order of their ids, and with
    them the other one of a pair, which the same report may move."""
    # In SQL: the door is gone through at least twice in each order's life.
    family = RawSQL(
        "SELECT chain FROM orders_order WHERE id = %s OR leg_of_id = %s"
        " OR id = (SELECT leg_of_id FROM orders_order WHERE id = %s)",
        [order_id] * 3,
    )
    found = sorted(
        _with_what_follows(Order.objects.filter(chain__in=family)),
        key=lambda each: each.pk != order_id,
    )
    return [each for each in found if each.chain == found[0].chain]


def _with_what_follows(rows: QuerySet[Order]) -> QuerySet[Order]:
    """These, locked in the order of their ids."""
    return (
        rows.annotate(database_time=Now())  # of the start of this transaction
        .order_by("pk")
        .select_for_update(no_key=True, of=("self",))
    )


def _legs(order: Order) -> list[Order]:
    if order.order_class != "oco":
        return []
    return list(order.legs.select_for_update(no_key=True).order_by("pk"))


def _paired(order: Order, report: OrderReport) -> list[tuple[Order, OrderReport]]:
    """The leg of an OCO pair with what the broker says of it."""
    if not report.legs or order.order_class != "oco":
        return []
    legs = zip(order.legs.order_by("pk"), report.legs, strict=False)
    # What replaced a leg is named in its place, and is an order of its own here.
    return [
        (leg, told) for leg, told in legs if leg.broker_order_id in (None, told.broker_order_id)
    ]


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
