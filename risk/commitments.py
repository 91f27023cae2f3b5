"""What orders commit that the broker's figures may not contain yet (DESIGN, "What an order
commits"). Pure: the one rule, over order values and the moment a snapshot was asked for.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The part of an order that counts: quantities in shares, prices in dollars."""

    symbol: str
    side: str
    limit_price: Decimal
    filled_qty: Decimal
    average_fill_price: Decimal | None
    # Shares that may still fill, whatever the order's state; 0 only when that is proved.
    open_qty: Decimal
    acknowledged_at: datetime | None
    # It adds to a short position: it ties up money, not shares.
    sells_short: bool = False
    # Of a replacement: what is still open of the order that it replaces, which counts, too. The
    # broker holds the larger of the two.
    replaced_qty: Decimal = Decimal(0)
    replaced_cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Committed:
    """Dollars of buying power, and shares of each symbol that are being sold from a long position,
    and that are being bought (which may cover a short one)."""

    money: Decimal = Decimal(0)
    shares: dict[str, Decimal] = field(default_factory=dict)
    buys: dict[str, Decimal] = field(default_factory=dict)

    def sold(self, symbol: str) -> Decimal:
        return self.shares.get(symbol, Decimal(0))

    def bought(self, symbol: str) -> Decimal:
        return self.buys.get(symbol, Decimal(0))


def counts(order: Commitment, asked_at: datetime, margin: timedelta) -> bool:
    """Whether a snapshot asked for at `asked_at` may lack the order: it may unless the broker
    had acknowledged the order at least `margin` before."""
    return order.acknowledged_at is None or order.acknowledged_at > asked_at - margin


def committed(orders: Iterable[Commitment], asked_at: datetime, margin: timedelta) -> Committed:
    """The sum over the orders that count: fills free nothing, only a dead remainder does."""
    money = Decimal(0)
    shares: dict[str, Decimal] = {}
    buys: dict[str, Decimal] = {}
    for order in orders:
        if not counts(order, asked_at, margin):
            continue
        if order.side == "buy" or order.sells_short:
            money += _cost(order)
        if order.sells_short:
            continue
        held = buys if order.side == "buy" else shares
        open_qty = max(order.open_qty - order.replaced_qty, Decimal(0))
        held[order.symbol] = held.get(order.symbol, Decimal(0)) + order.filled_qty + open_qty
    return Committed(money, shares, buys)


def _cost(order: Commitment) -> Decimal:
    price = order.average_fill_price or order.limit_price
    open_cost = order.open_qty * order.limit_price
    return order.filled_qty * price + max(open_cost - order.replaced_cost, Decimal(0))
