"""The daily report: known rows give exactly these figures, once a day, and nothing after it."""

import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.alerts.models import Alert
from positions.models import CashEntry, Instrument, Position
from reconciliation import daily, jobs
from reconciliation.daily_window import day_at, day_on, due_days
from reconciliation.models import (
    Break,
    BrokerActivity,
    Correction,
    DailyReport,
    Kind,
    Rebuild,
)
from risk.figures import database_now
from risk.models import TradingChange
from tests.console.conftest import Browse, browse, cheap_passwords, person
from tests.reconciliation.days import (
    BEGINS,
    DUE,
    ENDS,
    FRIDAY,
    compared,
    et,
    filled,
    opened,
    placed,
)

SECOND = timedelta(seconds=1)
__all__ = ["browse", "cheap_passwords", "person"]  # fixtures


@pytest.fixture
def account(db: None) -> BrokerAccount:
    return opened()


@pytest.fixture
def strategy(account: BrokerAccount) -> Strategy:
    return Strategy.objects.create(account=account, name="rsi")


def figures(account: BrokerAccount, now: datetime = DUE) -> dict[str, Any]:
    return daily.figures_of(account, FRIDAY, now)


def measure(found: dict[str, Any], key: str, window: str = "day") -> tuple[Any, ...]:
    measures = found["scorecard"][window]["measures"]
    one = next(each for each in measures if each["key"] == key)
    return one["value"], one["numerator"], one["denominator"], one["met"]


# --- which moments belong to which day -----------------------------------------------------


@pytest.mark.django_db
def test_a_day_ends_ten_minutes_after_its_close_and_the_next_begins_there() -> None:
    friday, monday = day_on(FRIDAY), day_on(date(2026, 11, 23))

    assert friday is not None
    assert monday is not None
    assert (friday.starts, friday.ends, friday.due) == (BEGINS, ENDS, DUE)
    assert monday.starts == friday.ends


@pytest.mark.django_db
def test_a_day_that_closes_early_is_reported_early() -> None:
    after_thanksgiving = day_on(date(2026, 11, 27))

    assert after_thanksgiving is not None
    assert after_thanksgiving.due == et("13:15:00", date(2026, 11, 27))
    assert after_thanksgiving.starts == et("16:10:00", date(2026, 11, 25))


@pytest.mark.django_db
def test_what_happens_on_a_weekend_belongs_to_monday() -> None:
    assert day_on(date(2026, 11, 21)) is None
    assert day_at(et("12:00:00", date(2026, 11, 21))).day == date(2026, 11, 23)
    assert day_at(ENDS).day == date(2026, 11, 23)
    assert day_at(ENDS - SECOND).day == FRIDAY


@pytest.mark.django_db
def test_the_last_five_trading_days_are_due_and_today_only_after_its_close() -> None:
    before, after = due_days(DUE - SECOND), due_days(DUE)

    assert [day.day.day for day in before] == [13, 16, 17, 18, 19]
    assert [day.day.day for day in after] == [16, 17, 18, 19, 20]


# --- the figures ---------------------------------------------------------------------------


def test_orders_are_counted_by_how_they_came_out_and_by_strategy(
    account: BrokerAccount, strategy: Strategy
) -> None:
    momentum = Strategy.objects.create(account=account, name="momentum")
    other = Strategy.objects.create(account=opened("other"), name="rsi")
    for status in ("filled", "canceled", "expired", "rejected", "unresolved", "failed", "new"):
        placed(strategy, status)
    placed(momentum, "filled")
    placed(momentum, "denied")
    placed(other, "filled")
    pair = placed(momentum, "new", order_class="oco", side="sell")
    placed(momentum, "held", leg_of=pair)

    orders = figures(account)["orders"]

    assert orders["total"] == {
        "received": 10,
        "sent": 9,
        "filled": 2,
        "cancelled": 2,
        "denied": 1,
        "rejected": 1,
        "never_arrived": 1,
        "unresolved": 1,
        "waiting": 0,
        "open": 2,
    }
    by_strategy = {row["strategy"]: row["received"] for row in orders["by_strategy"]}
    assert by_strategy == {"momentum": 3, "rsi": 7}


