"""What people do with breaks, and what time does: each step locked, bounded, and in the history."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from threading import Thread
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from reconciliation import history, queue
from reconciliation.models import Break, BreakEvent, Kind
from reconciliation.queue import NotDone
from risk.figures import database_now
from tests.waiting import until

Status, What = Break.Status, BreakEvent.What
Make = Callable[..., Break]


@pytest.fixture
def make(account: BrokerAccount) -> Make:
    """Opens a break as a comparison does: a quantity of KO unless told otherwise."""

    def opened(symbol: str = "KO", *, ago: float = 0, **values: Any) -> Break:
        at = database_now() - timedelta(minutes=ago)
        given = {
            "account": account,
            "kind": Kind.QUANTITY,
            "subject": f"position/{symbol}",
            "symbol": symbol,
            "local": Decimal(100),
            "broker": Decimal(60),
            "severity": Break.Severity.WARNING,
            "first_seen": at,
            "last_seen": at,
            **values,
        }
        row = Break.objects.create(**given)
        history.note(row, What.OPENED, at=at)
        return row

    return opened


@pytest.fixture
def ann(db: None) -> User:
    return _somebody("ann")


@pytest.fixture
def ben(db: None) -> User:
    return _somebody("ben")


def _somebody(name: str) -> User:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_break"))
    return user


def _steps(row: Break) -> list[tuple[str, str, str]]:
    """What happened since it was opened: what, by whom, with what words."""
    return list(row.events.exclude(what=What.OPENED).values_list("what", "actor", "text"))


def _end(row: Break) -> None:
    with transaction.atomic():
        history.end(row, Status.HEALED, at=database_now())


# --- assigning ----------------------------------------------------------------------------------


def test_several_breaks_are_assigned_at_once_each_with_a_line_in_its_history(
    make: Make, ann: User, ben: User
) -> None:
    rows = [make("KO"), make("OKE")]

    changed = queue.assign([row.pk for row in rows], to=ben, by=ann)

    assert changed == 2
    for row in rows:
        row.refresh_from_db()
        assert row.assignee == ben
        assert _steps(row) == [("assigned", "ann", "to ben")]


def test_what_a_person_holds_already_is_not_assigned_to_them_again(make: Make, ann: User) -> None:
    row = make()

    assert queue.assign([row.pk], to=ann, by=ann) == 1
    assert queue.assign([row.pk], to=ann, by=ann) == 0
    assert len(_steps(row)) == 1


def test_a_break_is_given_back_to_nobody(make: Make, ann: User) -> None:
    row = make()
    queue.assign([row.pk], to=ann, by=ann)

    assert queue.assign([row.pk], to=None, by=ann) == 1
    row.refresh_from_db()
    assert row.assignee is None
    assert _steps(row)[-1] == ("assigned", "ann", "to nobody")


@pytest.mark.parametrize("lacks", ["is active", "may see breaks"])
def test_nothing_is_assigned_to_who_could_not_work_on_it(
    make: Make, ann: User, ben: User, lacks: str
) -> None:
    row = make()
    if lacks == "is active":
        User.objects.filter(pk=ben.pk).update(is_active=False)
    else:
        ben.user_permissions.clear()

    with pytest.raises(NotDone, match="may not see breaks"):
        queue.assign([row.pk], to=User.objects.get(pk=ben.pk), by=ann)
    row.refresh_from_db()
    assert (row.assignee, _steps(row)) == (None, [])


def test_an_ended_break_is_neither_assigned_nor_acknowledged(make: Make, ann: User) -> None:
    row = make()
    _end(row)
    before = _steps(row)

    assert queue.assign([row.pk], to=ann, by=ann) == 0
    assert queue.acknowledge([row.pk], by=ann) == 0
    row.refresh_from_db()
    assert (row.status, row.assignee, row.acknowledged_at) == (Status.HEALED, None, None)
    assert _steps(row) == before


def test_more_than_500_at_once_are_refused(make: Make, ann: User) -> None:
    row = make()
    ids = [row.pk, *range(-500, 0)]

    for act in (partial(queue.assign, to=ann, by=ann), partial(queue.acknowledge, by=ann)):
        with pytest.raises(NotDone, match="at most 500"):
            act(ids)
    assert _steps(row) == []


# --- commenting ---------------------------------------------------------------------------------


def test_a_comment_is_kept_with_its_author_even_after_the_end(make: Make, ann: User) -> None:
    row = make()
    _end(row)

    queue.comment(row, "  It was a split.  ", by=ann)

    assert _steps(row)[-1] == ("commented", "ann", "It was a split.")


@pytest.mark.parametrize("text", ["", " \n ", "x" * 2001])
def test_a_comment_says_something_and_is_not_a_book(make: Make, ann: User, text: str) -> None:
    row = make(kind=Kind.ORDER_MISSING)

    with pytest.raises(NotDone):
        queue.comment(row, text, by=ann)
    with pytest.raises(NotDone):
        queue.resolve(row, by=ann, comment=text)
    row.refresh_from_db()
    assert (row.status, _steps(row)) == (Status.OPEN, [])


# --- acknowledging ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.OPEN, Status.ESCALATED])
def test_acknowledging_keeps_who_and_when(make: Make, ann: User, status: str) -> None:
    row = make(status=status)

    assert queue.acknowledge([row.pk], by=ann, comment="On it.") == 1
    row.refresh_from_db()
    assert row.status == Status.ACKNOWLEDGED
    assert row.acknowledged_at is not None
    assert _steps(row) == [("acknowledged", "ann", "On it.")]


def test_a_break_that_waits_for_a_decision_goes_on_waiting(make: Make, ann: User) -> None:
    row = make(status=Status.CORRECTING)

    assert queue.acknowledge([row.pk], by=ann) == 1
    assert queue.acknowledge([row.pk], by=ann) == 0
    row.refresh_from_db()
    assert row.status == Status.CORRECTING
    assert row.acknowledged_at is not None


def test_one_that_waits_for_a_decision_is_acknowledged_again_after_it_escalated(
    make: Make, ann: User
) -> None:
    row = make(status=Status.CORRECTING)
    queue.acknowledge([row.pk], by=ann)
    queue.escalate(database_now() + timedelta(minutes=241))

    Break.objects.update(acknowledged_at=F("acknowledged_at") - timedelta(minutes=250))
    Break.objects.update(escalated_at=F("acknowledged_at") + timedelta(minutes=240))

    assert queue.acknowledge([row.pk], by=ann) == 1


def test_two_presses_acknowledge_once(make: Make, ann: User) -> None:
    row = make()

    assert [queue.acknowledge([row.pk], by=ann) for _ in range(2)] == [1, 0]
    assert len(_steps(row)) == 1


@pytest.mark.django_db(transaction=True)
def test_two_people_who_press_at_the_same_moment_leave_one_line(
    make: Make, ann: User, ben: User
) -> None:
    row = make()
    counts: list[int] = []

    def press(by: User) -> None:
        counts.append(queue.acknowledge([row.pk], by=by))
        connection.close()

    threads = [Thread(target=press, args=(by,)) for by in (ann, ben)]
    with transaction.atomic():
        BrokerAccount.lock(row.account_id)
        for thread in threads:
            thread.start()
        until(lambda: _waiting_for_a_lock() == 2)  # both have pressed, neither gets through
    for thread in threads:
        thread.join(timeout=10)

    assert sorted(counts) == [0, 1]
    assert len(_steps(row)) == 1


def _waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # else it stands still until the commit
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


# --- resolving ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (Kind.TRADE_BUST, "bust/1"),
        (Kind.ORDER_FILL, "overfill/1"),
        (Kind.ORDER_MISSING, "order/1"),
        (Kind.BUYING_POWER, "account/buying_power"),
    ],
)
def test_what_nothing_else_ends_a_person_resolves_with_a_comment(
    make: Make, ann: User, kind: str, subject: str
) -> None:
    row = make(kind=kind, subject=subject)

    queue.resolve(row, by=ann, comment="Settled with the broker.")

    row = Break.objects.get()
    assert row.status == Status.RESOLVED
    assert row.ended_at is not None
    assert _steps(row) == [("resolved", "ann", "Settled with the broker.")]


@pytest.mark.parametrize(
    ("kind", "subject", "status", "why"),
    [
        (Kind.QUANTITY, "position/KO", Status.OPEN, "ends by itself"),
        (Kind.ORDER_FILL, "order/1", Status.OPEN, "ends by itself"),
        (Kind.CASH, "account/cash", Status.OPEN, "ends by itself"),
        (Kind.TRADE_BUST, "bust/1", Status.CORRECTING, "Decide that first"),
    ],
)
def test_what_a_comparison_or_a_correction_ends_is_not_called_resolved(
    make: Make, ann: User, kind: str, subject: str, status: str, why: str
) -> None:
    row = make(kind=kind, subject=subject, status=status)

    with pytest.raises(NotDone, match=why):
        queue.resolve(row, by=ann, comment="Settled.")
    row.refresh_from_db()
    assert (row.status, row.ended_at, _steps(row)) == (status, None, [])


def test_what_has_ended_meanwhile_is_not_resolved_again(make: Make, ann: User) -> None:
    row = make(kind=Kind.TRADE_BUST, subject="bust/1")
    seen = Break.objects.get()
    _end(row)

    with pytest.raises(NotDone, match="has ended: healed"):
        queue.resolve(seen, by=ann, comment="Settled.")
    assert Break.objects.get().status == Status.HEALED


# --- escalating ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severity", "ago", "escalates"),
    [
        ("critical", 14.9, False),
        ("critical", 15, True),
        ("warning", 239, False),
        ("warning", 240, True),
    ],
)
def test_a_break_escalates_by_age_and_severity(
    make: Make, severity: str, ago: float, escalates: bool
) -> None:
    row = make(severity=severity, ago=ago)

    assert queue.escalate(database_now()) == int(escalates)
    row.refresh_from_db()
    assert (row.status == Status.ESCALATED) is escalates
    assert (row.escalated_at is not None) is escalates
    assert [step[:2] for step in _steps(row)] == [("escalated", "Ordinis")] * escalates
    assert Alert.objects.filter(code="break_escalated").count() == int(escalates)


def test_patience_is_a_setting(make: Make, settings: LazySettings) -> None:
    settings.BREAK_ESCALATES_CRITICAL_MINUTES = 3
    make(severity="critical", ago=4)

    assert queue.escalate(database_now()) == 1


def test_a_break_escalates_once_and_its_alert_ends_with_it(make: Make) -> None:
    row = make(ago=300)
    counts = [queue.escalate(database_now()) for _ in range(2)]
    alert = Alert.objects.get(code="break_escalated")
    row.refresh_from_db()

    assert counts == [1, 0]
    assert (alert.subject, alert.severity, alert.ended_at) == ("KO", "critical", None)
    assert "240 minutes unattended" in alert.message
    _end(row)
    alert.refresh_from_db()
    assert alert.ended_at is not None
    assert queue.escalate(database_now() + timedelta(days=1)) == 0


def test_acknowledging_gives_a_break_its_time_anew_and_then_it_escalates_again(
    make: Make, ann: User
) -> None:
    row = make(ago=300)
    queue.escalate(database_now())
    queue.acknowledge([row.pk], by=ann)

    now = database_now()
    assert queue.escalate(now) == 0
    assert queue.escalate(now + timedelta(minutes=239)) == 0
    assert queue.escalate(now + timedelta(minutes=241)) == 1
    assert queue.escalate(now + timedelta(minutes=242)) == 0
    row.refresh_from_db()
    assert row.status == Status.ESCALATED
    alert = Alert.objects.get(code="break_escalated")
    assert alert.seen_count == 2


def test_reopening_gives_a_break_its_time_anew(make: Make) -> None:
    row = make(ago=300)
    history.note(row, What.REOPENED, at=database_now() - timedelta(minutes=10))

    assert queue.escalate(database_now()) == 0
    assert queue.escalate(database_now() + timedelta(minutes=231)) == 1


def test_one_that_waits_for_a_decision_keeps_its_status_when_it_escalates(make: Make) -> None:
    row = make(ago=300, status=Status.CORRECTING)

    assert queue.escalate(database_now()) == 1
    row.refresh_from_db()
    assert row.status == Status.CORRECTING
    assert row.escalated_at is not None


def test_fifty_breaks_take_as_many_queries_as_five(make: Make, ann: User) -> None:
    def asked(count: int, start: int) -> list[int]:
        rows = [make(f"X{number}", ago=300) for number in range(start, start + count)]
        ids = [row.pk for row in rows]
        found = []
        for act in (
            partial(queue.escalate, database_now()),
            partial(queue.assign, ids, to=ann, by=ann),
            partial(queue.acknowledge, ids, by=ann),
        ):
            with CaptureQueriesContext(connection) as captured:
                assert act() == count
            found.append(len(captured))
        return found

    ann.has_perm("reconciliation.view_break")  # asked for once and kept

    assert asked(5, 0) == asked(50, 5)
