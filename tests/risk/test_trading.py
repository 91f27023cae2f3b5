"""What an account's orders may do: the strictest of what a person set, the breaker and the books'
age. It is all in rows: every state survives a restart (DESIGN, invariant 8)."""

from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from risk import trading
from risk.breaker import Outcome
from risk.figures import database_now
from risk.limit_values import Limits
from risk.limits import change, in_force
from risk.models import TradingChange, TradingControl
from risk.states import TradingState
from risk.trading import ProbeTaken
from tests import other_process
from tests.risk.trading_desk import cool_down, failures, figures, judged, tries, trip
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
LIMITS = Limits()


@pytest.fixture
def desk(account: BrokerAccount) -> BrokerAccount:
    """An account whose books were compared just now, and that has judged an order."""
    compared(account, ago=0)
    judged(account)
    return account


def compared(account: BrokerAccount, *, ago: float) -> None:
    account.opened_at = account.books_as_of = database_now() - timedelta(seconds=ago)
    account.save()


def row() -> TradingControl:
    return TradingControl.objects.get()


def history() -> list[tuple[str, str, str]]:
    """What changed, oldest first."""
    changes = TradingChange.objects.order_by("pk")
    return [(each.kind, each.from_state, each.to_state) for each in changes]


def standing(code: str) -> list[tuple[str, str]]:
    """The open alerts of a kind: subject and severity."""
    found = Alert.objects.filter(code=code, ended_at=None)
    return list(found.order_by("subject").values_list("subject", "severity"))


def codes(state: TradingState) -> list[str]:
    return [reason.code for reason in state.reasons]


def outcome_of(account: BrokerAccount, *, failed: bool) -> Outcome:
    """What became of the order that tries."""
    probe = row().probe
    assert probe is not None
    message = "the symbol is halted" if failed else ""
    return Outcome(at=database_now(), failed=failed, order_id=probe, message=message)


def half_open(account: BrokerAccount) -> None:
    trip(account)
    cool_down(account)
    assert judged(account).may_probe


# --- a person's hand ---------------------------------------------------------------------------


def test_an_account_is_active_unless_told_otherwise(desk: BrokerAccount) -> None:
    assert judged(desk) == trading.current(desk.pk) == TradingState()
    assert history() == []


def test_the_state_of_an_account_that_never_judged_an_order_can_be_read(
    account: BrokerAccount,
) -> None:
    assert trading.current(account.pk) == TradingState()
    assert not TradingControl.objects.exists()


def test_halted_holds_until_a_person_resumes(desk: BrokerAccount) -> None:
    told = trading.set_state(desk.pk, "halted", reason="Fills look wrong.", actor="ann")

    assert told.state == judged(desk).state == trading.current(desk.pk).state == "halted"
    assert told.reasons[0].message == "ann set the account to halted: Fills look wrong."
    assert standing("trading_halted") == [("main", "critical")]

    trading.set_state(desk.pk, "active", reason="They were right.", actor="bob")

    assert judged(desk).state == "active"
    assert standing("trading_halted") == []
    assert history() == [("person", "active", "halted"), ("person", "halted", "active")]


def test_halting_twice_keeps_both_in_the_history_and_shows_the_newest(desk: BrokerAccount) -> None:
    trading.set_state(desk.pk, "halted", reason="First.", actor="ann")
    trading.set_state(desk.pk, "halted", reason="Second.", actor="bob")

    assert (row().actor, row().reason) == ("bob", "Second.")
    assert len(history()) == 2


@pytest.mark.parametrize(
    ("state", "reason", "actor"),
    [("paused", "Why not.", "ann"), ("halted", " ", "ann"), ("halted", "Why not.", "")],
)
def test_a_state_that_is_none_or_that_nobody_explains_is_refused(
    desk: BrokerAccount, state: str, reason: str, actor: str
) -> None:
    with pytest.raises(ValueError, match=r"trading state|Say why"):
        trading.set_state(desk.pk, state, reason=reason, actor=actor)

    assert row().state == "active"
    assert history() == []