@pytest.mark.parametrize(
    ("at", "counts"), [(BEGINS - SECOND, 0), (BEGINS, 1), (ENDS - SECOND, 1), (ENDS, 0)]
)
def test_only_what_was_recorded_in_the_day_counts(
    account: BrokerAccount, strategy: Strategy, at: datetime, counts: int
) -> None:
    order = placed(strategy, "filled", at=at)
    filled(order, "100", "70", at=at, profit="12.50")
    compared(account, at)
    TradingChange.objects.create(account=account, kind="person", to_state="halted", at=at)
    CashEntry.objects.create(
        account=account, kind="activity", cause="a", amount=5, occurred_at=at, recorded_at=at
    )

    found = figures(account)

    assert found["orders"]["total"]["received"] == counts
    assert found["fills"]["count"] == counts
    assert found["fills"]["realized_profit"] == ("12.5" if counts else "0")
    assert found["reconciliation"]["runs"] == counts
    assert found["trading"]["halts"] == counts
    assert len(found["cash"]) == counts


def test_signals_and_errors_are_counted_of_what_the_strategy_asked_for(
    account: BrokerAccount, strategy: Strategy
) -> None:
    operator = Strategy.objects.create(account=account, name="operator")
    bought = placed(strategy, "filled")
    placed(strategy, "waiting", parent=bought, role="take_profit")
    first = placed(strategy, "replaced")
    placed(strategy, "filled", replaces=first, chain=first.pk)
    placed(strategy, "canceled", filled_qty=Decimal(1))
    placed(strategy, "canceled")
    placed(strategy, "rejected", rejection={"message": "insufficient buying power"})
    later = {"message": "asset is not tradable"}
    placed(strategy, "rejected", rejection=later, acknowledged_at=et("11:00:01"))
    placed(strategy, "unresolved")
    placed(strategy, "failed")
    placed(strategy, "failed", cancel_requested_at=et("11:00:02"))
    placed(strategy, "denied")
    placed(operator, "filled")

    found = figures(account)

    # 3 of 10 signals executed: bought, replaced and then filled, cancelled with a share of it.
    assert measure(found, "signal_to_execution") == ("30", "3", "10", False)
    # Sent: all but the denied one and the exit; given up before it was sent again is no error.
    assert measure(found, "order_error_rate") == ("36.37", "4", "11", False)
    assert measure(found, "acknowledged_share") == ("54.54", "6", "11", False)
    assert measure(found, "refused_for_funds") == ("1", "1", None, False)
    assert measure(found, "manual_interventions") == ("1", "1", "1", True)


def test_an_order_of_the_day_before_that_fills_today_is_no_signal_of_today(
    account: BrokerAccount, strategy: Strategy
) -> None:
    first = placed(strategy, "replaced", at=BEGINS - SECOND)
    placed(strategy, "filled", replaces=first, chain=first.pk)

    assert measure(figures(account), "signal_to_execution") == (None, "0", "0", None)


def test_denials_are_counted_by_code(account: BrokerAccount, strategy: Strategy) -> None:
    both = [{"code": "max_positions"}, {"code": "insufficient_buying_power"}]
    placed(strategy, "denied", violations=both)
    placed(strategy, "denied", violations=both[:1])
    placed(strategy, "filled", violations=both)

    assert figures(account)["denials"] == {"max_positions": 2, "insufficient_buying_power": 1}


