"""What a client asks for, read strictly: numbers and strings alike, as decimals.

Everything here can be judged without knowing the account; what needs it is in `checks`. Nothing
that fails here spends a client_order_id.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from ordinis.simulator import refusals
from ordinis.simulator.groups import CLASSES
from ordinis.simulator.order import NANO_SHARE
from ordinis.simulator.symbols import Asset, Listing

_TYPES = {"market", "limit", "stop", "stop_limit", "trailing_stop"}
_TIMES_IN_FORCE = {"day", "gtc", "ioc", "fok", "opg", "cls"}
_AT_ONCE_OR_AUCTION = {"ioc", "fok", "opg", "cls"}
_INTENTS = {"buy_to_open", "buy_to_close", "sell_to_open", "sell_to_close"}
_FRACTIONAL_TYPES = {"market", "limit", "stop", "stop_limit"}
_PRICES = ("limit_price", "stop_price", "trail_price")


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A well-formed order; exactly one of `qty` and `notional` is set.

    An empty `client_order_id` or `position_intent` leaves it to the venue.
    """

    asset: Asset
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail_price: Decimal | None
    trail_percent: Decimal | None
    extended_hours: bool
    client_order_id: str
    order_class: str = ""
    take_profit_price: Decimal | None = None
    stop_loss_stop_price: Decimal | None = None
    stop_loss_limit_price: Decimal | None = None
    position_intent: str = ""

    @property
    def is_fractional(self) -> bool:
        return self.qty is None or self.qty != self.qty.to_integral_value()


@dataclass(frozen=True, slots=True)
class ReplaceRequest:
    """What a PATCH changes; None leaves a value as it is."""

    qty: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail: Decimal | None
    time_in_force: str | None
    client_order_id: str


def json_body(body: bytes) -> dict[str, Any]:
    """A JSON object, its fractions as decimals exactly as written."""
    try:
        value = json.loads(body, parse_float=Decimal, parse_constant=str)
    except ValueError:
        raise refusals.malformed() from None
    if not isinstance(value, dict):
        raise refusals.malformed()
    return value


def decimal(body: Mapping[str, Any], field: str) -> Decimal | None:
    """A finite decimal from a number or a string; None where there is none."""
    value = body.get(field)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise InvalidOperation
        number = Decimal(str(value))
    except InvalidOperation:
        raise refusals.invalid(f"{field} is not a number") from None
    if not number.is_finite():
        raise refusals.invalid(f"{field} is not a number")
    return number


def _positive(body: Mapping[str, Any], field: str) -> Decimal | None:
    value = decimal(body, field)
    if value is not None and value <= 0:
        raise refusals.invalid(f"{field} must be > 0")
    return value


def _prices(
    body: Mapping[str, Any], fields: tuple[str, ...], within: str = ""
) -> dict[str, Decimal | None]:
    prices = {field: _positive(body, field) for field in fields}
    for field, price in prices.items():
        if price is not None and price % Decimal("0.01" if price >= 1 else "0.0001"):
            raise refusals.sub_penny(within + field, price)
    return prices


def _client_order_id(body: Mapping[str, Any]) -> str:
    value = body.get("client_order_id") or ""
    if not isinstance(value, str) or len(value) > 128:
        raise refusals.invalid("client_order_id must be no more than 128 characters")
    return value


def _choice(body: Mapping[str, Any], field: str, choices: set[str]) -> str:
    value = body.get(field)
    if value is None:
        raise refusals.invalid(f"{field} is required")
    if value not in choices:
        raise refusals.invalid(f"invalid {field}: {value}")
    return str(value)


def parse_order(body: Mapping[str, Any], listing: Listing) -> OrderRequest:
    """Raises Refusal."""
    symbol = body.get("symbol")
    if not isinstance(symbol, str) or not symbol:
        raise refusals.invalid("symbol is required")
    asset = listing.get(symbol)
    if asset is None:
        raise refusals.unknown_symbol(symbol)
    qty, notional = _positive(body, "qty"), _positive(body, "notional")
    if qty is None and notional is None:
        raise refusals.missing_qty()
    if qty is not None and notional is not None:
        raise refusals.invalid("only one of qty or notional is accepted")
    prices = _prices(body, _PRICES)
    take_profit, stop_loss = body.get("take_profit") or {}, body.get("stop_loss") or {}
    if not isinstance(take_profit, Mapping) or not isinstance(stop_loss, Mapping):
        raise refusals.malformed()
    request = OrderRequest(
        asset=asset,
        side=_choice(body, "side", {"buy", "sell"}),
        type=_choice(body, "type", _TYPES),
        time_in_force=_choice(body, "time_in_force", _TIMES_IN_FORCE),
        qty=qty,
        notional=notional,
        limit_price=prices["limit_price"],
        stop_price=prices["stop_price"],
        trail_price=prices["trail_price"],
        trail_percent=_positive(body, "trail_percent"),
        extended_hours=body.get("extended_hours") is True,
        client_order_id=_client_order_id(body),
        order_class=_order_class(body),
        take_profit_price=_prices(take_profit, ("limit_price",), "take_profit.")["limit_price"],
        stop_loss_stop_price=_prices(stop_loss, ("stop_price",), "stop_loss.")["stop_price"],
        stop_loss_limit_price=_prices(stop_loss, ("limit_price",), "stop_loss.")["limit_price"],
        position_intent=_choice(body, "position_intent", _INTENTS)
        if body.get("position_intent")
        else "",
    )
    _check_prices(request)
    _check_class(request)
    _check_fraction(request)
    times = {"day", "gtc"}
    if request.extended_hours and (
        request.type != "limit" or request.time_in_force not in times or request.order_class
    ):
        raise refusals.invalid("extended hours order must be DAY limit orders")
    if request.time_in_force in _AT_ONCE_OR_AUCTION and request.type not in {"market", "limit"}:
        raise refusals.invalid(f"{request.time_in_force} orders must be market or limit orders")
    return request


