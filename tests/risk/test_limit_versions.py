"""Versions of limits: windows, two changes at once, and the second person (SPEC K9)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount, Strategy
from risk.exchange import next_open
from risk.figures import database_now
from risk.limit_values import KEYS, Limits, own, resolve, standing
from risk.limit_windows import read_end
from risk.limits import (
    Decision,
    End,
    MayNotDecide,
    NotDecided,
    Starts,
    assess,
    change,
    decide,
    in_force,
)
from risk.limits import to_come as coming
from risk.loosening import LOOSENS, NEITHER, loosened
from risk.models import RiskLimits

pytestmark = pytest.mark.django_db

Status = RiskLimits.Status
HOUR = timedelta(hours=1)
Change = Callable[..., RiskLimits]


@pytest.fixture
def changed(account: BrokerAccount) -> Change:
    """Changes limits of the account, or of a strategy."""

    def make(
        *,
        strategy: Strategy | None = None,
        author: User | None = None,
        starts: Starts = "now",
        ends_at: End = None,
        **values: Any,
    ) -> RiskLimits:
        return change(
            account=account,
            strategy=strategy,
            values=values,
            reason="The test.",
            actor="test",
            author=author,
            starts=starts,
            ends_at=ends_at,
        )

    return make


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_user("ann")


@pytest.fixture
def eve(db: None) -> User:
    """May decide."""
    user = User.objects.create_user("eve")
    user.user_permissions.add(Permission.objects.get(codename="decide_risklimits"))
    return User.objects.get(pk=user.pk)


def moved(row: RiskLimits, by: timedelta) -> None:
    """The row's window, as if time had passed (or not yet)."""
    ends_at = None if row.ends_at is None else row.ends_at + by
    RiskLimits.objects.filter(pk=row.pk).update(starts_at=row.starts_at + by, ends_at=ends_at)


def in_use(row: RiskLimits) -> bool:
    return RiskLimits.objects.get(pk=row.pk).in_use


# Windows


@pytest.mark.parametrize(
    ("offset", "holds"),
    [
        (timedelta(microseconds=-1), False),
        (timedelta(0), True),
        (2 * HOUR - timedelta(microseconds=1), True),
        (2 * HOUR, False),
        (2 * HOUR + timedelta(microseconds=1), False),
    ],
)
def test_a_version_holds_from_its_start_until_just_before_its_end(
    changed: Change, offset: timedelta, holds: bool
) -> None:
    row = changed(max_positions=5, ends_at=2 * HOUR)

    found = own(standing([row], row.starts_at + offset), None)

    assert found == ({"max_positions": 5} if holds else {})


def test_a_temporary_change_returns_by_itself_and_leaves_other_changes_alone(
    account: BrokerAccount, changed: Change
) -> None:
    changed(max_positions=10, buy_offset=Decimal(7))
    temporary = changed(max_positions=5, ends_at=HOUR)
    changed(buy_offset=Decimal(8))
    assert in_force(account.pk).max_positions == 5

    moved(temporary, -HOUR)

    limits = in_force(account.pk)
    assert (limits.max_positions, limits.buy_offset) == (10, 8)


def test_a_lasting_change_of_the_same_key_outlasts_a_temporary_one(
    account: BrokerAccount, changed: Change
) -> None:
    temporary = changed(max_positions=5, ends_at=HOUR)
    changed(max_positions=7)
    assert in_force(account.pk).max_positions == 7

    moved(temporary, -HOUR)

    assert in_force(account.pk).max_positions == 7


def test_of_two_versions_of_a_key_the_one_that_starts_last_holds_and_then_the_higher_one(
    changed: Change,
) -> None:
    scheduled = changed(max_positions=5, starts="next_session")
    at_once = changed(max_positions=7)
    after, start = scheduled.starts_at, at_once.starts_at
    alike = RiskLimits(version=9, starts_at=start, changed=["max_positions"], max_positions=8)

    for rows in ([scheduled, at_once], [at_once, scheduled]):
        assert own(standing(rows, after), None) == {"max_positions": 5}
    for rows in ([alike, at_once], [at_once, alike]):
        assert own(standing(rows, start), None) == {"max_positions": 8}