def test_fills_turnover_profit_and_cash_are_added_up_to_the_last_decimal(
    account: BrokerAccount, strategy: Strategy
) -> None:
    bought, sold = placed(strategy, "filled"), placed(strategy, "filled", side="sell")
    filled(bought, "100", "70.10")
    filled(sold, "40", "71.123456789", profit="40.938271560")
    filled(sold, "2", "69", profit="-2.2")
    for number, amount in enumerate(("-0.02", "-0.01", "12.34")):
        CashEntry.objects.create(
            account=account,
            kind="activity",
            cause=f"{number}",
            amount=Decimal(amount),
            occurred_at=et("12:00:00"),
            recorded_at=et("12:00:00"),
        )
        BrokerActivity.objects.create(
            account=account,
            activity_id=f"{number}",
            activity_type="DIV" if amount == "12.34" else "FEE",
            amount=Decimal(amount),
            occurred_at=et("12:00:00"),
            recorded_at=et("12:00:00"),
            raw={},
        )

    found = figures(account)

    assert found["fills"] == {
        "count": 3,
        "bought": "7010",
        "sold": "2982.93827156",
        "turnover": "9992.93827156",
        "realized_profit": "38.73827156",
    }
    assert found["cash"] == [{"kind": "activity", "count": 3, "amount": "12.31"}]
    assert found["activities"] == [
        {"activity_type": "DIV", "count": 1, "amount": "12.34"},
        {"activity_type": "FEE", "count": 2, "amount": "-0.03"},
    ]


def test_fills_of_orders_placed_elsewhere_lower_the_share_of_ours(
    account: BrokerAccount, strategy: Strategy
) -> None:
    order = placed(strategy, "filled")
    for _ in range(3):
        filled(order, "1", "70")
    for kind in ("FILL", "DIV", "FEE"):
        BrokerActivity.objects.create(
            account=account,
            activity_id=kind,
            activity_type=kind,
            occurred_at=et("12:00:00"),
            recorded_at=et("12:00:00"),
            raw={},
        )

    assert measure(figures(account), "api_share") == ("75", "3", "4", False)


def test_comparisons_are_counted_without_dry_runs_and_timed_without_incomplete_ones(
    account: BrokerAccount,
) -> None:
    for number in range(19):
        compared(account, et("11:00:00") + number * SECOND)
    compared(
        account,
        et("11:01:00"),
        duration_seconds=Decimal("4.2"),
        zombies=["KO"],
        orphans=["OKE"],
        quantity_drifts=[{"symbol": "TSLA"}],
    )
    compared(account, et("11:02:00"), complete=False, duration_seconds=9, compared_count=0)
    compared(account, et("11:03:00"), dry_run=True, duration_seconds=8)

    found = figures(account)

    assert found["reconciliation"] == {
        "runs": 21,
        "complete": 20,
        "incomplete": 1,
        "compared": 200,
        "differed": 3,
        "mean_seconds": "0.4",
        "p95_seconds": "0.2",
        "longest_seconds": "4.2",
        # From 11:01 until the close.
        "longest_gap_seconds": "17940",
    }
    assert measure(found, "position_accuracy") == ("98.5", "197", "200", False)
    assert measure(found, "time_to_reconcile") == ("0.4", "8", "20", True)
    assert measure(found, "positions_held") == ("12", "252", "21", True)


def test_the_longest_gap_counts_from_the_open_and_only_in_market_hours(
    account: BrokerAccount,
) -> None:
    compared(account, et("08:00:00"))
    compared(account, et("12:30:00"))
    compared(account, et("15:30:00"))

    assert figures(account)["reconciliation"]["longest_gap_seconds"] == "10800"


@pytest.mark.parametrize(
    ("opened_at", "seconds"), [("15:00:00", "1800"), ("09:00:00", "21000"), ("16:05:00", None)]
)
def test_the_longest_gap_does_not_count_the_time_before_the_book_was_opened(
    account: BrokerAccount, opened_at: str, seconds: str | None
) -> None:
    BrokerAccount.objects.update(opened_at=et(opened_at))
    account.refresh_from_db()
    compared(account, et("15:20:00"))
    compared(account, et("15:30:00"))

    assert figures(account)["reconciliation"]["longest_gap_seconds"] == seconds


def test_a_day_without_a_comparison_in_market_hours_is_one_gap(account: BrokerAccount) -> None:
    assert figures(account)["reconciliation"]["longest_gap_seconds"] == f"{int(6.5 * 3600)}"


def test_submission_is_timed_from_the_checks_to_the_acknowledgement(
    account: BrokerAccount, strategy: Strategy
) -> None:
    for number in range(1, 21):
        placed(strategy, "filled", took=number / 10)
    placed(strategy, "unresolved", took=60)
    for _ in range(9):
        placed(strategy, "rejected", acknowledged_at=et("11:01:00"))

    assert measure(figures(account), "submission_p95") == ("1900", "1900", None, False)


