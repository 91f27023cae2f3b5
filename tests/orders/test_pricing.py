"""Limit prices from offsets: the worked examples, and what must hold for every price."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.pricing import Offsets, Unpriceable, is_on_tick, limit_price, tick

DEFAULTS = Offsets(mode="bps", buy=Decimal(15), sell=Decimal(10), max_slippage_pct=Decimal("0.5"))


def _absolute(buy: str, sell: str, guard: str = "100") -> Offsets:
    return Offsets(
        mode="absolute", buy=Decimal(buy), sell=Decimal(sell), max_slippage_pct=Decimal(guard)
    )


@pytest.mark.parametrize(
    ("side", "reference", "offsets", "expected"),
    [
        ("buy", "250.30", DEFAULTS, "249.93"),  # 249.92455, rounded up toward the reference
        ("sell", "252.10", _absolute("0", "0.04"), "252.14"),
        ("sell", "250.30", DEFAULTS, "250.55"),  # 250.5503, rounded down toward the reference
        ("buy", "0.9000", DEFAULTS, "0.8987"),  # below a dollar the step is a hundredth of a cent
        ("buy", "100", _absolute("0", "0"), "100"),
    ],
)
def test_worked_examples(side: str, reference: str, offsets: Offsets, expected: str) -> None:
    assert limit_price(side, Decimal(reference), offsets) == Decimal(expected)


@pytest.mark.parametrize(
    ("side", "reference", "offsets", "code"),
    [
        ("buy", "0.04", _absolute("0.04", "0"), "limit_price_not_positive"),
        ("buy", "5", _absolute("15", "0"), "limit_price_not_positive"),
        ("buy", "100", _absolute("0.51", "0", guard="0.5"), "max_slippage_exceeded"),
        ("sell", "100", _absolute("0", "0.51", guard="0.5"), "max_slippage_exceeded"),
        # 15 bps below 3.005 there is no cent: 3.01 would be above it, 3.00 too far away.
        ("buy", "3.005", DEFAULTS, "no_price_within_offset"),
        ("sell", "3.005", DEFAULTS, "no_price_within_offset"),
    ],
)
def test_what_has_no_valid_price_is_refused(
    side: str, reference: str, offsets: Offsets, code: str
) -> None:
    with pytest.raises(Unpriceable) as refused:
        limit_price(side, Decimal(reference), offsets)

    assert refused.value.code == code


def test_a_price_exactly_at_the_slippage_guard_passes() -> None:
    assert limit_price("buy", Decimal(100), _absolute("0.50", "0", guard="0.5")) == Decimal("99.5")


_PRICES = st.decimals("0.01", "100000", places=4)
_BPS = st.decimals(0, 500, places=2)


@given(side=st.sampled_from(["buy", "sell"]), reference=_PRICES, bps=_BPS)
def test_a_price_is_on_the_tick_and_never_further_away_than_the_offset(
    side: str, reference: Decimal, bps: Decimal
) -> None:
    offsets = Offsets(mode="bps", buy=bps, sell=bps, max_slippage_pct=Decimal(100))
    try:
        price = limit_price(side, reference, offsets)
    except Unpriceable:
        return

    assert is_on_tick(price)
    assert price <= reference if side == "buy" else price >= reference
    worst = reference * (1 - bps / 10_000 if side == "buy" else 1 + bps / 10_000)
    if side == "buy":
        assert worst <= price < worst + tick(price)
    else:
        assert worst - tick(worst) < price <= worst