def test_a_temporarily_emptied_value_falls_back_and_returns(
    account: BrokerAccount, changed: Change
) -> None:
    changed(max_positions=10)
    temporary = changed(max_positions=None, ends_at=HOUR)
    assert in_force(account.pk).max_positions == 20

    moved(temporary, -HOUR)

    assert in_force(account.pk).max_positions == 10


def test_a_change_for_the_next_session_starts_by_itself_and_undoes_nothing_else(
    account: BrokerAccount, changed: Change
) -> None:
    began = database_now()
    row = changed(max_positions=5, starts="next_session")
    assert next_open(began) == row.starts_at > began
    changed(buy_offset=Decimal(8))
    assert in_force(account.pk).max_positions == 20

    moved(row, began - row.starts_at)

    limits = in_force(account.pk)
    assert (limits.max_positions, limits.buy_offset) == (5, 8)


def test_a_temporary_change_may_begin_with_the_next_session(changed: Change) -> None:
    row = changed(max_positions=5, starts="next_session", ends_at=2 * HOUR)

    assert row.ends_at == row.starts_at + 2 * HOUR


@pytest.mark.parametrize(
    ("ends_at", "starts"),
    [
        (timedelta(0), "now"),
        (-HOUR, "now"),
        (datetime(2020, 1, 2, 16, 0, tzinfo=UTC), "now"),
        (timedelta(days=366, seconds=1), "now"),
        (timedelta(days=999_999), "now"),
    ],
)
def test_an_end_that_is_past_or_too_far_is_refused_and_changes_nothing(
    changed: Change, ends_at: End, starts: Starts
) -> None:
    with pytest.raises(ValidationError, match="temporary"):
        changed(max_positions=5, ends_at=ends_at, starts=starts)

    assert not RiskLimits.objects.exists()


def test_an_end_before_the_next_session_is_refused_for_a_change_that_starts_with_it(
    changed: Change,
) -> None:
    start = next_open(database_now())

    with pytest.raises(ValidationError, match="after it starts"):
        changed(max_positions=5, ends_at=start, starts="next_session")

    assert changed(
        max_positions=5, ends_at=start + timedelta(seconds=1), starts="next_session"
    ).ends_at == start + timedelta(seconds=1)


def test_an_end_is_read_in_exchange_time_or_as_a_length() -> None:
    assert read_end("2026-11-20 16:00") == datetime(2026, 11, 20, 21, 0, tzinfo=UTC)
    assert read_end("2026-07-20T16:00") == datetime(2026, 7, 20, 20, 0, tzinfo=UTC)
    assert (read_end("90m"), read_end("2h"), read_end("3 d")) == (1.5 * HOUR, 2 * HOUR, 72 * HOUR)
    assert read_end("  ") is None
    for wrong in ("tomorrow", "16:00", "2026-13-01 10:00", "1e3h", "-2h"):
        with pytest.raises(ValidationError, match="is no end"):
            read_end(wrong)


def test_the_order_path_reads_only_what_may_still_matter_in_one_query(
    account: BrokerAccount, strategy: Strategy, changed: Change
) -> None:
    for number in range(5):
        changed(max_positions=number)
    temporary = changed(buy_offset=Decimal(3), ends_at=HOUR)
    moved(temporary, -HOUR)
    changed(max_positions=2, strategy=strategy)
    scheduled = changed(sell_offset=Decimal(1), starts="next_session")

    with CaptureQueriesContext(
        connection,
    ) as queries:
        limits = in_force(account.pk, strategy.pk)

    assert len(queries) == 1
    assert (limits.max_positions, limits.buy_offset) == (2, 15)
    in_use = RiskLimits.objects.filter(in_use=True)
    assert set(in_use.values_list("strategy", "version")) == {
        (None, 5),
        (strategy.pk, 1),
        (None, scheduled.version),
    }


