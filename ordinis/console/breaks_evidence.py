"""What is stored around a difference: orders, fills, ledger, what the broker told of trades outside
and of money, and what was different before. Reads what is stored; never asks the broker.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone

from orders.models import Fill, Order
from positions.models import CashEntry, LedgerEntry
from reconciliation.models import Break, BrokerActivity, Correction, Kind, Snapshot

RECENT: Final = 8
# What the broker told of trades and money outside, so far back.
_A_WHILE: Final = timedelta(days=30)
# Kinds of the account's money: what came and went of it is their evidence.
_OF_MONEY: Final = frozenset({Kind.CASH, Kind.BUYING_POWER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """The newest of everything, each at most `RECENT` rows."""

    symbol: str
    orders: list[Order] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)
    cash_entries: list[CashEntry] = field(default_factory=list)
    activities: list[BrokerActivity] = field(default_factory=list)
    # Of the same subject.
    earlier: list[Break] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    # The broker's last complete answer.
    snapshot: Snapshot | None = None


def trail(row: Break, *, besides: Correction | None = None) -> Trail:
    """Gathers it: a fixed number of queries, by what the break is about. `besides` is the
    correction that is looked at: all others of the same subject are earlier ones."""
    account_id, symbol = row.account_id, row.symbol
    activities = BrokerActivity.objects.filter(
        account_id=account_id, occurred_at__gte=timezone.now() - _A_WHILE
    )
    same = Break.objects.filter(account_id=account_id, subject=row.subject).exclude(pk=row.pk)
    corrections = Correction.objects.filter(
        account_id=account_id, subject__subject=row.subject
    ).select_related("position", "proposed_by", "decided_by")
    others = (
        corrections.exclude(subject=row) if besides is None else corrections.exclude(pk=besides.pk)
    )
    found = Trail(
        symbol=symbol,
        earlier=list(same.select_related("order").order_by("-pk")[:RECENT]),
        corrections=list(others.order_by("-pk")[:RECENT]),
        snapshot=Snapshot.objects.filter(account_id=account_id, complete=True)
        .defer("evidence")
        .first(),
    )
    if symbol:
        found.orders.extend(_orders(row))
        found.fills.extend(
            Fill.objects.select_related("order")
            .filter(order__account_id=account_id, order__symbol=symbol)
            .order_by("-occurred_at", "-pk")[:RECENT]
        )
        found.entries.extend(
            LedgerEntry.objects.select_related("strategy")
            .filter(position__account_id=account_id, position__symbol=symbol)
            .order_by("-seq")[:RECENT]
        )
        found.activities.extend(activities.filter(symbol=symbol)[:RECENT])
    elif row.kind in _OF_MONEY:
        found.activities.extend(activities[:RECENT])
        found.cash_entries.extend(CashEntry.objects.filter(account_id=account_id)[:RECENT])
    return found


def _orders(row: Break) -> QuerySet[Order]:
    return Order.objects.select_related("strategy").filter(
        account_id=row.account_id, symbol=row.symbol
    )[:RECENT]
