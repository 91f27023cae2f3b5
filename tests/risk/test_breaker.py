"""The five triggers of the circuit breaker, each at its limit, under it and over it, and with
figures that are none (SPEC K6). Pure: no database."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risk.breaker import Outcome, cooldown, distances, is_for_funds, levels, trips
from risk.limit_values import Limits

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
LIMITS = Limits()
NAN, INFINITY = Decimal("NaN"), Decimal("Infinity")


def outcome(*, failed: bool, ago: float = 1, message: str = "") -> Outcome:
    return Outcome(
        at=NOW - timedelta(seconds=ago),
        failed=failed,
        order_id=uuid4(),
        funds=is_for_funds(message),
        message=message,
    )


def some(*, failed: int, taken: int) -> list[Outcome]:
    """So many of each; the last one was taken, so that no row of failures is among them."""
    failures = [outcome(failed=True, ago=100 - number % 50) for number in range(failed)]
    return [*failures, *(outcome(failed=False, ago=1 + number % 50) for number in range(taken))]


def codes(outcomes: list[Outcome], limits: Limits = LIMITS) -> list[str]:
    return [reason.code for reason in trips(outcomes, limits, NOW)]


# --- error rate --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failed", "taken", "expected"),
    [
        (1, 10, []),  # 9.1 %
        (1, 9, []),  # 10 %: not above
        (10, 90, []),
        (11, 89, ["error_rate"]),  # 11 %
        (2, 9, ["error_rate"]),
        (2, 7, []),  # 22 %, of only nine orders
        (2, 8, ["error_rate"]),  # of ten
    ],
)
def test_the_error_rate_trips_above_its_limit_and_from_its_least_number_on(
    failed: int, taken: int, expected: list[str]
) -> None:
    assert codes(some(failed=failed, taken=taken)) == expected


def test_a_failure_older_than_the_window_is_not_in_the_rate() -> None:
    taken = [outcome(failed=False) for _ in range(9)]
    inside = [outcome(failed=True, ago=299.9), outcome(failed=True, ago=299.9)]
    outside = [outcome(failed=True, ago=300), outcome(failed=True, ago=300)]

    assert codes([*inside, *taken]) == ["error_rate"]
    assert codes([*outside, *taken, outcome(failed=False)]) == []


def test_the_reason_names_limit_and_share() -> None:
    (reason,) = trips(some(failed=11, taken=89), LIMITS, NOW)

    assert (reason.state, reason.limit, reason.actual) == ("reducing", 10, 11)
    assert reason.message.startswith("11 of 100 orders failed at the broker within 300 s")


def test_a_share_just_above_the_limit_is_not_shown_as_equal_to_it() -> None:
    (reason,) = trips(some(failed=100_001, taken=900_000), LIMITS, NOW)

    assert reason.actual == Decimal("10.01")


def test_no_orders_at_all_trip_nothing() -> None:
    assert codes([]) == []
    assert codes([], Limits(breaker_min_orders=0)) == []


def test_a_rate_limit_that_is_no_number_trips() -> None:
    assert "error_rate" in codes(
        some(failed=0, taken=10), Limits(breaker_error_rate_pct=Decimal("NaN"))
    )


# --- failures in a row -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [(4, []), (5, ["consecutive_failures"]), (6, ["consecutive_failures"])],
)
def test_failures_in_a_row_trip_at_their_limit(row: int, expected: list[str]) -> None:
    earlier = outcome(failed=False, ago=1000)

    assert codes([earlier, *(outcome(failed=True, ago=9 - n) for n in range(row))]) == expected


def test_a_success_in_between_ends_the_row() -> None:
    failures = [outcome(failed=True, ago=ago) for ago in (60, 50, 40, 20, 10)]

    assert codes([*failures, outcome(failed=False, ago=30)]) == []


def test_the_row_is_counted_by_time_not_by_the_order_of_arrival() -> None:
    failures = [outcome(failed=True, ago=ago) for ago in (10, 20, 30, 40, 50)]

    assert codes([outcome(failed=False, ago=60), *failures]) == ["consecutive_failures"]
    assert codes([*failures, outcome(failed=False, ago=5)]) == []


def test_failures_in_a_row_count_however_slowly_they_came() -> None:
    failures = [outcome(failed=True, ago=3600 * number) for number in range(1, 6)]

    assert codes(failures) == ["consecutive_failures"]


# --- a refusal for funds -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "insufficient buying power",
        "Insufficient Buying Power",
        "insufficient options buying power",
        "not enough buying power",
        "order rejected: insufficient funds",
        "insufficient day trading buying power",
    ],
)
def test_one_refusal_for_want_of_funds_is_enough(message: str) -> None:
    (reason,) = trips([outcome(failed=True, message=message)], LIMITS, NOW)

    assert (reason.code, reason.limit, reason.actual) == ("refused_for_funds", 1, 1)
    assert message in reason.message


@pytest.mark.parametrize(
    "message",
    [  # all of these come with Alpaca's code 40310000, as the refusal for funds does
        "insufficient qty available for order (requested: 37, available: 0)",
        "potential wash trade detected. use complex orders",
        "order has been rejected due to no available quote for symbol",
        "",
    ],
)
def test_a_refusal_for_another_reason_is_none_for_funds(message: str) -> None:
    assert codes([outcome(failed=True, message=message)]) == []


# --- equity --------------------------------------------------------------------------------------


def held(
    equity: str | Decimal = "100000",
    session_equity: str | Decimal | None = "100000",
    buying_power: str | Decimal = "50000",
    limits: Limits = LIMITS,
) -> list[str]:
    found = levels(
        equity=Decimal(equity),
        session_equity=None if session_equity is None else Decimal(session_equity),
        buying_power=Decimal(buying_power),
        limits=limits,
    )
    return [reason.code for reason in found]


@pytest.mark.parametrize(
    ("equity", "expected"),
    [
        ("100000", []),
        ("120000", []),
        ("95000.01", []),
        ("95000", ["equity_drop"]),
        ("94999.99", ["equity_drop"]),
        ("-1", ["equity_drop"]),
        (NAN, ["equity_drop"]),
        (INFINITY, ["equity_drop"]),
    ],
)
def test_a_loss_of_equity_trips_at_its_limit(equity: str | Decimal, expected: list[str]) -> None:
    assert held(equity) == expected


def test_a_loss_just_under_the_limit_is_not_shown_as_equal_to_it() -> None:
    measured = distances(
        [],
        equity=Decimal("95000.01"),
        session_equity=Decimal(100_000),
        buying_power=Decimal(50_000),
        limits=LIMITS,
        now=NOW,
    )

    assert next(d.actual for d in measured if d.code == "equity_drop") == Decimal("4.99")


def test_without_an_equity_to_begin_with_nothing_is_compared() -> None:
    assert held("1", None) == []
    assert held(NAN, None) == ["equity_drop"]


def test_a_limit_of_nothing_trips_with_the_first_loss_only() -> None:
    strict = Limits(breaker_equity_drop_pct=Decimal(0))

    assert held("100000", limits=strict) == []
    assert held("99999.99", limits=strict) == ["equity_drop"]


def test_an_account_that_began_with_nothing_trips_when_it_loses() -> None:
    assert held("0", "0") == []
    assert held("-0.01", "0") == ["equity_drop"]
    assert held("100000", NAN) == ["equity_drop"]


# --- buying power --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buying_power", "expected"),
    [
        ("1000.01", []),
        ("1000", []),
        ("999.99", ["buying_power_low"]),
        ("-5", ["buying_power_low"]),
        (NAN, ["buying_power_low"]),
        (INFINITY, ["buying_power_low"]),
        (Decimal("sNaN"), ["buying_power_low"]),
    ],
)
def test_buying_power_trips_under_its_limit(
    buying_power: str | Decimal, expected: list[str]
) -> None:
    assert held(buying_power=buying_power) == expected


# --- all of it -----------------------------------------------------------------------------------


@given(
    equity=st.decimals(),
    session_equity=st.none() | st.decimals(),
    buying_power=st.decimals(),
)
def test_no_figure_whatever_goes_unjudged(
    equity: Decimal, session_equity: Decimal | None, buying_power: Decimal
) -> None:
    found = {
        reason.code
        for reason in levels(
            equity=equity, session_equity=session_equity, buying_power=buying_power, limits=LIMITS
        )
    }

    if not equity.is_finite():
        assert "equity_drop" in found
    if not buying_power.is_finite() or buying_power < 1000:
        assert "buying_power_low" in found


@pytest.mark.parametrize(("trip", "seconds"), [(1, 300), (2, 600), (3, 1200), (4, 2400), (9, 2400)])
def test_the_cool_down_doubles_up_to_eight_times_itself(trip: int, seconds: int) -> None:
    assert cooldown(trip, LIMITS) == timedelta(seconds=seconds)


def test_the_distance_to_each_trigger_is_told() -> None:
    measured = distances(
        [*some(failed=2, taken=8), outcome(failed=True, ago=0, message="insufficient funds")],
        equity=Decimal(97_000),
        session_equity=Decimal(100_000),
        buying_power=Decimal("999.5"),
        limits=LIMITS,
        now=NOW,
    )

    told = {d.code: (d.actual, d.limit, d.unit, d.reached) for d in measured}
    assert told == {
        "error_rate": (Decimal("27.28"), 10, "%", True),
        "consecutive_failures": (1, 5, "", False),
        "refused_for_funds": (1, 1, "", True),
        "equity_drop": (3, 5, "%", False),
        "buying_power_low": (Decimal("999.5"), 1000, "$", True),
    }


def test_what_was_never_measured_has_no_distance() -> None:
    measured = distances(
        [], equity=None, session_equity=None, buying_power=None, limits=LIMITS, now=NOW
    )

    assert {d.code: d.actual for d in measured} == {
        "error_rate": None,
        "consecutive_failures": 0,
        "refused_for_funds": 0,
        "equity_drop": None,
        "buying_power_low": None,
    }
    assert not any(d.reached for d in measured)
