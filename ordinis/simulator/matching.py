"""When a quote fills an order, and at what price. Pure: an order, a quote, an answer.

Alpaca's paper rule: a limit buy fills when its limit is at or above the ask, a sell when at or
below the bid, at the quote's price, whatever the size.
"""

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from ordinis.simulator.order import Order
from ordinis.simulator.prices import Quote

_CENT = Decimal("0.01")
_STOPS = frozenset({"stop", "stop_limit", "trailing_stop"})


def fill_price(order: Order, quote: Quote) -> Decimal | None:
    """The price at which the order fills against this quote, or None."""
    if order.type in _STOPS and not order.triggered:
        return None
    price = quote.ask if order.side == "buy" else quote.bid
    limit = order.limit_price or order.collar_price
    if limit is None or (limit >= price if order.side == "buy" else limit <= price):
        return price
    return None


def collar(stop_price: Decimal) -> Decimal:
    """The limit that Alpaca gives a buy stop that goes off: 4 % above it, 2.5 % from $50."""
    part = Decimal("1.04") if stop_price < 50 else Decimal("1.025")
    return (stop_price * part).quantize(_CENT, ROUND_DOWN)


def sets_off(order: Order, quote: Quote) -> bool:
    """Whether the quote reaches the stop price."""
    if order.stop_price is None or order.triggered:
        return False
    if order.side == "buy":
        return quote.ask >= order.stop_price
    return quote.bid <= order.stop_price


def trail(order: Order, quote: Quote) -> bool:
    """Let a trailing stop follow its best price; whether it moved."""
    if order.type != "trailing_stop" or order.triggered:
        return False
    best = max if order.side == "sell" else min
    high_water_mark = quote.last if order.hwm is None else best(order.hwm, quote.last)
    distance = order.trail_price or high_water_mark * (order.trail_percent or 0) / 100
    stop = high_water_mark - distance if order.side == "sell" else high_water_mark + distance
    stop = stop.quantize(_CENT, ROUND_HALF_UP)
    if (high_water_mark, stop) == (order.hwm, order.stop_price):
        return False
    order.hwm, order.stop_price = high_water_mark, stop
    return True
