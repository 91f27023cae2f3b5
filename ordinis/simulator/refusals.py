"""The venue's refusals, with the status and body that Alpaca sends.

The texts are what programs match on: they must stay exactly as observed (see the tests).
"""

from collections.abc import Sequence
from decimal import Decimal

from ordinis.simulator.order import Order


def plain(value: Decimal) -> str:
    """A decimal as Alpaca writes it: no exponent, no needless zeros."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


class Refusal(Exception):
    """An answer other than success; nothing was changed."""

    def __init__(self, status: int, code: int | None, message: str, **extras: object) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {**extras, "message": message}
        if code is not None:
            self.body["code"] = code


def unauthorized() -> Refusal:
    return Refusal(401, None, "unauthorized.")


def rate_limited() -> Refusal:
    return Refusal(429, 42910000, "rate limit exceeded")


def malformed(message: str = "request body format is invalid") -> Refusal:
    return Refusal(400, 40010000, message)


def invalid(message: str) -> Refusal:
    return Refusal(422, 42210000, message)


def missing_qty() -> Refusal:
    return Refusal(422, 40010001, "qty or notional is required")


def duplicate_client_order_id(earlier: Order) -> Refusal:
    """The number differs with the earlier order's state, as observed; the message does not."""
    code = 42210000 if earlier.is_open else 40010001
    return Refusal(422, code, "client_order_id must be unique")


def sub_penny(field: str, price: Decimal) -> Refusal:
    return invalid(
        f"invalid {field} {plain(price)}. "
        "sub-penny increment does not fulfill minimum pricing criteria"
    )


def unknown_symbol(symbol: str) -> Refusal:
    return invalid(f'asset "{symbol}" not found')


def forbidden(message: str, **extras: object) -> Refusal:
    return Refusal(403, 40310000, message, **extras)


def insufficient_buying_power(buying_power: Decimal, cost_basis: Decimal) -> Refusal:
    return forbidden(
        "insufficient buying power",
        buying_power=plain(buying_power),
        cost_basis=plain(cost_basis),
    )


def insufficient_qty(
    *, symbol: str, requested: Decimal, existing: Decimal, held: Decimal, related: Sequence[str]
) -> Refusal:
    available = plain(max(existing - held, Decimal(0)))
    return forbidden(
        "insufficient qty available for order "
        f"(requested: {plain(requested)}, available: {available})",
        available=available,
        existing_qty=plain(existing),
        held_for_orders=plain(held),
        related_orders=list(related),
        symbol=symbol,
    )


def wash_trade(existing: Order) -> Refusal:
    kind = "limit" if existing.type in {"limit", "stop_limit"} else "market/stop"
    return forbidden(
        "potential wash trade detected. use complex orders",
        existing_order_id=existing.id,
        reject_reason=f"opposite side {kind} order exists",
    )


def order_not_found(reference: str) -> Refusal:
    return Refusal(404, 40410000, f"order not found for {reference}")


def position_not_found() -> Refusal:
    return Refusal(404, 40410000, "position does not exist")


def asset_not_found(reference: str) -> Refusal:
    return Refusal(404, 40410000, f"asset not found for {reference}")


def already(status: str) -> Refusal:
    return invalid(f'order is already in "{status}" state')


def not_replaceable(status: str) -> Refusal:
    if status in {"pending_new", "held"}:
        return Refusal(422, 40010001, "unable to replace order, order isn't sent to exchange yet")
    if status == "accepted":
        return invalid("cannot replace order in accepted status")
    return invalid("order is not open")


def beyond_base(field: str, base: Decimal, *, above: bool) -> Refusal:
    """An exit on the wrong side of the price that its group starts from."""
    bound = ">= base_price + 0.01" if above else "<= base_price - 0.01"
    return Refusal(422, 42210000, f"{field} must be {bound}", base_price=plain(base))
