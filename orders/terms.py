"""Whether the broker would take an order with these terms (ALPACA.md section 3). Pure.

Says what is wrong before anything is stored or sent. Knows neither account nor clock: money,
shares, and the hours of auction orders are judged elsewhere. A stop-limit's two prices may lie
either way round; Alpaca has no rule on it.
"""

from dataclasses import dataclass
from decimal import Decimal

from orders import pricing
from orders.errors import OrderSubmissionError
from orders.models import Order
from ordinis.broker.port import AssetReport
from ordinis.numbers import plain

_PRICES = ("limit_price", "stop_price", "trail_price", "trail_percent")
_TRAILS = frozenset({"trail_price", "trail_percent"})
_NEEDS: dict[str, frozenset[str]] = {
    "limit": frozenset({"limit_price"}),
    "market": frozenset(),
    "stop": frozenset({"stop_price"}),
    "stop_limit": frozenset({"limit_price", "stop_price"}),
    "trailing_stop": frozenset(),  # one of _TRAILS
}
_RESTING = ("day", "gtc")
_AT_ONCE_OR_AUCTION = ("ioc", "fok", "opg", "cls")
_AT_ONCE_TYPES = ("limit", "market")
_FRACTION_TYPES = ("limit", "market", "stop", "stop_limit")
_SMALLEST_SHARE = Decimal("0.000000001")
_SMALLEST_COST = Decimal(1)  # dollars
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an order says, in shares and dollars, all of them above zero.

    `order_class` is "" or "oco": then `limit_price` is the take-profit's and `stop_price` the
    stop-loss's. A limit that the stop-loss has of its own is checked as the terms of that leg.
    """

    symbol: str
    side: str
    qty: Decimal
    type: str
    time_in_force: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail_price: Decimal | None
    trail_percent: Decimal | None
    extended_hours: bool
    order_class: str = ""

    @property
    def is_fraction(self) -> bool:
        return self.qty % 1 != 0


def of(order: Order) -> Terms:
    """The terms of an order, stored or about to be."""
    return Terms(
        symbol=order.symbol,
        side=order.side,
        qty=order.qty,
        type=order.type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        trail_price=order.trail_price,
        trail_percent=order.trail_percent,
        extended_hours=order.extended_hours,
        order_class=order.order_class,
    )


def check(terms: Terms, asset: AssetReport | None) -> None:
    """Raises OrderSubmissionError at the first rule that the terms break."""
    if terms.type not in _NEEDS:
        raise OrderSubmissionError(
            "order_type_unknown",
            f"There is no order type {terms.type!r}. Use one of {', '.join(_NEEDS)}.",
        )
    _check_prices(terms)
    _check_times(terms)
    if terms.order_class == "oco":
        _check_pair(terms)
    if terms.is_fraction:
        _check_fraction(terms)
    # No asset: the broker could not be asked, or knows no such symbol. Nothing is concluded from
    # that; the broker refuses a symbol that it does not know, and its refusal is definite.
    if asset is not None:
        _check_asset(terms, asset)


def _check_prices(terms: Terms) -> None:
    """Each type has its prices and only those, on the broker's price steps."""
    is_pair, is_trailing = terms.order_class == "oco", terms.type == "trailing_stop"
    kind = terms.order_class or terms.type
    needs = _NEEDS["stop_limit" if is_pair else terms.type]
    for field in _PRICES:
        price: Decimal | None = getattr(terms, field)
        if price is None:
            if field in needs:
                raise OrderSubmissionError(
                    f"{field}_required", f"{kind} orders need a {field}. Give one."
                )
        elif field not in needs and not (is_trailing and field in _TRAILS):
            raise OrderSubmissionError(
                f"{field}_not_allowed",
                f"{kind} orders have no {field}. Leave it out, or use the type that has one.",
            )
        elif field != "trail_percent" and not pricing.is_on_tick(price):
            raise OrderSubmissionError(
                f"{field}_off_tick",
                f"{field} {plain(price)} is not a multiple of the smallest step, "
                f"{pricing.tick(price)}. Round it to one.",
            )
    if is_trailing and (terms.trail_price is None) == (terms.trail_percent is None):
        raise OrderSubmissionError(
            "trail_required",
            "trailing_stop orders follow the price at one distance. Give either trail_price or "
            "trail_percent.",
        )