def test_the_largest_sector_is_told_of_equity_while_the_broker_s_figures_are_of_the_day(
    account: BrokerAccount,
) -> None:
    BrokerAccount.objects.update(equity=10_000, cash=1000, buying_power=20_000, as_of=ENDS)
    for symbol, qty, value in (("KO", 10, 600), ("PEP", -10, -1500), ("OKE", 20, 1400)):
        Instrument.objects.update_or_create(
            symbol=symbol,
            defaults={
                "sector": "Energy" if symbol == "OKE" else "Staples",
                "source": "test",
                "as_of": FRIDAY,
            },
        )
        Position.objects.create(
            account=account, symbol=symbol, broker_qty=qty, broker_market_value=value
        )
    account.refresh_from_db()

    now, later = figures(account), figures(account, now=et("12:00:00", date(2026, 11, 24)))

    assert measure(now, "largest_sector") == ("21", "21", None, True)
    assert now["account_figures"]["equity"] == "10000"
    assert measure(later, "largest_sector") == (None, None, None, None)
    assert set(later["account_figures"].values()) == {None}


def _break(account: BrokerAccount, symbol: str, **given: Any) -> Break:
    values: dict[str, Any] = {
        "kind": Kind.QUANTITY,
        "subject": f"position/{symbol}",
        "symbol": symbol,
        "local": 100,
        "broker": 60,
        "value": Decimal("2400.00"),
        "severity": "warning",
        "first_seen": et("11:00:00"),
        "last_seen": et("11:00:00"),
    }
    return Break.objects.create(account=account, **{**values, **given})


def test_breaks_are_told_by_kind_with_their_ages_at_the_end_of_the_day(
    account: BrokerAccount,
) -> None:
    long_ago = BEGINS - timedelta(days=1)
    _break(account, "KO")
    _break(account, "PEP", status="healed", ended_at=et("11:30:00"))
    _break(account, "OKE", first_seen=long_ago, value=None, kind=Kind.ZOMBIE)
    _break(account, "TSLA", first_seen=long_ago, status="resolved", ended_at=et("12:00:00"))
    _break(account, "AAPL", first_seen=long_ago, status="healed", ended_at=BEGINS - SECOND)
    _break(account, "MSFT", first_seen=ENDS)
    _break(account, "NVDA", status="healed", ended_at=ENDS + SECOND)

    found = figures(account)["breaks"]

    assert found["by_kind"] == [
        {
            "kind": "quantity",
            "opened": 3,
            "healed": 1,
            "resolved": 1,
            "standing": 2,
            "oldest_seconds": 5 * 3600 + 600,
            "value": "4800",
        },
        {
            "kind": "zombie",
            "opened": 0,
            "healed": 0,
            "resolved": 0,
            "standing": 1,
            "oldest_seconds": 48 * 3600,
            "value": None,
        },
    ]
    ages = {row["symbol"]: row["age_seconds"] for row in found["listed"]}
    assert set(ages) == {"KO", "PEP", "OKE", "TSLA", "NVDA"}
    assert ages["PEP"] == 1800