def test_the_strictest_of_all_holds(desk: BrokerAccount) -> None:
    trip(desk)
    trading.set_state(desk.pk, "halted", reason="To look.", actor="ann")

    state = judged(desk, figures(buying_power="1"))
    assert state.state == "halted"
    assert codes(state) == ["set_by_person", "buying_power_low", "consecutive_failures"]

    trading.set_state(desk.pk, "reducing", reason="To get out.", actor="ann")
    assert judged(desk).state == "reducing"
    trading.set_state(desk.pk, "active", reason="Seen.", actor="ann")
    assert judged(desk).state == "reducing"  # the breaker's
    assert judged(desk).breaker == "open"


# --- the breaker by outcomes -------------------------------------------------------------------


def test_failures_open_the_breaker_and_it_says_why(desk: BrokerAccount) -> None:
    trip(desk)

    state = trading.current(desk.pk)
    assert (state.state, state.breaker, state.may_probe) == ("reducing", "open", False)
    (reason,) = state.reasons
    assert (reason.code, reason.limit, reason.actual) == ("consecutive_failures", 5, 5)
    assert judged(desk) == state
    assert history() == [("tripped", "closed", "open")]
    assert standing("breaker_open") == [("orders", "warning")]
    assert TradingChange.objects.get().figures["reasons"][0]["actual"] == "5"


def test_it_stays_open_for_the_cool_down(desk: BrokerAccount) -> None:
    trip(desk)

    control = row()
    assert control.opened_at is not None
    assert control.retry_at == control.opened_at + timedelta(seconds=300)
    assert trading.current(desk.pk).until == control.retry_at


def test_the_same_outcomes_told_again_open_it_once(desk: BrokerAccount) -> None:
    outcomes = failures(5)

    for _ in range(3):
        trading.note_outcomes(desk.pk, outcomes, LIMITS)

    assert row().trips == 1
    assert len(history()) == 1


def test_outcomes_that_reach_nothing_write_nothing(desk: BrokerAccount) -> None:
    outcomes = failures(4)

    with CaptureQueriesContext(connection) as queries:
        trading.note_outcomes(desk.pk, outcomes, LIMITS)

    assert len(queries) == 1
    assert trading.current(desk.pk).state == "active"


def test_the_breaker_of_an_account_without_a_row_opens_too(account: BrokerAccount) -> None:
    trip(account)

    assert row().breaker == "open"


def test_after_the_cool_down_one_order_may_try(desk: BrokerAccount) -> None:
    trip(desk)
    assert not judged(desk).may_probe

    cool_down(desk)

    assert trading.current(desk.pk).breaker == "half_open"
    state = judged(desk)
    assert (state.state, state.breaker, state.may_probe) == ("reducing", "half_open", True)
    assert history()[-1] == ("probe", "open", "half_open")

    order_id = uuid4()
    assert tries(desk, order_id)

    state = judged(desk)
    assert (state.state, state.may_probe, state.probe) == ("reducing", False, order_id)
    assert trading.current(desk.pk) == state


def test_a_second_order_can_not_try_beside_the_first(desk: BrokerAccount) -> None:
    half_open(desk)
    first = uuid4()
    assert tries(desk, first)

    assert not tries(desk, uuid4())
    with transaction.atomic(), pytest.raises(ProbeTaken):
        trading.claim_probe(BrokerAccount.lock(desk.pk), uuid4())
    assert row().probe == first


def test_no_order_tries_while_the_breaker_is_closed_or_open(desk: BrokerAccount) -> None:
    with transaction.atomic(), pytest.raises(ProbeTaken):
        trading.claim_probe(BrokerAccount.lock(desk.pk), uuid4())
    trip(desk)
    with transaction.atomic(), pytest.raises(ProbeTaken):
        trading.claim_probe(BrokerAccount.lock(desk.pk), uuid4())

    assert row().probe is None