def test_a_version_that_still_says_one_of_its_keys_stays_in_use(
    account: BrokerAccount, changed: Change
) -> None:
    first = changed(max_positions=5, buy_offset=Decimal(3))
    changed(max_positions=6)
    assert in_use(first)

    changed(buy_offset=Decimal(4))

    assert not in_use(first)
    assert in_force(account.pk) == replace(Limits(), max_positions=6, buy_offset=Decimal(4))


def test_a_temporary_change_takes_nothing_under_it_out_of_use(changed: Change) -> None:
    lasting = changed(max_positions=5)

    changed(max_positions=6, ends_at=HOUR)

    assert in_use(lasting)


def test_the_history_holds_what_was_before(changed: Change) -> None:
    changed(max_positions=5, duplicate_guard=False)

    row = changed(max_positions=None, duplicate_guard=True, buy_offset=Decimal("2.50"))

    assert row.changed == ["max_positions", "duplicate_guard", "buy_offset"]
    assert row.before == {"max_positions": "5", "duplicate_guard": "no", "buy_offset": ""}


@pytest.mark.django_db(transaction=True)
def test_two_changes_at_once_are_two_versions_and_both_hold(
    account: BrokerAccount, strategy: Strategy
) -> None:
    def one(number: int) -> int:
        try:
            key = KEYS[number % 2]
            row = change(
                account=account,
                strategy=strategy if number >= 8 else None,
                values={key: 3},
                reason="At once.",
                actor="test",
            )
            return row.version
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(one, range(16)))

    assert sorted(versions) == sorted([*range(1, 9), *range(1, 9)])
    limits = in_force(account.pk, strategy.pk)
    assert [getattr(limits, key) for key in KEYS[:2]] == [3, 3]


def test_a_strategy_of_another_account_is_refused(changed: Change) -> None:
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")
    strategy = Strategy.objects.create(account=other, name="rsi")

    with pytest.raises(ValidationError, match="not a strategy of the account"):
        changed(max_positions=5, strategy=strategy)

    assert not RiskLimits.objects.exists()


# What loosens


def test_every_key_is_said_to_loosen_in_some_direction_or_in_none() -> None:
    assert set(KEYS) == set(LOOSENS) | NEITHER
    assert not set(LOOSENS) & NEITHER


_D = Decimal


@pytest.mark.parametrize(
    ("key", "tight", "loose"),
    [
        ("max_positions", 19, 20),
        ("max_position_pct", _D("4.99"), _D(5)),
        ("max_exposure_pct", _D(149), _D(150)),
        ("max_net_exposure_pct", _D(100), None),
        ("max_sector_pct", _D(29), _D(30)),
        ("buying_power_buffer_pct", _D("1.01"), _D(1)),
        ("max_order_qty", _D(1), _D(2)),
        ("max_order_notional", _D(1), None),
        ("max_orders_per_minute", 59, 60),
        ("allowed_order_types", frozenset({"limit"}), frozenset({"limit", "stop"})),
        ("allowed_symbols", frozenset({"A"}), None),
        ("allowed_symbols", frozenset({"A"}), frozenset({"A", "B"})),
        ("blocked_symbols", frozenset({"A"}), frozenset()),
        ("allowed_sessions", frozenset({"regular"}), frozenset({"regular", "closed"})),
        ("allow_short", False, True),
        ("duplicate_guard", True, False),
        ("breaker_error_rate_pct", _D(9), _D(10)),
        ("breaker_min_orders", 9, 10),
        ("breaker_consecutive_failures", 4, 5),
        ("breaker_equity_drop_pct", _D(4), _D(5)),
        ("breaker_min_buying_power", _D(1001), _D(1000)),
        ("breaker_cooldown_seconds", 301, 300),
        ("max_slippage_pct", _D("0.4"), _D("0.5")),
        ("loosening_needs_approval", True, False),
        ("reconcile_mode", "manual", "off"),
    ],
)
def test_one_way_loosens_and_the_other_does_not(key: str, tight: Any, loose: Any) -> None:
    before, after = (replace(Limits(), **{key: value}) for value in (tight, loose))

    assert loosened(before, after) == [key]
    assert loosened(after, before) == []
    assert loosened(before, before) == []