def test_corrections_tell_who_and_why_and_people_s_decisions_are_interventions(
    account: BrokerAccount,
) -> None:
    ann, ben = User.objects.create_user("ann"), User.objects.create_user("ben")
    position = Position.objects.create(account=account, symbol="KO")
    about = _break(account, "KO")
    common: dict[str, Any] = {
        "account": account,
        "subject": about,
        "position": position,
        "local": 100,
        "broker": 60,
        "value": Decimal("2400"),
        "watermark": et("11:00:00"),
        "proposed_at": et("11:00:00"),
        "expires_at": ENDS,
    }
    Correction.objects.create(
        **common,
        proposed_by=ann,
        reason="The broker is right.",
        status="rejected",
        decided_by=ben,
        decided_at=et("11:05:00"),
        comment="It is not.",
    )
    Correction.objects.create(**common, status="superseded", decided_at=et("11:06:00"))
    Correction.objects.create(
        **{**common, "proposed_at": BEGINS - SECOND, "subject": _break(account, "PEP")}
    )
    Correction.objects.create(
        **{**common, "proposed_at": BEGINS - 2 * SECOND},
        status="superseded",
        decided_at=BEGINS - SECOND,
    )
    Correction.objects.create(**{**common, "proposed_at": ENDS})

    found = figures(account)
    overtaken, decided, waiting = found["corrections"]["listed"]

    assert (found["corrections"]["by_people"], found["corrections"]["automatic"]) == (1, 0)
    assert overtaken["status"] == "superseded"
    assert (waiting["status"], waiting["proposed_by"]) == ("proposed", "Ordinis")
    assert waiting["proposed_at"] == (BEGINS - SECOND).astimezone(UTC).isoformat()
    assert (decided["proposed_by"], decided["reason"]) == ("ann", "The broker is right.")
    assert (decided["decided_by"], decided["comment"]) == ("ben", "It is not.")
    assert (decided["value"], decided["local"], decided["broker"]) == ("2400", "100", "60")
    assert measure(found, "manual_interventions") == ("1", "1", "1", True)


def test_halts_and_rebuilds_are_interventions_and_a_trip_of_the_breaker_is_not(
    account: BrokerAccount,
) -> None:
    for kind, state in (
        ("person", "halted"),
        ("person", "active"),
        ("override", "closed"),
        ("tripped", "open"),
    ):
        TradingChange.objects.create(
            account=account, kind=kind, to_state=state, reason="r", actor="ann", at=et("11:00:00")
        )
    Rebuild.objects.create(account=account, actor="ann", reason="Lost.", at=et("12:00:00"))

    found = figures(account)

    assert [row["kind"] for row in found["trading"]["listed"]] == [
        *("tripped", "override", "person", "person"),
    ]
    assert [row["reason"] for row in found["rebuilds"]] == ["Lost."]
    assert measure(found, "manual_interventions") == ("3", "3", "1", False)


def test_alerts_of_the_day_and_those_that_stand_are_told(account: BrokerAccount) -> None:
    def alert(code: str, first_seen: datetime, ended_at: datetime | None) -> None:
        Alert.objects.create(
            account=account,
            code=code,
            subject="s",
            severity="warning",
            message="m",
            first_seen=first_seen,
            ended_at=ended_at,
        )

    alert("of_the_day", et("11:00:00"), et("11:01:00"))
    alert("standing", BEGINS - SECOND, None)
    alert("over", BEGINS - SECOND, BEGINS)
    alert("of_tomorrow", ENDS, None)

    found = figures(account)["alerts"]

    assert {row["code"] for row in found["listed"]} == {"of_the_day", "standing"}
    assert (found["raised"], found["standing"], found["total"]) == (1, 1, 2)


def test_a_long_list_is_cut_and_says_so_while_the_counts_have_all(account: BrokerAccount) -> None:
    TradingChange.objects.bulk_create(
        TradingChange(account=account, kind="person", to_state="halted", at=et("11:00:00"))
        for _ in range(203)
    )

    found = figures(account)["trading"]

    assert (len(found["listed"]), found["left_out"], found["halts"]) == (200, 3, 203)


# --- the report ----------------------------------------------------------------------------


def test_half_a_day_is_counted_so_far_and_not_kept(
    account: BrokerAccount, strategy: Strategy
) -> None:
    placed(strategy, "filled", at=et("11:00:00"))
    placed(strategy, "filled", at=et("13:00:00"))

    found = figures(account, now=et("12:00:00"))

    assert (found["final"], found["orders"]["total"]["received"]) == (False, 1)
    assert not DailyReport.objects.exists()


def test_the_job_makes_nothing_before_a_quarter_of_an_hour_has_passed(
    account: BrokerAccount,
) -> None:
    BrokerAccount.objects.update(opened_at=BEGINS + SECOND)

    assert daily.make_due(DUE - SECOND) == 0
    assert not DailyReport.objects.exists()
    assert daily.make_due(DUE) == 1
    assert DailyReport.objects.get().is_final


