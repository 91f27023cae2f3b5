"""Whether the account may place an order: the venue's own refusals, in Alpaca's order.

Reads the venue, changes nothing. What can be told without the account is in `request`.
"""

from decimal import Decimal

from ordinis.simulator import refusals
from ordinis.simulator.order import NONE, Order
from ordinis.simulator.request import OrderRequest
from ordinis.simulator.venue import Venue

_SHORT_COLLAR = Decimal("1.03")
_LIMITED = {"limit", "stop_limit"}


def intent(venue: Venue, symbol: str, side: str) -> str:
    """What the order would do to the position as it stands."""
    qty = venue.portfolio.qty(symbol)
    if side == "buy":
        return "buy_to_close" if qty < 0 else "buy_to_open"
    return "sell_to_close" if qty > 0 else "sell_to_open"


def reserve_price(venue: Venue, request: OrderRequest, position_intent: str) -> Decimal:
    """Buying power that one share ties up; nothing for what takes off a position."""
    ask = venue.prices[request.asset.symbol].ask
    if position_intent == "buy_to_open":
        return request.limit_price or request.stop_price or ask
    if position_intent == "sell_to_open":
        return max(request.limit_price or NONE, _SHORT_COLLAR * ask)
    return NONE


def check(venue: Venue, request: OrderRequest, *, shares: Decimal, position_intent: str) -> None:
    """Raises Refusal."""
    if venue.configuration["suspend_trade"]:
        raise refusals.forbidden("new orders are rejected by user request")
    if not request.asset.tradable:
        raise refusals.invalid(f"asset {request.asset.symbol} is not tradable")
    if request.is_fractional and not venue.configuration["fractional_trading"]:
        raise refusals.forbidden("account is not allowed to trade fractional shares")
    if request.order_class == "oco":
        _check_pair(request, position_intent)
    else:
        # Alpaca exempts pairs from the wash-trade table.
        _check_wash_trade(venue, request)
    if position_intent.endswith("_close"):
        _check_free_shares(venue, request, shares)
        return
    if position_intent == "sell_to_open":
        _check_short_sale(venue, request)
    else:
        for order in venue.book.open(request.asset.symbol):
            if order.position_intent == "sell_to_open":
                raise refusals.forbidden("cannot open a long buy while a short sell order is open")
    price = reserve_price(venue, request, position_intent)
    cost = shares * price if request.notional is None else request.notional
    if cost < 1:
        raise refusals.forbidden("cost basis must be >= minimal amount of order 1")
    check_cost(venue, cost)


def check_cost(venue: Venue, cost: Decimal) -> None:
    """Raises Refusal when there is not enough buying power."""
    buying_power = venue.buying_power()
    if cost > buying_power:
        raise refusals.insufficient_buying_power(buying_power, cost)


def _check_wash_trade(venue: Venue, request: OrderRequest) -> None:
    for order in venue.book.open(request.asset.symbol):
        if order.side == request.side or order.parent or order.order_class:
            continue
        if "trailing_stop" in (order.type, request.type):
            continue
        if order.type not in _LIMITED or request.type not in _LIMITED:
            raise refusals.wash_trade(order)
        theirs, ours = order.limit_price or NONE, request.limit_price or NONE
        buy, sell = (theirs, ours) if order.side == "buy" else (ours, theirs)
        if buy >= sell:
            raise refusals.wash_trade(order)


def _check_free_shares(venue: Venue, request: OrderRequest, shares: Decimal) -> None:
    symbol = request.asset.symbol
    existing = abs(venue.portfolio.qty(symbol))
    related = venue.reducing(symbol, request.side)
    held = sum((venue.committed(order) for order in related), NONE)
    if shares > existing - held:
        raise refusals.insufficient_qty(
            symbol=symbol,
            requested=shares,
            existing=existing,
            held=held,
            related=[order.id for order in related],
        )


def _check_short_sale(venue: Venue, request: OrderRequest) -> None:
    if request.is_fractional:
        raise refusals.invalid("fractional orders cannot be sold short")
    if venue.configuration["no_shorting"] or venue.portfolio.equity < 2_000:
        raise refusals.forbidden("account is not allowed to short")
    if not request.asset.shortable:
        raise refusals.invalid(f'asset "{request.asset.symbol}" cannot be sold short')
    for order in venue.book.open(request.asset.symbol):
        if order.position_intent == "buy_to_open":
            raise refusals.forbidden("cannot open a short sell while a long buy order is open")


def _check_pair(request: OrderRequest, position_intent: str) -> None:
    if not position_intent.endswith("_close"):
        raise refusals.invalid("oco orders must be exit orders")
    profit, stop = request.take_profit_price or NONE, request.stop_loss_stop_price or NONE
    if request.side == "sell" and profit <= stop:
        raise refusals.invalid("take_profit.limit_price must be > stop_loss.stop_price")
    if request.side == "buy" and profit >= stop:
        raise refusals.invalid("take_profit.limit_price must be < stop_loss.stop_price")


def check_replacement(venue: Venue, old: Order, *, shares: Decimal, price: Decimal) -> None:
    """Raises Refusal when the new quantity or price needs more than is free."""
    if old.opens:
        more = (shares - old.filled_qty) * price - old.reserved
        if more > 0:
            check_cost(venue, more)
        return
    related = venue.reducing(old.symbol, old.side)
    held = sum((venue.committed(order) for order in related if order is not old), NONE)
    existing = abs(venue.portfolio.qty(old.symbol))
    if shares - old.filled_qty > existing - held:
        raise refusals.insufficient_qty(
            symbol=old.symbol,
            requested=shares - old.filled_qty,
            existing=existing,
            held=held,
            related=[order.id for order in related if order is not old],
        )
