"""Whether the account may place an order: the venue's own refusals, in Alpaca's order.

Reads the venue, changes nothing. What can be told without the account is in `request`.
"""

from decimal import Decimal

from ordinis.simulator import holding, matching, refusals
from ordinis.simulator.order import NONE, Order
from ordinis.simulator.request import OrderRequest
from ordinis.simulator.venue import Venue

_SHORT_COLLAR = Decimal("1.03")
_LIMITED = {"limit", "stop_limit"}
_CAT_FEE = Decimal("0.000003")  # dollars a share
_CENT = Decimal("0.01")


def intent(venue: Venue, symbol: str, side: str) -> str:
    """What the order would do to the position as it stands."""
    qty = venue.portfolio.qty(symbol)
    if side == "buy":
        return "buy_to_close" if qty < 0 else "buy_to_open"
    return "sell_to_close" if qty > 0 else "sell_to_open"


def reserve_price(venue: Venue, request: OrderRequest, position_intent: str) -> Decimal:
    """Buying power that one share ties up; nothing for what takes off a position."""
    if position_intent == "buy_to_open":
        stop = request.stop_price if request.type == "stop" else None
        if stop is not None:
            return matching.collar(stop)
        return request.limit_price or market_price(venue, request.asset.symbol)
    if position_intent == "sell_to_open":
        ask = venue.prices[request.asset.symbol].ask
        return max(request.limit_price or NONE, _SHORT_COLLAR * ask)
    return NONE


def market_price(venue: Venue, symbol: str) -> Decimal:
    """What a market buy is taken to cost: the ask, the middle outside hours, at rest the last."""
    quote, session = venue.prices[symbol], venue.market.session(venue.clock())
    if session == "open":
        return quote.ask
    return (quote.bid + quote.ask) / 2 if session in {"extended", "overnight"} else quote.last


def check(venue: Venue, request: OrderRequest, *, shares: Decimal, position_intent: str) -> None:
    """Raises Refusal."""
    _check_account(venue, request)
    if request.position_intent and request.position_intent != position_intent:
        raise refusals.invalid(
            f"position intent mismatch, inferred: {position_intent}, "
            f"specified: {request.position_intent}"
        )
    if request.order_class:
        # Alpaca exempts groups from the wash-trade table.
        _check_group(venue, request, position_intent)
    else:
        check_wash_trade(
            venue, request.asset.symbol, request.side, request.type, request.limit_price
        )
    if position_intent.endswith("_close"):
        _check_free_shares(venue, request, shares)
        return
    if venue.portfolio.is_restricted:
        raise refusals.forbidden("account is restricted to closing positions")
    if position_intent == "sell_to_open":
        _check_short_sale(venue, request)
    else:
        for order in venue.book.open(request.asset.symbol, "sell"):
            if order.position_intent == "sell_to_open":
                raise refusals.forbidden("cannot open a long buy while a short sell order is open")
    _check_notional(venue, request)
    price = reserve_price(venue, request, position_intent)
    cost = shares * price if request.notional is None else request.notional
    if cost < 1:
        raise refusals.forbidden("cost basis must be >= minimal amount of order 1")
    if venue.options.cat_fee:
        cost += shares * _CAT_FEE
    check_cost(venue, cost, marginable=request.asset.marginable)


def check_cost(venue: Venue, cost: Decimal, *, marginable: bool) -> None:
    """Raises Refusal when there is not enough buying power."""
    buying_power = venue.buying_power()
    if not marginable:
        buying_power = min(buying_power, venue.portfolio.cash_buying_power())
    if cost > buying_power:
        raise refusals.insufficient_buying_power(buying_power, cost)


def _check_account(venue: Venue, request: OrderRequest) -> None:
    """What the account, the instrument and the hour allow at all."""
    if venue.configuration["suspend_trade"]:
        raise refusals.forbidden("new orders are rejected by user request")
    if not request.asset.tradable:
        raise refusals.invalid(f"asset {request.asset.symbol} is not tradable")
    if request.is_fractional and not venue.configuration["fractional_trading"]:
        raise refusals.forbidden("account is not allowed to trade fractional shares")
    is_late_gtc = request.extended_hours and request.time_in_force == "gtc"
    if is_late_gtc and not venue.options.extended_hours_gtc:
        raise refusals.invalid("extended hours order must be DAY limit orders")
    kind = request.time_in_force
    if kind in {"opg", "cls"} and not venue.market.takes_auction_order(venue.clock(), kind):
        raise refusals.invalid(f"{kind} orders are not accepted at this time of day")