def test_of_two_processes_one_order_tries(desk: BrokerAccount) -> None:
    trip(desk)
    cool_down(desk)
    with transaction.atomic():
        BrokerAccount.lock(desk.pk)
        both = [
            other_process.start(
                "tests.risk.trading_desk", str(desk.pk), "claim", broker="http://127.0.0.1:9"
            )
            for _ in range(2)
        ]
        until(lambda: waiting_for_a_lock() == 2, seconds=20)

    told = [process.communicate(timeout=20)[0].strip() for process in both]
    assert sorted(told) == ["False", "True"]
    assert row().probe is not None


def waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        (count,) = cursor.fetchone()
    return int(count)


def test_an_order_that_was_taken_closes_the_breaker(desk: BrokerAccount) -> None:
    half_open(desk)
    tries(desk, uuid4())

    trading.note_outcomes(desk.pk, [outcome_of(desk, failed=False)], LIMITS)

    assert judged(desk) == TradingState()
    control = row()
    assert (control.trips, control.probe, control.retry_at) == (0, None, None)
    assert history()[-1] == ("closed", "half_open", "closed")
    assert standing("breaker_open") == []


def test_what_failed_before_it_closed_counts_no_more(desk: BrokerAccount) -> None:
    earlier = failures(5)
    half_open(desk)
    tries(desk, uuid4())
    trading.note_outcomes(desk.pk, [outcome_of(desk, failed=False)], LIMITS)

    trading.note_outcomes(desk.pk, earlier, LIMITS)
    assert trading.current(desk.pk).state == "active"

    trading.note_outcomes(desk.pk, failures(5), LIMITS)
    assert trading.current(desk.pk).state == "reducing"


def test_an_order_that_failed_opens_it_again_for_twice_as_long(desk: BrokerAccount) -> None:
    waited = []
    for _ in range(6):
        if row().breaker == "closed":
            trip(desk)
        else:
            cool_down(desk)
            assert tries(desk, uuid4())
            trading.note_outcomes(desk.pk, [outcome_of(desk, failed=True)], LIMITS)
        control = row()
        assert control.retry_at is not None and control.opened_at is not None  # noqa: PT018
        waited.append((control.retry_at - control.opened_at).total_seconds())

    assert waited == [300, 600, 1200, 2400, 2400, 2400]
    assert row().trips == 6
    assert codes(trading.current(desk.pk)) == ["probe_failed", "consecutive_failures"]


def test_the_alert_is_critical_from_the_second_time_on(desk: BrokerAccount) -> None:
    half_open(desk)
    assert standing("breaker_open") == [("orders", "warning")]
    tries(desk, uuid4())

    trading.note_outcomes(desk.pk, [outcome_of(desk, failed=True)], LIMITS)

    assert standing("breaker_open") == [("orders", "critical")]


def test_other_orders_outcomes_decide_nothing_while_one_tries(desk: BrokerAccount) -> None:
    half_open(desk)
    order_id = uuid4()
    tries(desk, order_id)
    before = history()

    success = Outcome(at=database_now(), failed=False, order_id=uuid4())
    trading.note_outcomes(desk.pk, [*failures(20), success], LIMITS)

    assert (row().breaker, row().probe) == ("half_open", order_id)
    assert history() == before


def test_an_order_that_ended_without_a_word_makes_room(desk: BrokerAccount) -> None:
    half_open(desk)
    order_id = uuid4()
    tries(desk, order_id)

    trading.free_probe(desk.pk, uuid4(), "Another order.")
    assert row().probe == order_id
    trading.free_probe(desk.pk, order_id, "It was never sent.")
    trading.free_probe(desk.pk, order_id, "It was never sent.")

    assert judged(desk).may_probe
    assert [kind for kind, *_ in history()].count("probe") == 3  # half-open, taken, freed once


def test_no_order_tries_where_something_else_reduces(desk: BrokerAccount) -> None:
    half_open(desk)

    assert not judged(desk, figures(buying_power="1")).may_probe
    assert judged(desk).may_probe
    trading.set_state(desk.pk, "reducing", reason="To get out.", actor="ann")
    assert not judged(desk).may_probe


def test_a_halt_bars_the_order_that_tries_too(desk: BrokerAccount) -> None:
    half_open(desk)
    tries(desk, uuid4())

    trading.set_state(desk.pk, "halted", reason="Stop.", actor="ann")

    assert trading.current(desk.pk).probe is None
    assert trading.current(desk.pk).state == "halted"