def test_two_runs_of_the_job_make_one_report_that_stays_as_it_was(
    account: BrokerAccount, strategy: Strategy
) -> None:
    placed(strategy, "filled")
    assert daily.make_due(DUE) == 5
    kept = DailyReport.objects.get(day=FRIDAY)
    placed(strategy, "filled")

    assert daily.make_due(DUE + timedelta(minutes=1)) == 0
    assert DailyReport.objects.count() == 5
    again = DailyReport.objects.get(day=FRIDAY)
    assert (again.pk, again.figures) == (kept.pk, kept.figures)
    assert figures(account)["orders"]["total"]["received"] == 1


def test_a_run_that_began_before_another_had_stored_its_report_adds_none(
    account: BrokerAccount, strategy: Strategy
) -> None:
    for _ in range(20):
        placed(strategy, "rejected")
    day = day_on(FRIDAY)
    assert day is not None
    first = daily._make(account, day, DUE, newest=True)
    second = daily._make(account, day, DUE, newest=True)

    assert (first, second) == (True, False)
    assert DailyReport.objects.count() == 1
    assert Alert.objects.get(code="scorecard_order_error_rate").seen_count == 1


def test_days_that_were_missed_are_made_up_for_but_not_before_the_book_was_opened(
    account: BrokerAccount,
) -> None:
    BrokerAccount.objects.update(opened_at=et("10:00:00", date(2026, 11, 18)))
    opened("new", opened_at=None)
    opened("elsewhere", broker="alpaca", mode="paper")

    assert daily.make_due(DUE) == 3
    found = DailyReport.objects.order_by("day").values_list("account__name", "day")
    assert list(found) == [("main", date(2026, 11, day)) for day in (18, 19, 20)]


def test_a_stored_report_is_told_rather_than_counted_again(
    account: BrokerAccount, strategy: Strategy
) -> None:
    daily.make_due(DUE)
    placed(strategy, "filled")

    assert figures(account)["orders"]["total"]["received"] == 0


def test_a_day_without_trading_or_to_come_has_no_report(account: BrokerAccount) -> None:
    with pytest.raises(daily.NoReport, match="does not trade on 2026-11-21"):
        daily.figures_of(account, date(2026, 11, 21), DUE)
    with pytest.raises(daily.NoReport, match="has not begun"):
        daily.figures_of(account, date(2026, 11, 24), DUE)


def test_a_day_before_the_book_was_opened_has_no_report_and_no_scorecard(
    account: BrokerAccount,
) -> None:
    BrokerAccount.objects.update(opened_at=ENDS)
    account.refresh_from_db()

    with pytest.raises(daily.NoReport, match="opened at 2026-11-20 21:10:00 UTC, after 2026-11-20"):
        figures(account)
    with pytest.raises(CommandError, match="nothing is known of that day"):
        call_command("report", "--date", "2026-11-20")
    BrokerAccount.objects.update(opened_at=ENDS - SECOND)
    account.refresh_from_db()
    assert figures(account)["day"] == "2026-11-20"


def test_an_account_whose_book_is_not_open_has_no_report_and_hides_no_other(
    account: BrokerAccount,
) -> None:
    new = opened("anew", opened_at=None)
    out = StringIO()

    with pytest.raises(daily.NoReport, match="The book of anew has not been opened yet"):
        daily.figures_of(new, None, DUE)
    with pytest.raises(CommandError, match="The book of anew has not been opened yet"):
        call_command("report", stdout=out)
    assert "main (simulated)" in out.getvalue()


def test_the_page_of_a_day_without_a_report_says_why(browse: Browse) -> None:
    new = opened("anew", opened_at=None)
    client = browse("Viewer")

    for address in ("", "csv/"):
        answer = client.get(f"/reconciliation/dailyreport/so-far/{new.pk}/{address}")

        assert answer.status_code == 404
        page = answer.content.decode()
        assert "The book of anew has not been opened yet" in page
        assert "yes</td>" not in page
        assert "CSV</a>" not in page