def _order_class(body: Mapping[str, Any]) -> str:
    value = body.get("order_class") or ""
    if value in {"", "simple"}:
        return ""
    if value in CLASSES:
        return str(value)
    raise refusals.invalid(f"order_class {value} is not offered by this simulator")


def _check_prices(request: OrderRequest) -> None:
    """Each type has its prices, and only those."""
    needs = {
        "limit": {"limit_price"},
        "stop": {"stop_price"},
        "stop_limit": {"limit_price", "stop_price"},
    }.get(request.type, set())
    if request.order_class == "oco":
        needs = set()
    for field in ("limit_price", "stop_price"):
        given = getattr(request, field) is not None
        if field in needs and not given:
            raise refusals.invalid(f"{request.type} orders require {field.replace('_', ' ')}")
        if given and field not in needs:
            raise refusals.invalid(f"{request.type} orders must not have {field}")
    trails = (request.trail_price is not None) + (request.trail_percent is not None)
    if trails != (request.type == "trailing_stop"):
        raise refusals.invalid("trailing stop orders require one of trail_price and trail_percent")
    if request.type == "trailing_stop" and request.time_in_force not in {"day", "gtc"}:
        raise refusals.invalid("trailing stop orders must be DAY or GTC orders")


def _check_class(request: OrderRequest) -> None:
    """Which exits a group needs, and when it may be sent."""
    kind, profit = request.order_class, request.take_profit_price
    stop = request.stop_loss_stop_price
    if not kind:
        return
    if request.time_in_force not in {"day", "gtc"}:
        raise refusals.invalid(f"{kind} orders must be DAY or GTC orders")
    if request.type == "trailing_stop":
        raise refusals.invalid("trailing stop orders must be simple orders")
    if kind == "oco" and request.type != "limit":
        raise refusals.invalid("oco orders must be limit orders")
    if request.stop_loss_limit_price is not None and stop is None:
        raise refusals.invalid("stop_loss.limit_price requires stop_loss.stop_price")
    if kind == "oto":
        if (profit is None) == (stop is None):
            raise refusals.invalid("oto orders require either take_profit or stop_loss")
    elif profit is None or stop is None:
        raise refusals.invalid(
            f"{kind} orders require take_profit.limit_price and stop_loss.stop_price"
        )


def _check_fraction(request: OrderRequest) -> None:
    if not request.is_fractional:
        return
    if request.qty is not None and request.qty % NANO_SHARE:
        raise refusals.invalid("qty must have no more than 9 decimal places")
    if request.time_in_force != "day":
        raise refusals.invalid("fractional orders must be DAY orders")
    if request.type not in _FRACTIONAL_TYPES:
        raise refusals.invalid(
            "fractional orders must be market, limit, stop, or stop_limit orders"
        )
    if request.order_class:
        raise refusals.invalid("fractional orders must be simple orders")
    if request.notional is not None and request.type != "market":
        raise refusals.invalid("notional orders must be DAY market orders")
    if not request.asset.fractionable:
        raise refusals.forbidden(f'asset "{request.asset.symbol}" is not fractionable')


def parse_replace(body: Mapping[str, Any]) -> ReplaceRequest:
    """Raises Refusal."""
    qty = _positive(body, "qty")
    if qty is not None and qty != qty.to_integral_value():
        raise refusals.invalid("qty must be a whole number of shares")
    prices = _prices(body, ("limit_price", "stop_price", "trail"))
    time_in_force = body.get("time_in_force")
    if time_in_force is not None:
        time_in_force = _choice(body, "time_in_force", _TIMES_IN_FORCE)
    return ReplaceRequest(
        qty=qty,
        limit_price=prices["limit_price"],
        stop_price=prices["stop_price"],
        trail=prices["trail"],
        time_in_force=time_in_force,
        client_order_id=_client_order_id(body),
    )
