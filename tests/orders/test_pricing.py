"""Limit prices from offsets and what an order may cost at most: the worked examples, and what must
hold for every price."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.errors import OrderSubmissionError
from orders.pricing import (
    Offsets,
    Unpriceable,
    collared,
    is_on_tick,
    limit_price,
    tick,
    worst_price,
)

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
    with pytest.raises(OrderSubmissionError) as refused:
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


def _worst(
    side: str, kind: str, *, reference: str | None = None, slippage: str = "0.5", **prices: str
) -> Decimal | None:
    given = {name: Decimal(price) for name, price in prices.items()}
    return worst_price(
        side=side,
        type=kind,
        limit_price=given.get("limit_price"),
        stop_price=given.get("stop_price"),
        trail_price=given.get("trail_price"),
        trail_percent=given.get("trail_percent"),
        reference_price=None if reference is None else Decimal(reference),
        max_slippage_pct=Decimal(slippage),
    )


@pytest.mark.parametrize(
    ("kind", "prices", "expected"),
    [
        ("limit", {"limit_price": "249.93", "reference": "250.30"}, "249.93"),
        ("stop_limit", {"limit_price": "252", "stop_price": "251"}, "252"),
        # A buy stop gets Alpaca's collar once it goes off: 4 % below $50, 2.5 % from there on.
        ("stop", {"stop_price": "49.99"}, "51.99"),  # 51.9896
        ("stop", {"stop_price": "50"}, "51.25"),
        ("stop", {"stop_price": "250.30"}, "256.56"),  # 256.5575
        ("stop", {"stop_price": "0.8"}, "0.832"),
        ("stop", {"stop_price": "0.9999"}, "1.04"),  # 1.039896: above a dollar, so in cents
        ("market", {"reference": "250.30"}, "251.56"),  # 251.5515
        ("market", {"reference": "100", "slippage": "0"}, "100"),
        ("trailing_stop", {"reference": "250.30", "trail_price": "1.50"}, "258.10"),  # 251.80
        ("trailing_stop", {"reference": "40", "trail_percent": "5"}, "43.68"),  # 42
        ("trailing_stop", {"reference": "40", "trail_percent": "0.0101"}, "41.62"),  # 40.00404
        # It may follow the price down to 49.99, where the collar is the wider one.
        ("trailing_stop", {"reference": "49", "trail_price": "1.10"}, "51.99"),
    ],
)
def test_what_a_share_may_cost_at_most(kind: str, prices: dict[str, str], expected: str) -> None:
    assert _worst("buy", kind, **prices) == Decimal(expected)


@pytest.mark.parametrize(
    ("kind", "prices"),
    [("market", {}), ("trailing_stop", {"trail_price": "1"})],
)
def test_a_buy_that_nothing_bounds_needs_a_reference_price(
    kind: str, prices: dict[str, str]
) -> None:
    with pytest.raises(Unpriceable, match="Give reference_price") as refused:
        _worst("buy", kind, **prices)

    assert refused.value.code == "reference_price_required"


@pytest.mark.parametrize(
    ("kind", "prices", "expected"),
    [
        ("limit", {"limit_price": "252.14", "reference": "252.10"}, "252.14"),
        ("stop_limit", {"limit_price": "243", "stop_price": "244"}, "243"),
        ("stop", {"stop_price": "244", "reference": "250"}, "244"),
        ("market", {"reference": "250.30"}, "250.30"),
        ("trailing_stop", {"trail_percent": "5"}, None),
        ("market", {}, None),
    ],
)
def test_a_sell_is_valued_by_the_first_price_it_has(
    kind: str, prices: dict[str, str], expected: str | None
) -> None:
    assert _worst("sell", kind, **prices) == (None if expected is None else Decimal(expected))


@given(reference=_PRICES, trail=st.decimals("0.01", "1000", places=2), fall=st.decimals(0, 1))
def test_no_fall_of_the_price_makes_a_trailing_buy_dearer_than_it_committed(
    reference: Decimal, trail: Decimal, fall: Decimal
) -> None:
    committed = _worst("buy", "trailing_stop", reference=f"{reference:f}", trail_price=f"{trail:f}")

    stop = (reference * fall + trail).quantize(Decimal("0.01"))
    assert committed is not None
    assert collared(stop) <= committed
    assert is_on_tick(committed)