def test_the_day_so_far_comes_as_csv_too(browse: Browse, account: BrokerAccount) -> None:
    answer = browse("Viewer").get(f"/reconciliation/dailyreport/so-far/{account.pk}/csv/")

    day = day_at(database_now()).day
    name = f'attachment; filename="main-{day}-so-far.csv"'
    assert answer.headers["Content-Disposition"] == name
    assert "Report,State,So far\r\n" in answer.content.decode()
    assert not DailyReport.objects.exists()
    assert browse().get(answer.request["PATH_INFO"]).status_code == 403


def test_the_command_ends_quietly_when_nobody_reads_on(account: BrokerAccount) -> None:
    read, write = os.pipe()
    os.close(read)

    with open(write, "w") as out:
        call_command("report", stdout=out)

        # What is still to be written at the end of the process goes nowhere.
        assert os.fstat(out.fileno()).st_rdev == os.stat(os.devnull).st_rdev


def test_rolling_figures_add_up_the_reports_of_the_days_before(
    account: BrokerAccount, strategy: Strategy
) -> None:
    for day, status in ((17, "rejected"), (18, "filled"), (19, "filled"), (20, "filled")):
        placed(strategy, status, at=et("11:00:00", date(2026, 11, day)), took=day / 10)
    daily.make_due(DUE)
    found = DailyReport.objects.get(day=FRIDAY).figures

    card = found["scorecard"]
    assert [(card[name]["days"], card[name]["of"]) for name in card] == [(1, 1), (5, 5), (5, 20)]
    assert measure(found, "order_error_rate") == ("0", "0", "1", True)
    assert measure(found, "order_error_rate", "five_days") == ("25", "1", "4", False)
    assert measure(found, "submission_p95") == ("2000", "2000", None, False)
    assert measure(found, "submission_p95", "five_days") == ("2000", "2000", None, False)


def test_a_measure_beyond_its_guardrail_alerts_until_a_day_keeps_to_it(
    account: BrokerAccount, strategy: Strategy
) -> None:
    for _ in range(18):
        placed(strategy, "filled")
    placed(strategy, "rejected")
    placed(strategy, "rejected")
    monday = date(2026, 11, 23)
    placed(strategy, "filled", at=et("11:00:00", monday))

    daily.make_due(DUE)
    alert = Alert.objects.get(code="scorecard_order_error_rate")
    assert (alert.subject, alert.ended_at) == ("main", None)
    assert alert.message.startswith(
        "Order error rate: 10.00 % on 2026-11-20, and it is to be < 5 %."
    )

    daily.make_due(et("16:15:00", monday))
    alert.refresh_from_db()
    assert alert.ended_at is not None


def test_a_missed_day_of_the_past_raises_no_alert(
    account: BrokerAccount, strategy: Strategy
) -> None:
    for _ in range(20):
        placed(strategy, "rejected", at=et("11:00:00", date(2026, 11, 18)))

    daily.make_due(DUE)

    assert not Alert.objects.filter(code="scorecard_order_error_rate").exists()


def test_a_report_takes_as_many_queries_whatever_the_day_was(
    account: BrokerAccount, strategy: Strategy
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            figures(account)
        return len(captured)

    BrokerAccount.objects.update(equity=10_000, as_of=ENDS)
    account.refresh_from_db()
    quiet = queries()
    for number in range(30):
        filled(placed(strategy, "filled", symbol=f"S{number}"), "1", "70")
        placed(strategy, "rejected", rejection={"message": "insufficient buying power"})
        _break(account, f"S{number}")
        compared(account, et("11:00:00") + number * SECOND)
        Position.objects.filter(symbol=f"S{number}").update(broker_qty=1)
    busy = queries()

    assert busy == quiet
    assert busy <= 32


def test_a_run_of_the_job_with_nothing_due_asks_next_to_nothing(account: BrokerAccount) -> None:
    daily.make_due(DUE)

    with CaptureQueriesContext(connection) as captured:
        daily.make_due(DUE)
    assert len(captured) <= 3


def test_the_clock_s_job_makes_what_is_due_by_the_database_s_clock(account: BrokerAccount) -> None:
    jobs.daily()

    days = [day.day for day in due_days(database_now())]
    assert len(days) == 5
    assert list(DailyReport.objects.order_by("day").values_list("day", flat=True)) == days
