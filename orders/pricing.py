"""Limit prices from a reference price and an offset (SPEC O5), and what an order may cost at most.
Pure: values in, a value out.

A buy is priced below the reference, a sell above it, rounded to the broker's tick toward the
reference, so that the configured offset is never exceeded.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal

from orders.errors import OrderSubmissionError
from ordinis.numbers import plain

_BPS = Decimal(10_000)
_CENT = Decimal("0.01")
_DEARER_COLLAR_BELOW = Decimal(50)  # dollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """`bps` or `absolute` (dollars) offsets, and the slippage guard in per cent."""

    mode: Literal["bps", "absolute"]
    buy: Decimal
    sell: Decimal
    max_slippage_pct: Decimal


class Unpriceable(OrderSubmissionError):
    """No valid price follows from what was given."""


def tick(price: Decimal) -> Decimal:
    """The broker's smallest price step: a cent from $1 up, a hundredth of a cent below it."""
    return Decimal("0.01") if price >= 1 else Decimal("0.0001")


def is_on_tick(price: Decimal) -> bool:
    return price % tick(price) == 0


def limit_price(side: str, reference: Decimal, offsets: Offsets) -> Decimal:
    """The limit price for a reference price in dollars. Raises Unpriceable."""
    offset = offsets.buy if side == "buy" else offsets.sell
    distance = offset if offsets.mode == "absolute" else reference * offset / _BPS
    raw = reference - distance if side == "buy" else reference + distance
    if raw <= 0:
        raise Unpriceable(
            "limit_price_not_positive",
            f"The offset of {plain(offset)} leaves no price above zero for a reference of "
            f"{plain(reference)}. Lower the {side} offset, or give limit_price.",
        )
    # Toward the reference: up for a buy (priced below it), down for a sell.
    rounding = ROUND_CEILING if side == "buy" else ROUND_FLOOR
    step = tick(raw)
    price = (raw / step).to_integral_value(rounding=rounding) * step
    if price < step:
        raise Unpriceable(
            "limit_price_below_tick",
            f"The limit price would be less than the smallest step of {step}. "
            "Give a limit_price of at least that.",
        )
    if price > reference if side == "buy" else price < reference:
        raise Unpriceable(
            "no_price_within_offset",
            f"No step of {step} lies within the {side} offset of the reference "
            f"{plain(reference)}. Give a reference on a step, a larger offset, or limit_price.",
        )
    check_slippage(price, reference, offsets)
    return price


def check_slippage(price: Decimal, reference: Decimal, offsets: Offsets) -> None:
    """Raises Unpriceable when a price is further from its reference than the guard allows."""
    slippage = abs(price - reference) / reference * 100
    if slippage > offsets.max_slippage_pct:
        raise Unpriceable(
            "max_slippage_exceeded",
            f"The limit price {plain(price)} is {slippage:.2f} % from the reference "
            f"{plain(reference)}; max_slippage_pct allows "
            f"{plain(offsets.max_slippage_pct)} %.",
        )


def worst_price(
    *,
    side: str,
    type: str,
    limit_price: Decimal | None,
    stop_price: Decimal | None,
    trail_price: Decimal | None,
    trail_percent: Decimal | None,
    reference_price: Decimal | None,
    max_slippage_pct: Decimal,
) -> Decimal | None:
    """Dollars a share that an order may cost at most: what a buy commits. For a sell a price to
    value it by, None where none was given. The terms hold (`orders.terms`).

    Raises Unpriceable for a buy that only a reference price can bound, when there is none.
    """
    if side == "sell":
        return limit_price or stop_price or reference_price
    if limit_price is not None:
        return limit_price
    if stop_price is not None:
        return collared(stop_price)
    if reference_price is None:
        raise Unpriceable(
            "reference_price_required",
            f"Nothing bounds what a {type} buy may cost. Give reference_price, the price that you "
            "expect, or send a limit order.",
        )
    if type == "market":
        return _up(reference_price * (1 + max_slippage_pct / 100))
    if trail_price is None:
        assert trail_percent is not None, "a trailing stop has one of the two"
        trail_price = reference_price * trail_percent / 100
    # The broker keeps a trailing stop in cents.
    stop = (reference_price + trail_price).quantize(_CENT, ROUND_CEILING)
    # It follows the price down, and may come to where the broker's collar is the wider one.
    return max(collared(stop), collared(min(stop, _DEARER_COLLAR_BELOW - _CENT)))


def collared(stop_price: Decimal) -> Decimal:
    """The most that a buy stop may cost: Alpaca limits it, once it goes off, to 4 % above its stop
    price, 2.5 % from $50 on (ALPACA.md section 3)."""
    collar = Decimal("1.04") if stop_price < _DEARER_COLLAR_BELOW else Decimal("1.025")
    return _up(stop_price * collar)


def _up(price: Decimal) -> Decimal:
    step = tick(price)
    return (price / step).to_integral_value(rounding=ROUND_CEILING) * step
