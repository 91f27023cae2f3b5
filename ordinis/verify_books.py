"""Checks the books themselves: the ledgers of shares and cash, corrections, and the history of
breaks. A part of `ordinis.verify`; reads only.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import groupby

from django.db.models import Count, F, OuterRef, Q, Subquery

from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain
from positions.ledger import PRICE_STEP, Holding, after, after_split, realized
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation.models import Break, BreakEvent, BrokerActivity, Correction

_ZERO = Decimal(0)


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


CHECKS: tuple[Callable[[], Iterator[str]], ...] = (
    _positions_follow_from_the_ledger,
    _corrections_were_decided_by_another,
    _corrections_booked_what_they_proposed,
    _cash_has_its_causes,
    _breaks_have_their_history,
)
