"""The orders that count when another one is judged, read once: what they commit beyond a snapshot
of the broker's figures, what they may add to a position, and which stand against it.

Reads only. The rules are `risk.commitments` and `risk.exposure`; this brings them their values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import DecimalField, F, Q, QuerySet, Sum

from orders import statuses
from orders.models import Fill, Order
from positions.models import Position
from risk.checks import Opposite
from risk.commitments import Commitment, Committed, committed, counts
from risk.exposure import Working

MARGIN = timedelta(seconds=settings.ACKNOWLEDGEMENT_MARGIN)
_ZERO = Decimal(0)
_COLUMNS = (
    *("pk", "symbol", "side", "status", "qty", "filled_qty", "average_fill_price", "sells_short"),
    *("limit_price", "worst_price", "acknowledged_at", "type", "client_order_id", "chain"),
    *("replaces__status", "replaces__qty", "replaces__filled_qty", "replaces__worst_price"),
)


@dataclass(frozen=True, slots=True)
class WorkingOrders:
    """Orders of an account as plain values, for a snapshot that was asked for at `asked_at`."""

    account_id: int
    rows: list[dict[str, Any]]
    asked_at: datetime
    fills: list[Working]

    @classmethod
    def of(cls, account_id: int, asked_at: datetime) -> "WorkingOrders":
        """All that are open at the broker, or may be, and those that a snapshot may lack; and what
        has filled since. Two queries. The leg of an OCO pair holds the shares of its order."""
        return cls(
            account_id,
            list(_counted(account_id, asked_at).values(*_COLUMNS)),
            asked_at,
            _filled_since(account_id, asked_at),
        )

    @property
    def committed(self) -> Committed:
        return committed((commitment(row) for row in self.rows), self.asked_at, MARGIN)

    @property
    def settled(self) -> "WorkingOrders":
        """Without those of the last moment, which the snapshot may contain as well: with them they
        are counted twice until it is sure. What stays unresolved is unknown for longer."""
        rows = [
            row
            for row in self.rows
            if row["status"] == statuses.UNRESOLVED
            or not counts(commitment(row), self.asked_at, MARGIN)
        ]
        return replace(self, rows=rows, fills=[])

    def working(self, held: Mapping[str, Decimal]) -> list[Working]:
        """What may still come to the positions `held` (signed shares of the snapshot)."""
        return self._fills_lacking(held) + [
            Working(
                symbol=row["symbol"],
                side=row["side"],
                sells_short=row["sells_short"],
                open_qty=open_qty(row["status"], row["qty"], row["filled_qty"]),
                filled_qty=_ZERO,
                price=price_of(row),
            )
            for row in self.rows
        ]

    def _fills_lacking(self, held: Mapping[str, Decimal]) -> list[Working]:
        """The late fills that the snapshot may lack. Where our book, which has them, and the
        broker's position agree, it has them too. One more query where there are any."""
        symbols = {fill.symbol for fill in self.fills}
        if not symbols:
            return []
        ours = Position.objects.filter(account_id=self.account_id, symbol__in=symbols)
        book = dict(ours.values_list("symbol", "qty"))
        return [
            fill
            for fill in self.fills
            if book.get(fill.symbol, _ZERO) != held.get(fill.symbol, _ZERO)
        ]

    @property
    def unresolved(self) -> frozenset[str]:
        return frozenset(row["symbol"] for row in self.rows if row["status"] == statuses.UNRESOLVED)

    def against(self, symbol: str, side: str, held_qty: Decimal) -> tuple[Opposite, ...]:
        """The open orders of the symbol on the other side. One more query where there are any."""
        against = [
            row
            for row in self.rows
            if row["symbol"] == symbol and row["side"] != side and statuses.is_open(row["status"])
        ]
        if not against:
            return ()
        # What replaced one of a pair is one of it, too.
        chains = Order.objects.filter(chain__in=[row["chain"] for row in against])
        pairs = chains.filter(Q(order_class="oco") | Q(leg_of__isnull=False))
        paired = set(pairs.values_list("chain", flat=True))
        return tuple(
            Opposite(
                client_order_id=row["client_order_id"],
                type=row["type"],
                limit_price=row["limit_price"],
                opens=row["sells_short"] or (row["side"] == "buy" and held_qty >= 0),
                is_pair=row["chain"] in paired,
            )
            for row in against
        )


def commits_beyond(account_id: int, asked_at: datetime) -> Committed:
    """What orders commit beyond the figures of a snapshot."""
    return WorkingOrders.of(account_id, asked_at).committed


def commits_beyond_of_all(asked_at: Mapping[int, datetime]) -> dict[int, Committed]:
    """The same for many accounts by their keys, each with its own moment: one query."""
    each = [_counted(key, at).values("account_id", *_COLUMNS) for key, at in asked_at.items()]
    rows = each[0].union(*each[1:], all=True) if each else []
    found: dict[int, list[Commitment]] = {key: [] for key in asked_at}
    for row in rows:
        found[row["account_id"]].append(commitment(row))
    return {key: committed(mine, asked_at[key], MARGIN) for key, mine in found.items()}


def _counted(account_id: int, asked_at: datetime) -> QuerySet[Order]:
    rows = Order.objects.filter(
        Q(acknowledged_at__gt=asked_at - MARGIN) | ~Q(status__in=sorted(statuses.CLOSED)),
        account_id=account_id,
        leg_of=None,
    )
    return rows.exclude(status__in=sorted(statuses.UNSENT)).order_by()


def price_of(row: dict[str, Any]) -> Decimal:
    """Dollars a share that an order may come to at most."""
    price: Decimal = row["worst_price"] or row["limit_price"] or _ZERO
    return price


def open_qty(status: str, qty: Decimal, filled_qty: Decimal) -> Decimal:
    return max(qty - filled_qty, _ZERO) if statuses.is_open(status) else _ZERO


def _filled_since(account_id: int, asked_at: datetime) -> list[Working]:
    fills = Fill.objects.filter(account_id=account_id, recorded_at__gt=asked_at - MARGIN)
    cost = Sum(F("qty") * F("price"), output_field=DecimalField())
    rows = fills.order_by().values("order__symbol", "order__side", "order__sells_short")
    return [
        Working(
            symbol=row["order__symbol"],
            side=row["order__side"],
            sells_short=row["order__sells_short"],
            open_qty=_ZERO,
            filled_qty=row["shares"],
            price=row["cost"] / row["shares"],
        )
        for row in rows.annotate(shares=Sum("qty"), cost=cost)
    ]


def commitment(row: dict[str, Any]) -> Commitment:
    """What one of the rows commits, for the rule to judge."""
    replaced_qty = _ZERO
    if row["replaces__status"] is not None:
        replaced_qty = open_qty(
            row["replaces__status"], row["replaces__qty"], row["replaces__filled_qty"]
        )
    return Commitment(
        symbol=row["symbol"],
        side=row["side"],
        limit_price=price_of(row),
        sells_short=row["sells_short"],
        # What the chain had filled before is its predecessor's.
        filled_qty=max(row["filled_qty"] - (row["replaces__filled_qty"] or 0), _ZERO),
        average_fill_price=row["average_fill_price"],
        open_qty=open_qty(row["status"], row["qty"], row["filled_qty"]),
        acknowledged_at=row["acknowledged_at"],
        replaced_qty=replaced_qty,
        replaced_cost=replaced_qty * (row["replaces__worst_price"] or _ZERO),
    )
