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
            money += order.filled_qty * price + order.open_qty * order.limit_price
        else:
            shares[order.symbol] = (
                shares.get(order.symbol, Decimal(0)) + order.filled_qty + order.open_qty
            )
    return Committed(money, shares)
