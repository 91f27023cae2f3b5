"""Which shares open orders hold, so that none is sold twice.

Reads the venue, changes nothing. A group of orders holds its shares once.
"""

from decimal import Decimal

from ordinis.simulator import groups
from ordinis.simulator.order import NONE, Order
from ordinis.simulator.venue import Venue


def committed(venue: Venue, order: Order) -> Decimal:
    """Shares that an open order holds, beyond what the order that it replaces holds."""
    if order.replaces and order.status == "pending_new":
        old = venue.book[order.replaces]
        return max(order.shares - old.shares, NONE) if old.is_open else NONE
    return order.remaining


def reducing(venue: Venue, symbol: str, side: str) -> list[Order]:
    """Open orders that take off the position."""
    return [
        order
        for order in venue.book.open(symbol, side)
        if not order.opens and groups.holds_shares(venue, order)
    ]


def held(venue: Venue, symbol: str, side: str, *, without: Order | None = None) -> Decimal:
    """Shares held by the open orders of that side."""
    orders = reducing(venue, symbol, side)
    return sum((committed(venue, order) for order in orders if order is not without), NONE)


def available(venue: Venue, symbol: str) -> Decimal:
    """The signed quantity that no open order holds."""
    qty = venue.portfolio.qty(symbol)
    if qty > 0:
        return max(qty - held(venue, symbol, "sell"), NONE)
    return min(qty + held(venue, symbol, "buy"), NONE)