def test_another_list_that_takes_and_gives_loosens_both_ways() -> None:
    sides = [replace(Limits(), blocked_symbols=frozenset(each)) for each in ("AB", "BC")]

    assert loosened(*sides) == ["blocked_symbols"]
    assert loosened(*reversed(sides)) == ["blocked_symbols"]


@pytest.mark.parametrize("seconds", [299, 301])
def test_any_other_window_of_the_breaker_may_let_it_trip_later(seconds: int) -> None:
    assert loosened(Limits(), replace(Limits(), breaker_window_seconds=seconds)) == [
        "breaker_window_seconds"
    ]


def test_offsets_do_not_loosen() -> None:
    other = replace(
        Limits(),
        buy_offset=_D(0),
        sell_offset=_D(0),
        offset_mode="absolute",
        dependents_activation="as_it_fills",
    )

    assert loosened(Limits(), other) == loosened(other, Limits()) == []


# The second person


def test_where_nobody_asks_for_a_second_person_a_loosening_holds_at_once(
    account: BrokerAccount, changed: Change
) -> None:
    assert changed(max_positions=30).status == Status.APPROVED
    assert in_force(account.pk).max_positions == 30


def test_a_tightening_never_waits(account: BrokerAccount, changed: Change) -> None:
    changed(loosening_needs_approval=True)

    assert changed(max_positions=10).status == Status.APPROVED
    assert in_force(account.pk).max_positions == 10


@pytest.mark.parametrize(
    "values",
    [
        {"max_positions": 21},
        {"loosening_needs_approval": False},
        {"loosening_needs_approval": None},
        {"max_positions": 10, "allow_short": True},
    ],
)
def test_a_loosening_waits_and_does_not_hold(
    account: BrokerAccount, changed: Change, values: dict[str, Any]
) -> None:
    changed(loosening_needs_approval=True)
    before = in_force(account.pk)

    row = changed(**values)

    assert row.status == Status.PROPOSED
    assert in_force(account.pk) == before


def test_emptying_a_value_whose_fall_back_is_looser_waits(
    account: BrokerAccount, strategy: Strategy, changed: Change
) -> None:
    changed(loosening_needs_approval=True, max_positions=10)
    changed(max_positions=5, strategy=strategy)

    assert changed(max_positions=None, strategy=strategy).status == Status.PROPOSED
    assert changed(max_positions=None).status == Status.PROPOSED
    assert in_force(account.pk, strategy.pk).max_positions == 5


def test_a_strategys_value_that_its_accounts_tighter_one_covers_loosens_nothing(
    strategy: Strategy, changed: Change
) -> None:
    changed(loosening_needs_approval=True, max_positions=10)

    assert changed(max_positions=15, strategy=strategy).status == Status.APPROVED
    assert in_force(strategy.account_id, strategy.pk).max_positions == 10


def test_an_accounts_change_that_only_loosens_a_strategys_waits(
    strategy: Strategy, changed: Change
) -> None:
    changed(loosening_needs_approval=True, buying_power_buffer_pct=1)
    changed(buying_power_buffer_pct="0.5", strategy=strategy)

    # The default is 1 too, but the strategy's own would hold.
    row = changed(buying_power_buffer_pct=None)

    assert row.status == Status.PROPOSED
    assert in_force(strategy.account_id, strategy.pk).buying_power_buffer_pct == 1


def test_a_change_that_tightens_now_and_loosens_when_another_ends_waits(
    account: BrokerAccount, changed: Change
) -> None:
    changed(max_positions=10)
    changed(max_positions=50, ends_at=HOUR)
    changed(loosening_needs_approval=True)

    assert changed(max_positions=40).status == Status.PROPOSED
    assert changed(max_positions=40, ends_at=HOUR / 2).status == Status.APPROVED
    assert in_force(account.pk).max_positions == 40


