"""Limit prices from a reference price and an offset (SPEC O5). Pure: values in, a value out.

A buy is priced below the reference, a sell above it, rounded to the broker's tick toward the
reference, so that the configured offset is never exceeded.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal

from ordinis.numbers import plain

_BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offsets:
    """`bps` or `absolute` (dollars) offsets, and the slippage guard in per cent."""

    mode: Literal["bps", "absolute"]
    buy: Decimal
    sell: Decimal
    max_slippage_pct: Decimal


class Unpriceable(Exception):
    """No valid limit price follows from the reference and the offset. `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


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