# --- levels --------------------------------------------------------------------------------------


def test_a_level_ends_when_it_is_left_not_by_trying(desk: BrokerAccount) -> None:
    low = judged(desk, figures(buying_power="999.99"))
    assert (low.state, low.breaker, low.may_probe) == ("reducing", "open", False)
    assert codes(low) == ["buying_power_low"]
    assert trading.current(desk.pk).state == "reducing"
    assert standing("breaker_open") == [("buying_power_low", "warning")]

    assert judged(desk, figures(buying_power="1000")) == TradingState()

    assert trading.current(desk.pk).state == "active"
    assert standing("breaker_open") == []
    assert history() == [("tripped", "closed", "open"), ("closed", "open", "closed")]


def test_the_loss_is_measured_from_the_first_equity_of_the_exchanges_day(
    account: BrokerAccount,
) -> None:
    def at(moment: str, equity: str) -> list[str]:
        asked_at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
        return codes(judged(account, figures(equity=equity, asked_at=asked_at)))

    assert at("2026-11-20 05:00", "100000") == []  # midnight in New York
    assert at("2026-11-20 15:00", "102000") == []
    assert at("2026-11-20 16:00", "95000.01") == []
    assert at("2026-11-20 17:00", "95000") == ["equity_drop"]
    assert at("2026-11-21 04:59", "95000") == ["equity_drop"]
    assert at("2026-11-21 05:00", "95000") == []  # another day
    assert (row().session_day, row().session_equity) == (date(2026, 11, 21), 95000)


def test_figures_of_the_day_before_that_come_late_begin_no_session(
    account: BrokerAccount,
) -> None:
    judged(account, figures(equity="90000", asked_at=datetime(2026, 11, 21, 5, 0, tzinfo=UTC)))
    judged(account, figures(equity="100000", asked_at=datetime(2026, 11, 21, 4, 59, tzinfo=UTC)))

    assert (row().session_day, row().session_equity) == (date(2026, 11, 21), 90000)


@pytest.mark.parametrize("equity", ["NaN", "Infinity", "1E+20"])
def test_an_equity_that_is_none_begins_no_session_and_lets_nothing_pass(
    account: BrokerAccount, equity: str
) -> None:
    state = judged(account, figures(equity=equity))

    assert (state.state, codes(state)) == ("reducing", ["equity_drop"])
    assert row().session_equity is None
    assert judged(account).state == "active"
    assert row().session_equity == 100_000


def test_an_order_that_changes_nothing_costs_one_query(desk: BrokerAccount) -> None:
    with transaction.atomic():
        locked = BrokerAccount.lock(desk.pk)
        read = figures(equity="99000")
        with CaptureQueriesContext(connection) as queries:
            trading.under_lock(locked, read, LIMITS)

    assert len(queries) == 1


def test_the_last_look_before_an_order_is_sent_costs_one_query(desk: BrokerAccount) -> None:
    with CaptureQueriesContext(connection) as queries:
        trading.current(desk.pk)

    assert len(queries) == 1


def test_a_level_that_lasts_is_told_once(desk: BrokerAccount) -> None:
    for buying_power in ("999", "998", "500"):
        judged(desk, figures(buying_power=buying_power))

    assert len(history()) == 1
    assert Alert.objects.get(code="breaker_open").seen_count == 1


def test_the_clock_ends_a_level_by_what_is_stored(desk: BrokerAccount) -> None:
    judged(desk, figures(buying_power="1"))
    stored(desk, buying_power="50000")

    trading.review(desk.pk)

    assert trading.current(desk.pk).state == "active"
    assert standing("breaker_open") == []


def test_the_clock_begins_a_level_by_what_is_stored(desk: BrokerAccount) -> None:
    stored(desk, equity="90000")

    trading.review(desk.pk)

    assert codes(trading.current(desk.pk)) == ["equity_drop"]
    assert standing("breaker_open") == [("equity_drop", "critical")]