def test_whoever_approves_another_persons_change_makes_it_hold(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann)

    decided = decide(row.pk, "approve", user=eve, comment=" Looks right. ")

    assert in_force(account.pk).max_positions == 30
    assert (decided.status, decided.decided_by, decided.decision_comment) == (
        Status.APPROVED,
        eve,
        "Looks right.",
    )
    assert decided.decided_at is not None
    assert decided.starts_at == decided.decided_at > row.created_at


def test_a_rejected_change_never_holds(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann)

    decided = decide(row.pk, "reject", user=eve, comment="No.")

    assert (decided.status, decided.in_use) == (Status.REJECTED, False)
    assert in_force(account.pk).max_positions == 20


def waits(row: RiskLimits) -> bool:
    row.refresh_from_db()
    return row.status == Status.PROPOSED and row.decided_by is None


def test_nobody_decides_their_own(account: BrokerAccount, changed: Change, eve: User) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=eve)

    for decision in ("approve", "reject"):
        with pytest.raises(MayNotDecide):
            decide(row.pk, decision, user=eve, comment="Mine.")

    assert waits(row)
    assert in_force(account.pk).max_positions == 20


def test_the_database_itself_refuses_one_person_as_author_and_decider(
    changed: Change, eve: User
) -> None:
    row = changed(max_positions=10, author=eve)

    with pytest.raises(IntegrityError), transaction.atomic():
        RiskLimits.objects.filter(pk=row.pk).update(decided_by=eve)


def test_without_the_permission_or_a_comment_nothing_is_decided(
    changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30)

    with pytest.raises(MayNotDecide):
        decide(row.pk, "approve", user=ann, comment="Please.")
    with pytest.raises(ValueError, match="comment"):
        decide(row.pk, "approve", user=eve, comment="  ")

    assert waits(row)


