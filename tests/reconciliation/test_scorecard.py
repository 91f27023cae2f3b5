"""The scorecard: values beside targets, and no figure where nothing was counted. Pure."""

from decimal import Decimal

import pytest

from reconciliation.scorecard import Counts, Measure, scorecard, together
from reconciliation.scorecard_targets import Bounds


def _measure(key: str, counts: Counts, window: str = "day") -> Measure:
    return next(each for each in scorecard(counts, window=window) if each.spec.key == key)


def test_a_day_without_anything_has_no_figure_and_meets_and_misses_nothing() -> None:
    measures = [each for each in scorecard(Counts()) if each.spec.key != "manual_interventions"]

    assert len(measures) == 11
    assert {(each.value, each.met, each.beyond) for each in measures} == {(None, None, None)}


@pytest.mark.parametrize(
    ("key", "counts", "value", "met"),
    [
        ("order_error_rate", Counts(sent=100, errors=4), "4.00", True),
        ("order_error_rate", Counts(sent=100, errors=5), "5.00", False),
        ("order_error_rate", Counts(sent=7, errors=1), "14.29", False),
        ("signal_to_execution", Counts(signals=100, executed=81), "81.00", True),
        ("signal_to_execution", Counts(signals=100, executed=80), "80.00", False),
        ("acknowledged_share", Counts(sent=100, acknowledged=99), "99.00", True),
        ("acknowledged_share", Counts(sent=1000, acknowledged=989), "98.90", False),
        ("refused_for_funds", Counts(sent=3, refused_for_funds=0), "0.00", True),
        ("refused_for_funds", Counts(sent=3, refused_for_funds=1), "1.00", False),
        ("positions_held", Counts(readings=4, positions_read=40), "10.00", True),
        ("positions_held", Counts(readings=4, positions_read=60), "15.00", True),
        ("positions_held", Counts(readings=4, positions_read=61), "15.25", False),
        ("positions_held", Counts(readings=4, positions_read=39), "9.75", False),
        ("largest_sector", Counts(largest_sector=Decimal(30)), "30.00", True),
        ("largest_sector", Counts(largest_sector=Decimal("30.001")), "30.01", False),
        ("position_accuracy", Counts(compared=1000, differed=0), "100.00", True),
        ("position_accuracy", Counts(compared=1000, differed=1), "99.90", False),
        ("time_to_reconcile", Counts(runs=2, run_seconds=Decimal("9.98")), "4.99", True),
        ("time_to_reconcile", Counts(runs=2, run_seconds=Decimal(10)), "5.00", False),
        ("manual_interventions", Counts(), "0.00", True),
        ("manual_interventions", Counts(decisions=1), "1.00", True),
        ("manual_interventions", Counts(halts=1, hand_orders=1), "2.00", False),
        ("api_share", Counts(fills=95, external_fills=5), "95.00", True),
        ("api_share", Counts(fills=94, external_fills=6), "94.00", False),
        ("submission_p95", Counts(timed=3, p95_ms=Decimal(750)), "750.00", True),
        ("submission_p95", Counts(timed=3, p95_ms=Decimal("750.01")), "750.01", False),
    ],
)
def test_a_value_is_held_against_the_target_of_its_source(
    key: str, counts: Counts, value: str, met: bool
) -> None:
    measure = _measure(key, counts)

    assert (measure.value, measure.met) == (Decimal(value), met)


@pytest.mark.parametrize(
    ("key", "counts", "shown"),
    [
        ("order_error_rate", Counts(sent=100_000, errors=5_001), "5.01"),
        ("position_accuracy", Counts(compared=1_000_000, differed=1), "99.99"),
        ("acknowledged_share", Counts(sent=1_000_000, acknowledged=989_999), "98.99"),
        ("positions_held", Counts(readings=1000, positions_read=9_999), "9.99"),
    ],
)
def test_what_misses_its_target_by_a_hair_is_not_shown_as_meeting_it(
    key: str, counts: Counts, shown: str
) -> None:
    measure = _measure(key, counts)

    assert (measure.value, measure.met) == (Decimal(shown), False)


def test_round_trips_are_said_not_to_be_measured_rather_than_made_up() -> None:
    measure = _measure("round_trips_avoided", Counts(sent=100, fills=100))

    assert (measure.value, measure.met) == (None, None)
    assert "Not measured yet" in measure.spec.note


def test_a_guardrail_counts_only_from_so_many_cases_on() -> None:
    few, enough = Counts(sent=19, errors=5), Counts(sent=20, errors=5)

    assert [_measure("order_error_rate", each).beyond for each in (few, enough)] == [None, True]


def test_a_guardrail_of_its_own_is_wider_than_the_target() -> None:
    missed = _measure("acknowledged_share", Counts(sent=100, acknowledged=98))
    beyond = _measure("acknowledged_share", Counts(sent=100, acknowledged=96))

    assert (missed.met, missed.beyond) == (False, False)
    assert (beyond.met, beyond.beyond) == (False, True)


def test_manual_interventions_are_guarded_over_a_week() -> None:
    counts = Counts(days=5, decisions=4)

    assert _measure("manual_interventions", counts, "five_days").beyond is True
    assert _measure("manual_interventions", counts, "day").beyond is None


def test_four_weeks_are_told_by_the_week() -> None:
    measure = _measure("manual_interventions", Counts(days=20, decisions=6), "twenty_days")

    assert (measure.value, measure.numerator, measure.denominator) == (Decimal("1.50"), 6, 4)


def test_days_add_up_and_what_can_t_be_added_is_the_largest_or_given() -> None:
    monday = Counts(sent=10, errors=1, largest_sector=Decimal(20), run_seconds=Decimal("1.5"))
    tuesday = Counts(sent=30, errors=1, largest_sector=Decimal(25), timed=9, p95_ms=Decimal(9))
    both = together([monday, tuesday, Counts()], timed=40, p95_ms=Decimal(120))

    assert (both.days, both.sent, both.errors) == (3, 40, 2)
    assert (both.largest_sector, both.run_seconds) == (Decimal(25), Decimal("1.5"))
    assert (both.timed, both.p95_ms) == (40, Decimal(120))


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(most=Decimal(5), strict=True), "< 5 %"),
        (Bounds(most=Decimal(5)), "≤ 5 %"),
        (Bounds(least=Decimal(80), strict=True), "> 80 %"),
        (Bounds(least=Decimal(80)), "≥ 80 %"),
        (Bounds(least=Decimal(10), most=Decimal(15)), "10 to 15 %"),
    ],
)
def test_a_target_is_written_as_it_is_held(bounds: Bounds, words: str) -> None:
    assert bounds.words("%") == words