def check_wash_trade(
    venue: Venue, symbol: str, side: str, kind: str, limit_price: Decimal | None
) -> None:
    """Raises Refusal when an order could trade against another one of the same account."""
    for order in venue.book.open(symbol, "sell" if side == "buy" else "buy"):
        if order.order_class or "trailing_stop" in (order.type, kind):
            continue
        if order.type not in _LIMITED or kind not in _LIMITED:
            raise refusals.wash_trade(order)
        theirs, ours = order.limit_price or NONE, limit_price or NONE
        buy, sell = (theirs, ours) if order.side == "buy" else (ours, theirs)
        if buy >= sell:
            raise refusals.wash_trade(order)


def _check_free_shares(venue: Venue, request: OrderRequest, shares: Decimal) -> None:
    check_shares(venue, request.asset.symbol, request.side, shares, without=None)


def check_shares(
    venue: Venue, symbol: str, side: str, shares: Decimal, *, without: Order | None
) -> None:
    """Raises Refusal when other open orders hold too much of the position."""
    existing = abs(venue.portfolio.qty(symbol))
    held = holding.held(venue, symbol, side, without=without)
    if shares > existing - held:
        related = holding.reducing(venue, symbol, side)
        raise refusals.insufficient_qty(
            symbol=symbol,
            requested=shares,
            existing=existing,
            held=held,
            related=[order.id for order in related if order is not without],
        )


def _check_notional(venue: Venue, request: OrderRequest) -> None:
    if request.notional is None:
        return
    closing = any(not order.opens for order in venue.book.open(request.asset.symbol))
    if closing:
        raise refusals.forbidden(
            "unable to open new notional orders while having open closing position orders"
        )


def _check_short_sale(venue: Venue, request: OrderRequest) -> None:
    if request.is_fractional:
        raise refusals.invalid("fractional orders cannot be sold short")
    if venue.configuration["no_shorting"] or not venue.portfolio.may_short:
        raise refusals.forbidden("account is not allowed to short")
    if not request.asset.shortable:
        raise refusals.invalid(f'asset "{request.asset.symbol}" cannot be sold short')
    for order in venue.book.open(request.asset.symbol, "buy"):
        if order.position_intent == "buy_to_open":
            raise refusals.forbidden("cannot open a short sell while a long buy order is open")


def _check_group(venue: Venue, request: OrderRequest, position_intent: str) -> None:
    """Entries open and exits close; profit and loss lie on their own sides of the price."""
    if request.order_class == "oco":
        if not position_intent.endswith("_close"):
            raise refusals.invalid("oco orders must be exit orders")
        exit_side, base = request.side, request.take_profit_price or NONE
    else:
        if not position_intent.endswith("_open"):
            raise refusals.invalid(f"{request.order_class} orders must be entry orders")
        exit_side = "sell" if request.side == "buy" else "buy"
        base = request.limit_price or venue.prices[request.asset.symbol].last
    profit, stop = request.take_profit_price, request.stop_loss_stop_price
    check_exits(exit_side, profit, stop)
    sells = exit_side == "sell"
    if request.order_class != "oco" and not _lies_beyond(profit, base, above=sells):
        raise refusals.beyond_base("take_profit.limit_price", base, above=sells)
    if not _lies_beyond(stop, base, above=not sells):
        raise refusals.beyond_base("stop_loss.stop_price", base, above=not sells)


def _lies_beyond(price: Decimal | None, base: Decimal, *, above: bool) -> bool:
    """Whether an exit, if there is one, is a cent or more on its own side of the base."""
    if price is None:
        return True
    return price >= base + _CENT if above else price <= base - _CENT


def check_exits(exit_side: str, profit: Decimal | None, stop: Decimal | None) -> None:
    """Raises Refusal when a pair of exits would both go off at once."""
    if profit is None or stop is None:
        return
    if exit_side == "sell" and profit <= stop:
        raise refusals.invalid("take_profit.limit_price must be > stop_loss.stop_price")
    if exit_side == "buy" and profit >= stop:
        raise refusals.invalid("take_profit.limit_price must be < stop_loss.stop_price")
