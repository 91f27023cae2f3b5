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

from django.db import transaction
from django.db.models import F, Max, OuterRef, Q, Subquery

from orders.models import Bust, Order
from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain
from reconciliation import history
from reconciliation.models import Break, Kind

_FAMILIES = {Kind.TRADE_BUST: "bust", Kind.ORDER_FILL: "overfill"}


@dataclass(frozen=True, slots=True)
class _Found:
    kind: Kind
    order: Order
    local: Decimal
    broker: Decimal


def take_in(account: BrokerAccount, now: datetime) -> None:
    """Makes a break of whatever has none yet. Called only by a run, alone on its account."""
    for found in (*_busts(account), *_overfills(account)):
        price = found.order.average_fill_price
        difference = found.broker - found.local
        with transaction.atomic():
            BrokerAccount.lock(account.pk)
            row = Break.objects.create(
                account=account,
                kind=found.kind,
                subject=f"{_FAMILIES[found.kind]}/{found.order.pk}",
                order=found.order,
                broker_order_id=found.order.broker_order_id or "",
                symbol=found.order.symbol,
                local=found.local,
                broker=found.broker,
                value=None if price is None else abs(difference * price),
                severity=Break.Severity.CRITICAL,
                first_seen=now,
                last_seen=now,
            )
            history.note(row, history.What.OPENED, at=now)


def described(account: BrokerAccount) -> list[dict[str, Any]]:
    """The open ones, as a report lists them."""
    return [
        {
            "kind": row.kind,
            "symbol": row.symbol,
            "order": None if row.order_id is None else str(row.order_id),
            "broker_order_id": row.broker_order_id,
            "local": plain(row.local),
            "broker": plain(row.broker),
        }
        for row in Break.objects.filter(
            Q(subject__startswith="bust/") | Q(subject__startswith="overfill/"),
            account=account,
            ended_at=None,
        ).order_by("pk")
    ]


def _told(kind: Kind) -> Subquery:
    """When a break of this kind was last made of the order."""
    rows = Break.objects.filter(
        order=OuterRef("pk"), kind=kind, subject__startswith=f"{_FAMILIES[kind]}/"
    ).order_by("-first_seen")
    return Subquery(rows.values("first_seen")[:1])


def _busts(account: BrokerAccount) -> Iterator[_Found]:
    orders = Order.objects.filter(account=account, executions_only=True).annotate(
        last_bust=Max("busts__recorded_at"), told=_told(Kind.TRADE_BUST)
    )
    for order in orders:
        if order.told is not None and order.told >= order.last_bust:
            continue
        if Break.objects.filter(order=order, kind=Kind.TRADE_BUST, ended_at=None).exists():
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
