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
    # Of a replacement: what is still open of the order that it replaces, which counts, too. The
    # broker holds the larger of the two.
    replaced_qty: Decimal = Decimal(0)
    replaced_cost: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Committed:
    """Dollars of buying power, and shares of each symbol that are being sold."""

    money: Decimal = Decimal(0)
    shares: dict[str, Decimal] = field(default_factory=dict)


def counts(order: Commitment, asked_at: datetime, margin: timedelta) -> bool:
    """Whether a snapshot asked for at `asked_at` may lack the order: it may unless the broker
    had acknowledged the order at least `margin` before."""
    return order.acknowledged_at is None or order.acknowledged_at > asked_at - margin


def committed(orders: Iterable[Commitment], asked_at: datetime, margin: timedelta) -> Committed:
    """The sum over the orders that count: fills free nothing, only a dead remainder does."""
    money = Decimal(0)
    shares: dict[str, Decimal] = {}
    for order in orders:
        if not counts(order, asked_at, margin):
            continue
        if order.side == "buy":
            price = order.average_fill_price or order.limit_price
            open_cost = order.open_qty * order.limit_price
            money += order.filled_qty * price + max(open_cost - order.replaced_cost, Decimal(0))
        else:
            open_qty = max(order.open_qty - order.replaced_qty, Decimal(0))
            held = shares.get(order.symbol, Decimal(0))
            shares[order.symbol] = held + order.filled_qty + open_qty
    return Committed(money, shares)
