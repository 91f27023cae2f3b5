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
from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain
from positions.ledger import PRICE_STEP, Holding, after, after_split, realized
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation.models import Break, BreakEvent, BrokerActivity, Correction
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


def _positions_follow_from_the_ledger() -> Iterator[str]:
    rows = LedgerEntry.objects.order_by("position_id", "seq").select_related(
        "position", "correction"
    )
    seen = set()
    for position, entries in groupby(rows.iterator(), key=lambda entry: entry.position):
        seen.add(position.pk)
        sums = _Sums()
        for entry in entries:
            yield from sums.add(entry)
        yield from sums.compare(position)
    empty = Q(qty=0, ledger_version=0, realized_profit=0, cash_flow=0)
    for position in Position.objects.exclude(pk__in=seen).exclude(empty):
        yield f"position {position}: {plain(position.qty)} shares without a ledger"


class _Sums:
    """What a position comes to, entry by entry."""

    def __init__(self) -> None:
        self.held, self.seq = Holding(_ZERO, None), 0
        self.previous = self.held
        self.profit = self.cash_flow = _ZERO

    def add(self, entry: LedgerEntry) -> Iterator[str]:
        position, before = entry.position, self.held
        if entry.seq != self.seq + 1:
            yield f"position {position}: ledger entry {self.seq + 1} is missing"
        split = entry.kind == LedgerEntry.Kind.SPLIT
        due = after_split(before, entry.qty) if split else after(before, entry.qty, entry.price)
        profit = _ZERO if split else realized(before, entry.qty, entry.price)
        taken_over = _taken_over(entry)
        if entry.cause.endswith("/reversed"):  # of a late fill: the average is again as before it
            taken_over = self.previous.average_price
        if taken_over is not None and due.qty:
            due = Holding(due.qty, taken_over)
        if due.qty != entry.qty_after:
            shares = plain(entry.qty_after)
            yield f"position {position}: entry {entry.seq} says {shares} shares after"
        rebuilt = entry.cause.startswith("rebuild/")  # its average is the broker's, kept with it
        if due.average_price != entry.average_price_after and not rebuilt:
            yield f"position {position}: entry {entry.seq} has a wrong average price"
        if profit != entry.realized_profit:
            yield f"position {position}: entry {entry.seq} has a wrong realised profit"
        self.previous = before
        self.held, self.seq = Holding(entry.qty_after, entry.average_price_after), entry.seq
        self.profit += profit
        if entry.kind == LedgerEntry.Kind.FILL and entry.price is not None:
            self.cash_flow -= (entry.qty * entry.price).quantize(PRICE_STEP)

    def compare(self, position: Position) -> Iterator[str]:
        held = (self.held.qty, self.held.average_price, self.seq)
        if held != (position.qty, position.average_price, position.ledger_version):
            ours, sums = plain(position.qty), plain(self.held.qty)
            yield f"position {position}: {ours} shares, but its ledger says {sums}"
        if self.profit != position.realized_profit:
            yield f"position {position}: its realised profit is not the sum of its ledger"
        if self.cash_flow != position.cash_flow:
            yield f"position {position}: its cash flow is not the sum of its fills"


def _taken_over(entry: LedgerEntry) -> Decimal | None:
    """The broker's average price, where a correction took it over."""
    correction = getattr(entry, "correction", None)
    return None if correction is None else correction.broker_average_price


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


def _corrections_were_decided_by_another() -> Iterator[str]:
    for row in Correction.objects.filter(decided_by=F("proposed_by"), self_decided=False):
        yield f"correction {row.pk}: decided by its proposer"
    twice = (
        LedgerEntry.objects.filter(cause__startswith="correction/")
        .values("account", "cause")
        .annotate(times=Count("pk"))
        .exclude(times=1)
    )
    for entry in twice:
        yield f"{entry['cause']}: applied {entry['times']} times"


def _corrections_booked_what_they_proposed() -> Iterator[str]:
    difference = F("broker") - F("local")
    booked = Correction.objects.filter(ledger_entry__isnull=False)
    moved = booked.exclude(kind=Correction.Kind.AVERAGE_PRICE)
    for row in moved.exclude(ledger_entry__qty=difference):
        yield f"correction {row.pk}: booked other shares than it proposed"
    for row in booked.filter(kind=Correction.Kind.AVERAGE_PRICE).exclude(ledger_entry__qty=0):
        yield f"correction {row.pk}: moved shares, but was of the average price alone"
    for row in Correction.objects.filter(cash_entry__isnull=False).exclude(
        cash_entry__amount=difference
    ):
        yield f"correction {row.pk}: booked another amount than it proposed"


def _cash_has_its_causes() -> Iterator[str]:
    """Each dollar of a trade outside, a fee or a dividend is that of the broker's activity."""
    told = BrokerActivity.objects.filter(
        account=OuterRef("account"), activity_id=OuterRef("cause")
    ).values("amount")[:1]
    of_activities = CashEntry.objects.filter(
        kind__in=(CashEntry.Kind.EXTERNAL_TRADE, CashEntry.Kind.ACTIVITY)
    ).exclude(cause__endswith="/adopted")
    for entry in of_activities.annotate(told=Subquery(told)).exclude(told=F("amount")):
        yield f"cash entry {entry.pk}: is not what the broker's activity {entry.cause} says"
    opened = CashEntry.objects.filter(kind=CashEntry.Kind.OPENING).values("account")
    for account in BrokerAccount.objects.filter(opened_at__isnull=False).exclude(pk__in=opened):
        yield f"account {account}: its book was opened without its cash"


def _breaks_have_their_history() -> Iterator[str]:
    """Each break was opened, and each that has ended says how."""
    first = BreakEvent.objects.filter(subject=OuterRef("pk")).order_by("at", "pk")
    ends = (BreakEvent.What.HEALED, BreakEvent.What.RESOLVED)
    last = BreakEvent.objects.filter(
        subject=OuterRef("pk"), what__in=(*ends, BreakEvent.What.REOPENED)
    ).order_by("-pk")
    rows = Break.objects.annotate(
        began=Subquery(first.values("what")[:1]), ended=Subquery(last.values("what")[:1])
    )
    for row in rows.exclude(began=BreakEvent.What.OPENED):
        yield f"break {row.pk}: its history does not begin with its opening"
    for row in rows.filter(ended_at__isnull=False).exclude(ended=F("status")):
        yield f"break {row.pk}: is {row.status}, but its history does not say so"
    for row in rows.filter(ended_at=None, ended__in=ends):
        yield f"break {row.pk}: is {row.status}, but its history ended"


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
    _filled_is_the_sum_of_fills,
    _filled_orders_have_their_shares,
    _fills_are_in_the_ledger,
    _positions_follow_from_the_ledger,
    _history_is_whole,
    _acknowledged_orders_have_the_brokers_id,
    _corrections_were_decided_by_another,
    _corrections_booked_what_they_proposed,
    _cash_has_its_causes,
    _breaks_have_their_history,
    _executions_are_booked_once,
    _events_are_numbered_without_a_gap,
    _trading_states_are_those_of_their_history,
    _short_sales_are_sells,
    _reductions_are_cut,
    _dependents_follow_their_parents,
)