def test_a_change_from_the_command_line_is_anybodys_to_decide_who_may(
    account: BrokerAccount, changed: Change, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    call_command("limits", "max_positions=30", reason="From the shell.")
    row = RiskLimits.objects.get(version=2)
    assert (row.status, row.author) == (Status.PROPOSED, None)

    decide(row.pk, "approve", user=eve, comment="Yes.")

    assert in_force(account.pk).max_positions == 30


def test_a_version_is_decided_once(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann)
    decide(row.pk, "reject", user=eve, comment="No.")

    for decision in ("approve", "reject"):
        with pytest.raises(NotDecided, match="rejected already"):
            decide(row.pk, decision, user=eve, comment="Yes after all.")

    assert in_force(account.pk).max_positions == 20
    row.refresh_from_db()
    assert row.decision_comment == "No."


@pytest.mark.django_db(transaction=True)
def test_of_two_decisions_at_once_one_counts(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann)

    def one(number: int) -> str:
        try:
            decision: Decision = "approve" if number % 2 else "reject"
            decide(row.pk, decision, user=eve, comment=decision)
        except NotDecided:
            return ""
        finally:
            connection.close()
        return decision

    with ThreadPoolExecutor(6) as pool:
        done = [each for each in pool.map(one, range(6)) if each]

    row.refresh_from_db()
    assert done == [row.decision_comment]
    assert in_force(account.pk).max_positions == (30 if done == ["approve"] else 20)


def test_a_base_that_moved_is_not_approved_but_may_be_rejected(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann)
    changed(max_positions=10)

    with pytest.raises(NotDecided, match="Version 3 has changed max_positions since"):
        decide(row.pk, "approve", user=eve, comment="Yes.")

    assert waits(row)
    assert in_force(account.pk).max_positions == 10
    assert decide(row.pk, "reject", user=eve, comment="No.").status == Status.REJECTED


def test_of_two_proposals_for_one_key_the_second_to_be_approved_has_moved(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    first, second = (changed(max_positions=count, author=ann) for count in (30, 40))
    decide(first.pk, "approve", user=eve, comment="Yes.")

    with pytest.raises(NotDecided, match="Version 2 has changed max_positions"):
        decide(second.pk, "approve", user=eve, comment="This as well.")

    assert in_force(account.pk).max_positions == 30


def test_a_change_of_another_key_or_owner_moves_nothing(
    account: BrokerAccount, strategy: Strategy, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann)
    changed(max_sector_pct=Decimal(20))
    changed(max_positions=5, strategy=strategy)

    decide(row.pk, "approve", user=eve, comment="Yes.")

    limits = in_force(account.pk)
    assert (limits.max_positions, limits.max_sector_pct) == (30, 20)
    assert in_force(account.pk, strategy.pk).max_positions == 5


def test_a_length_counts_from_the_approval_and_a_moment_stays(
    changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    end = database_now() + 2 * HOUR
    short = changed(max_positions=30, author=ann, ends_at=HOUR)
    fixed = changed(max_sector_pct=Decimal(40), author=ann, ends_at=end)
    moved(short, -HOUR)
    RiskLimits.objects.filter(pk=fixed.pk).update(starts_at=fixed.starts_at - HOUR)

    short, fixed = (decide(row.pk, "approve", user=eve, comment="Yes.") for row in (short, fixed))

    assert short.ends_at == short.starts_at + HOUR
    assert fixed.ends_at == end
    assert short.starts_at == short.decided_at


def test_what_has_ended_before_anyone_decided_is_not_approved(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    row = changed(max_positions=30, author=ann, ends_at=database_now() + HOUR)
    moved(row, -HOUR)

    with pytest.raises(NotDecided, match="Its end is past"):
        decide(row.pk, "approve", user=eve, comment="Late.")

    assert waits(row)
    assert in_force(account.pk).max_positions == 20


def test_a_proposal_for_the_next_session_starts_then_or_when_approved_later(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    early = changed(max_positions=30, author=ann, starts="next_session")
    late = changed(max_sector_pct=Decimal(40), author=ann, starts="next_session")
    moved(late, database_now() - HOUR - late.starts_at)

    assert decide(early.pk, "approve", user=eve, comment="Yes.").starts_at == early.starts_at
    decided = decide(late.pk, "approve", user=eve, comment="Yes.")

    assert decided.starts_at == decided.decided_at
    limits = in_force(account.pk)
    assert (limits.max_positions, limits.max_sector_pct) == (20, 40)


def test_what_waits_is_scheduled_or_temporary_is_to_come_and_nothing_else(
    account: BrokerAccount, changed: Change, ann: User, eve: User
) -> None:
    changed(loosening_needs_approval=True)
    rejected = changed(max_positions=40, author=ann)
    decide(rejected.pk, "reject", user=eve, comment="No.")
    proposed = changed(max_positions=30, author=ann)
    scheduled = changed(max_positions=3, starts="next_session")
    temporary = changed(max_positions=4, ends_at=HOUR)

    now = database_now()

    assert {(row.version, row.phase(now)) for row in coming(account.pk, now)} == {
        (proposed.version, "Waiting for a second person"),
        (scheduled.version, "Scheduled"),
        (temporary.version, "Temporary"),
    }


def test_an_assessment_says_what_holds_before_and_after_and_stores_nothing(
    account: BrokerAccount, strategy: Strategy
) -> None:
    judged = assess(account=account, strategy=None, values={"max_positions": "30"})

    assert (judged.before.max_positions, judged.after.max_positions) == (20, 30)
    assert judged.strategies == {strategy.pk: (Limits(), replace(Limits(), max_positions=30))}
    assert (judged.loosened, judged.waits) == (("max_positions",), False)
    assert not RiskLimits.objects.exists()


def test_nothing_set_is_the_default() -> None:
    assert resolve({}) == resolve({}, {}) == Limits()
