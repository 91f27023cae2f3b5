"""What is in each symbol, in dollars, with working orders at the price that they may come to.
Pure (SPEC K4).

An order counts with what is open of it, and with what has filled of it since a snapshot may have
been taken: a fill is then counted twice for a moment rather than not at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from ordinis.broker.port import PositionReport

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Worth:
    """Dollars in one symbol, neither negative: the most that it may come to, long and short; and
    what is held now."""

    long: Decimal = _ZERO
    short: Decimal = _ZERO
    held: Decimal = _ZERO  # signed

    @property
    def gross(self) -> Decimal:
        return max(self.long, self.short)

    def with_order(self, side: str, cost: Decimal) -> "Worth":
        """With one more order that opens or adds, of so many dollars."""
        if side == "buy":
            return Worth(self.long + cost, self.short, self.held)
        return Worth(self.long, self.short + cost, self.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """An order that may still change what is held: shares, at dollars a share."""

    symbol: str
    side: str
    sells_short: bool
    open_qty: Decimal
    # Filled since the snapshot of the positions may have been taken.
    filled_qty: Decimal
    price: Decimal


def worth(position: PositionReport) -> Decimal | None:
    """The signed dollars of a position; None where the broker gives no usable price."""
    if position.market_value:
        return abs(position.market_value).copy_sign(position.qty)
    price = position.current_price or position.average_price
    return position.qty * price if price and price > 0 else None


def held(value: Decimal) -> Worth:
    """Of a position, in signed dollars."""
    return Worth(max(value, _ZERO), max(-value, _ZERO), value)


def exposures(positions: Mapping[str, Worth], orders: Iterable[Working]) -> dict[str, Worth]:
    """By symbol. A sell takes nothing off before it has filled, and a buy that covers adds
    nothing."""
    found = dict(positions)
    for order in orders:
        before = found.get(order.symbol, Worth())
        adds = before.held >= 0 if order.side == "buy" else order.sells_short
        if adds:
            cost = (order.open_qty + order.filled_qty) * order.price
            found[order.symbol] = before.with_order(order.side, cost)
    return found
