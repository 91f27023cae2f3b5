"""What the orders themselves show that a person must decide: trades that the broker took back or
corrected, and orders that filled beyond their quantity.

Found in our own tables, so no comparison heals them: each is one open break per order, until a
person has dealt with it. Never changes the ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import F, Max, OuterRef, Subquery

from orders.models import Bust, Order
from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain
from reconciliation.models import Break, Kind


@dataclass(frozen=True, slots=True)
class _Found:
    kind: Kind
    order: Order
    local_qty: Decimal
    broker_qty: Decimal


def take_in(account: BrokerAccount, now: datetime) -> None:
    """Makes a break of whatever has none yet. Called only by a run, alone on its account."""
    for found in (*_busts(account), *_overfills(account)):
        price = found.order.average_fill_price
        difference = found.broker_qty - found.local_qty
        Break.objects.create(
            account=account,
            kind=found.kind,
            order=found.order,
            symbol=found.order.symbol,
            local_qty=found.local_qty,
            broker_qty=found.broker_qty,
            value=None if price is None else abs(difference * price),
            severity=Break.Severity.CRITICAL,
            first_seen=now,
            last_seen=now,
        )


def described(account: BrokerAccount) -> list[dict[str, Any]]:
    """The open ones, as a report lists them."""
    return [
        {
            "kind": row.kind,
            "symbol": row.symbol,
            "order": str(row.order_id),
            "local": plain(row.local_qty),
            "broker": plain(row.broker_qty),
        }
        for row in Break.objects.filter(
            account=account, order__isnull=False, status__in=Break.OPEN_STATUSES
        ).order_by("pk")
    ]


def _told(kind: Kind) -> Subquery:
    """When a break of this kind was last made of the order."""
    rows = Break.objects.filter(order=OuterRef("pk"), kind=kind).order_by("-first_seen")
    return Subquery(rows.values("first_seen")[:1])


def _busts(account: BrokerAccount) -> Iterator[_Found]:
    orders = Order.objects.filter(account=account, executions_only=True).annotate(
        last_bust=Max("busts__recorded_at"), told=_told(Kind.TRADE_BUST)
    )
    for order in orders:
        if order.told is not None and order.told >= order.last_bust:
            continue
        if Break.objects.filter(
            order=order, kind=Kind.TRADE_BUST, status__in=Break.OPEN_STATUSES
        ).exists():
            continue  # one line per order, however many of its trades are taken back
        taken_back = order.busts.filter(kind=Bust.Kind.BUST).values_list("qty", flat=True)
        shares = sum((abs(qty) for qty in taken_back if qty), Decimal(0))
        yield _Found(Kind.TRADE_BUST, order, order.filled_qty, order.filled_qty - shares)


def _overfills(account: BrokerAccount) -> Iterator[_Found]:
    orders = Order.objects.filter(account=account, filled_qty__gt=F("qty")).annotate(
        told=_told(Kind.ORDER_FILL)
    )
    for order in orders.filter(told=None):
        yield _Found(Kind.ORDER_FILL, order, order.qty, order.filled_qty)