def test_the_clock_writes_nothing_where_nothing_is_due(desk: BrokerAccount) -> None:
    stored(desk)

    with CaptureQueriesContext(connection) as queries:
        trading.review(desk.pk)

    written = [each["sql"] for each in queries if "risk_trading" in each["sql"]]
    assert [sql for sql in written if not sql.startswith("SELECT")] == []


def test_stored_figures_older_than_those_that_count_change_nothing(desk: BrokerAccount) -> None:
    stored(desk, buying_power="50000")
    judged(desk, figures(buying_power="1"))

    trading.review(desk.pk)

    assert trading.current(desk.pk).state == "reducing"


def stored(account: BrokerAccount, equity: str = "100000", buying_power: str = "50000") -> None:
    """The broker's figures as they were last read."""
    account.equity, account.buying_power = Decimal(equity), Decimal(buying_power)
    account.as_of = database_now()
    account.save()


# --- the books' age ------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "expected"), [(295, "active"), (305, "reducing")])
def test_books_that_nobody_compared_for_long_let_nothing_new_pass(
    desk: BrokerAccount, age: float, expected: str
) -> None:
    compared(desk, ago=age)

    assert judged(desk).state == trading.current(desk.pk).state == expected


def test_a_comparison_makes_the_books_good_again(desk: BrokerAccount) -> None:
    compared(desk, ago=3600)
    (reason,) = judged(desk).reasons
    assert (reason.code, reason.limit) == ("books_old", 300)
    assert reason.actual is not None
    assert 3600 <= reason.actual < 3700
    trading.review(desk.pk)
    assert standing("books_old") == [("main", "critical")]

    compared(desk, ago=0)

    assert judged(desk).state == "active"
    trading.review(desk.pk)
    assert standing("books_old") == []


def test_books_of_an_account_that_is_not_watched_may_be_old(desk: BrokerAccount) -> None:
    compared(desk, ago=3600)
    values = {"reconcile_mode": "off"}
    change(account=desk, strategy=None, values=values, reason="Not watched.", actor="test")

    assert judged(desk).state == trading.current(desk.pk).state == "active"


# --- the override --------------------------------------------------------------------------------


def test_a_person_overrides_the_breaker_until_a_moment(desk: BrokerAccount) -> None:
    trip(desk)
    judged(desk, figures(buying_power="1"))
    until_then = database_now() + timedelta(minutes=10)

    trading.override(desk.pk, until=until_then, reason="The broker said why.", actor="ann")

    state = judged(desk, figures(buying_power="1"))
    assert (state.state, state.breaker, state.until) == ("active", "closed", until_then)
    assert codes(state) == ["breaker_overridden"]
    assert trading.current(desk.pk) == state
    assert standing("breaker_overridden") == [("main", "warning")]
    change_row = TradingChange.objects.get(kind="override")
    assert (change_row.actor, change_row.to_state) == ("ann", "overridden")
    assert change_row.figures["reasons"][0]["code"] == "consecutive_failures"


def test_while_it_is_overridden_no_failure_opens_it(desk: BrokerAccount) -> None:
    override(desk)
    before = history()

    trading.note_outcomes(desk.pk, failures(50), LIMITS)

    assert trading.current(desk.pk).state == "active"
    assert history() == before


def test_after_the_override_what_failed_before_it_counts_no_more(desk: BrokerAccount) -> None:
    earlier = failures(5)
    trading.note_outcomes(desk.pk, earlier, LIMITS)
    override(desk)
    end_of_override(desk)

    trading.note_outcomes(desk.pk, earlier, LIMITS)

    assert judged(desk) == TradingState()
    assert history()[-1] == ("override", "overridden", "closed")
    assert standing("breaker_overridden") == []


def test_after_the_override_what_still_goes_wrong_counts(desk: BrokerAccount) -> None:
    override(desk)
    meanwhile = failures(5)
    judged(desk, figures(buying_power="1"))
    end_of_override(desk)

    assert codes(trading.current(desk.pk)) == ["buying_power_low"]
    trading.note_outcomes(desk.pk, meanwhile, LIMITS)

    assert codes(trading.current(desk.pk)) == ["buying_power_low", "consecutive_failures"]


