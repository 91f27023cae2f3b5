"""Checks every invariant of the books on the real data, and names each row that breaks one.

Reads only. Each check is one query or one pass over one table; nothing is repaired.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import groupby

from django.db.models import Count, F, Max, Min, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from orders import statuses
from orders.chains import lines
from orders.models import Event, Fill, Order, OrderHistory
from ordinis import verify_books
from ordinis.numbers import plain
from positions.models import LedgerEntry
from risk.models import TradingChange, TradingControl

_ZERO = Decimal(0)


def violations() -> Iterator[str]:
    """A sentence for each violation found; none when all invariants hold."""
    for check in _CHECKS:
        yield from check()


def _filled_is_the_sum_of_fills() -> Iterator[str]:
    """Of a chain: a replacement goes on counting where the order that it replaced had come to."""
    chains = Order.objects.order_by().values("chain")
    wrong = chains.annotate(
        filled=Max("filled_qty"), booked=Coalesce(Sum("fills__qty"), _ZERO)
    ).exclude(booked=F("filled"))
    for row in wrong:
        filled, booked = plain(row["filled"]), plain(row["booked"])
        yield f"order {row['chain']}: filled {filled}, but its fills sum up to {booked}"


def _filled_orders_have_their_shares() -> Iterator[str]:
    for order in Order.objects.filter(status="filled", filled_qty__lt=F("qty")):
        yield f"order {order.pk}: filled, but only {plain(order.filled_qty)} shares are booked"


def _fills_are_in_the_ledger() -> Iterator[str]:
    entries = LedgerEntry.objects.filter(kind=LedgerEntry.Kind.FILL).annotate(
        shares=Coalesce(Sum("fills__qty"), _ZERO),
        orders=Count("fills__order", distinct=True),
        side=Min("fills__order__side"),
    )
    right = Q(side="buy", qty=F("shares")) | Q(side="sell", qty=-F("shares"))
    for entry in entries.exclude(right):
        yield f"ledger entry {entry.pk}: {entry.qty:+f}, but its fills sum to {plain(entry.shares)}"
    for entry in entries.exclude(orders=1):
        yield f"ledger entry {entry.pk}: belongs to {entry.orders} orders"


def _history_is_whole() -> Iterator[str]:
    rows = OrderHistory.objects.order_by("order_id", "seq").select_related("order")
    seen = 0
    for order, steps in groupby(rows.iterator(), key=lambda step: step.order):
        seen += 1
        status, digest, seq = "", "", 0
        for step in steps:
            seq += 1
            if step.seq != seq or step.from_status != status:
                yield f"order {order.pk}: its history has a gap before step {step.seq}"
            elif status and not _may_follow(status, step.to_status):
                yield f"order {order.pk}: {status} must not be followed by {step.to_status}"
            if step.digest(digest) != step.hash:
                yield f"order {order.pk}: step {step.seq} of its history was changed"
            status, digest, seq = step.to_status, step.hash, step.seq
        if (status, digest, seq) != (order.status, order.history_hash, order.history_length):
            yield f"order {order.pk}: is {order.status}, but its history ends with {status}"
    if seen != (total := Order.objects.count()):
        yield f"{total - seen} orders have no history"


def _may_follow(before: str, after: str) -> bool:
    try:
        statuses.check(before, after)
    except statuses.InvalidTransition:
        return False
    return True


def _acknowledged_orders_have_the_brokers_id() -> Iterator[str]:
    wrong = Order.objects.filter(
        Q(acknowledged_at=None, broker_order_id__isnull=False)
        | Q(acknowledged_at__isnull=False, broker_order_id=None)
    )
    for order in wrong:
        yield f"order {order.pk}: acknowledged and the broker's id do not go together"


def _executions_are_booked_once() -> Iterator[str]:
    for fill in Fill.objects.exclude(account_id=F("order__account_id")):
        yield f"fill {fill.pk}: is in another account than its order"


def _dependents_follow_their_parents() -> Iterator[str]:
    """None is sent before its parent's fill was booked, and all together for no more than that."""
    rows = Order.objects.filter(parent__isnull=False).select_related("leg_of")
    sent = rows.exclude(Q(status=statuses.WAITING) | Q(submitted_at=None)).order_by("parent__chain")
    filled = {
        row["chain"]: (row["shares"], row["first"])
        for row in Order.objects.order_by()
        .filter(chain__in=sent.values("parent__chain"))
        .values("chain")
        .annotate(shares=Max("filled_qty"), first=Min("fills__recorded_at"))
    }
    annotated = sent.annotate(of=F("parent__chain"))
    for parent, orders in groupby(annotated.iterator(), key=lambda order: order.of):
        shares, first = filled[parent]
        dependents = list(orders)
        for order in dependents:
            if order.replaces_id is not None:
                continue  # perhaps made at the broker: the one that it replaced was sent here
            if order.judged_at is None or first is None or order.judged_at < first:
                yield f"order {order.pk}: was sent before its parent's fill was booked"
        held = sum((line.held_qty for line in lines(dependents)), _ZERO)
        if held > shares:
            yield (
                f"order {parent}: filled {plain(shares)}, but its dependents are for {plain(held)}"
            )


def _trading_states_are_those_of_their_history() -> Iterator[str]:
    """Invariant 8: what a person set stands until a person changes it."""
    newest = TradingChange.objects.filter(
        account=OuterRef("account"), kind=TradingChange.Kind.PERSON
    ).order_by("-at", "-pk")
    last = Coalesce(Subquery(newest.values("to_state")[:1]), Value(TradingControl.State.ACTIVE))
    for row in TradingControl.objects.annotate(last=last).exclude(state=F("last")):
        yield f"account {row.account_id}: trading is {row.state}, but it was last set to {row.last}"


def _short_sales_are_sells() -> Iterator[str]:
    for order in Order.objects.filter(sells_short=True).exclude(side="sell"):
        yield f"order {order.pk}: a {order.side} can't sell short"


def _reductions_are_cut() -> Iterator[str]:
    wrong = Q(reduce_only=False) | Q(requested_qty__lt=F("qty"))
    for order in Order.objects.filter(wrong, requested_qty__isnull=False):
        yield f"order {order.pk}: only an order that reduces is cut, and never made larger"


def _events_are_numbered_without_a_gap() -> Iterator[str]:
    numbered = Event.objects.exclude(seq=None).order_by().values("strategy")
    for row in numbered.annotate(count=Count("pk"), last=Max("seq")).exclude(count=F("last")):
        yield f"strategy {row['strategy']}: {row['count']} events, but the last is {row['last']}"


_CHECKS: tuple[Callable[[], Iterator[str]], ...] = (
    *verify_books.CHECKS,
    _filled_is_the_sum_of_fills,
    _filled_orders_have_their_shares,
    _fills_are_in_the_ledger,
    _history_is_whole,
    _acknowledged_orders_have_the_brokers_id,
    _executions_are_booked_once,
    _events_are_numbered_without_a_gap,
    _trading_states_are_those_of_their_history,
    _short_sales_are_sells,
    _reductions_are_cut,
    _dependents_follow_their_parents,
)