def _check_times(terms: Terms) -> None:
    allowed: tuple[str, ...] = _RESTING
    if terms.type in _AT_ONCE_TYPES and not terms.order_class:
        allowed += _AT_ONCE_OR_AUCTION
    if terms.time_in_force not in allowed:
        raise OrderSubmissionError(
            "time_in_force_not_allowed",
            f"{terms.order_class or terms.type} orders can't be {terms.time_in_force}. "
            f"Use one of {', '.join(allowed)}.",
        )
    if terms.extended_hours and (
        terms.type != "limit" or terms.order_class or terms.time_in_force not in _RESTING
    ):
        raise OrderSubmissionError(
            "extended_hours_not_allowed",
            "Outside the regular session only limit orders with time_in_force day or gtc are "
            "taken. Send such a one, or leave extended_hours out.",
        )


def _check_pair(terms: Terms) -> None:
    """Take-profit and stop-loss must not both go off at the same price."""
    if terms.type != "limit":
        raise OrderSubmissionError(
            "oco_not_limit", "An oco pair is sent as a limit order. Use type limit."
        )
    profit, stop = terms.limit_price, terms.stop_price
    assert profit is not None, "_check_prices asks for both"
    assert stop is not None, "_check_prices asks for both"
    gap = profit - stop if terms.side == "sell" else stop - profit
    if gap < _CENT:
        below = "below" if terms.side == "sell" else "above"
        raise OrderSubmissionError(
            "oco_prices_crossed",
            f"The stop-loss at {plain(stop)} must be at least {_CENT} {below} the take-profit at "
            f"{plain(profit)}. Move one of them.",
        )


def _check_fraction(terms: Terms) -> None:
    if terms.qty % _SMALLEST_SHARE:
        raise OrderSubmissionError(
            "fraction_too_fine",
            f"qty {plain(terms.qty)} has more than 9 decimals. Round it to 9.",
        )
    if terms.time_in_force != "day":
        raise OrderSubmissionError(
            "fraction_not_day",
            "Fractions of a share trade for the day only. Use time_in_force day, or whole shares.",
        )
    if terms.type not in _FRACTION_TYPES or terms.order_class:
        raise OrderSubmissionError(
            "fraction_type_not_allowed",
            f"Fractions of a share trade as single {', '.join(_FRACTION_TYPES)} orders only. Use "
            "one of these, or whole shares.",
        )
    # A sell is left to the broker, which lets the crumbs of a position be sold.
    price = terms.limit_price or (pricing.collared(terms.stop_price) if terms.stop_price else None)
    if terms.side == "buy" and price is not None and terms.qty * price < _SMALLEST_COST:
        raise OrderSubmissionError(
            "fraction_too_small",
            f"{plain(terms.qty)} shares at {plain(price)} cost less than ${_SMALLEST_COST}, the "
            "least that the broker takes. Raise the quantity.",
        )


def _check_asset(terms: Terms, asset: AssetReport) -> None:
    if asset.asset_class != "us_equity":
        raise OrderSubmissionError(
            "asset_class_not_supported",
            f"{terms.symbol} is of the class {asset.asset_class or 'unknown'}; only US shares and "
            "funds (us_equity) can be ordered. Choose one.",
        )
    if asset.status != "active" or not asset.tradable:
        raise OrderSubmissionError(
            "asset_not_tradable",
            f"The broker does not trade {terms.symbol} now (status {asset.status}). Choose another "
            "symbol, or ask the broker.",
        )
    if terms.is_fraction and not asset.fractionable:
        raise OrderSubmissionError(
            "asset_not_fractionable",
            f"The broker trades {terms.symbol} in whole shares only. Round qty.",
        )