def test_an_override_lifts_neither_a_persons_halt_nor_old_books(desk: BrokerAccount) -> None:
    override(desk)

    compared(desk, ago=3600)
    assert judged(desk).state == "reducing"
    trading.set_state(desk.pk, "halted", reason="Stop.", actor="bob")
    assert judged(desk).state == "halted"


def test_an_override_ends_the_try_that_is_under_way(desk: BrokerAccount) -> None:
    half_open(desk)
    tries(desk, uuid4())
    tried = outcome_of(desk, failed=True)

    override(desk)
    trading.note_outcomes(desk.pk, [tried], LIMITS)

    assert (row().breaker, row().probe) == ("closed", None)


def test_a_person_ends_an_override_before_its_time(desk: BrokerAccount) -> None:
    override(desk)
    judged(desk, figures(buying_power="1"))

    told = trading.end_override(desk.pk, reason="Done.", actor="ann")
    trading.end_override(desk.pk, reason="Done.", actor="ann")

    assert codes(told) == ["buying_power_low"]
    assert [kind for kind, *_ in history()].count("override") == 2


def test_an_override_needs_an_end_that_is_to_come_and_a_reason(desk: BrokerAccount) -> None:
    trip(desk)
    later = database_now() + timedelta(minutes=1)

    with pytest.raises(ValueError, match="future"):
        trading.override(desk.pk, until=database_now(), reason="Now.", actor="ann")
    with pytest.raises(ValueError, match="Say why"):
        trading.override(desk.pk, until=later, reason="", actor="ann")

    assert trading.current(desk.pk).state == "reducing"
    assert len(history()) == 1


def override(account: BrokerAccount) -> None:
    later = database_now() + timedelta(minutes=10)
    trading.override(account.pk, until=later, reason="I look at it.", actor="ann")


def end_of_override(account: BrokerAccount) -> None:
    """Plays that its time is over."""
    TradingControl.objects.filter(account=account).update(override_until=database_now())
    trading.review(account.pk)


# --- restarts ------------------------------------------------------------------------------------


def active(account: BrokerAccount) -> None:
    judged(account)


def reducing(account: BrokerAccount) -> None:
    trading.set_state(account.pk, "reducing", reason="To get out.", actor="ann")


def halted(account: BrokerAccount) -> None:
    trading.set_state(account.pk, "halted", reason="Stop.", actor="ann")


def low(account: BrokerAccount) -> None:
    judged(account, figures(equity="1", buying_power="1"))


def trying(account: BrokerAccount) -> None:
    half_open(account)
    tries(account, uuid4())


def open_again(account: BrokerAccount) -> None:
    trying(account)
    trading.note_outcomes(account.pk, [outcome_of(account, failed=True)], LIMITS)


@pytest.mark.parametrize(
    "made", [active, reducing, halted, trip, half_open, trying, open_again, low, override]
)
def test_every_state_survives_a_restart(desk: BrokerAccount, made: object) -> None:
    assert callable(made)
    made(desk)
    here = trading.current(desk.pk)

    process = other_process.start(
        "tests.risk.trading_desk", str(desk.pk), "state", broker="http://127.0.0.1:9"
    )

    assert process.communicate(timeout=30)[0].strip() == str(asdict(here))


def test_what_is_rolled_back_leaves_no_trace(desk: BrokerAccount) -> None:
    half_open(desk)

    with transaction.atomic():
        tries(desk, uuid4())
        transaction.set_rollback(True)

    assert judged(desk).may_probe


def test_the_accounts_limits_are_the_breakers(desk: BrokerAccount) -> None:
    values = {"breaker_consecutive_failures": 2, "breaker_cooldown_seconds": 7}
    change(account=desk, strategy=None, values=values, reason="Tighter.", actor="test")

    trading.note_outcomes(desk.pk, failures(2), in_force(desk.pk))

    control = row()
    assert control.opened_at is not None
    assert control.retry_at == control.opened_at + timedelta(seconds=7)
