"""A problem is told once, again while it stands, and once more when it is over."""

import re
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.conf import settings as settings_
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts import kinds
from ordinis.alerts.channels import configured
from ordinis.alerts.jobs import tell
from ordinis.alerts.models import Alert, AlertMessage, end_alert, raise_alert
from ordinis.alerts.outbox import hand_over
from tests.alerts.conftest import Raise, Receiver, pass_time, states

pytestmark = pytest.mark.django_db(transaction=True)

WARNING = Alert.Severity.WARNING


def end(alert: Alert) -> None:
    end_alert(alert.account_id, code=alert.code, subject=alert.subject)


def test_a_problem_that_stands_is_told_once(ops: Receiver, problem: Raise) -> None:
    problem()
    tell()
    problem()
    tell()

    assert ops.titles == ["SIMULATED · main · To act on: Broker's stream down"]
    assert "The stream is down." in ops.last
    assert ops.messages[0]["type"] == "failure"
    assert states() == ["sent"]


def test_live_stands_in_the_title_of_a_live_accounts_alert(
    ops: Receiver, problem: Raise, account: BrokerAccount
) -> None:
    BrokerAccount.objects.update(mode="live")
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="paper")
    problem()
    problem(of=other, code="books_old", severity=WARNING)
    problem(of=None, code="process_silent")

    tell()

    assert ops.titles == ["LIVE, REAL MONEY · main, other · 2 to act on, 1 to look at"]
    assert "- other: The stream is down." in ops.last
    assert "- The stream is down." in ops.last


def test_the_message_links_to_the_page_of_the_alert(
    ops: Receiver, problem: Raise, settings: LazySettings
) -> None:
    settings.CONSOLE_URL = "https://desk.example"
    alert = problem()

    tell()

    page = reverse("admin:alerts_alert_change", args=(alert.pk,))
    assert ops.last.endswith(f"https://desk.example{page}")


@pytest.mark.parametrize(
    ("code", "subject", "page"),
    [
        ("break_orphan", "AAPL", "admin:reconciliation_break_changelist"),
        ("break_escalated", "BRK.B", "admin:reconciliation_break_changelist"),
        ("break_order_fill", "fill/17", None),
        ("break_cash", "cash", None),
        ("stream_down", "MAIN", None),
    ],
)
def test_the_message_of_a_position_s_break_links_to_the_break(
    ops: Receiver,
    problem: Raise,
    settings: LazySettings,
    code: str,
    subject: str,
    page: str | None,
) -> None:
    settings.CONSOLE_URL = "https://desk.example"
    alert = problem(code, subject)
    tell()
    told = ops.last
    end(alert)
    tell()

    of_alert = reverse("admin:alerts_alert_change", args=(alert.pk,))
    for said, state in ((told, "open"), (ops.last, "ended")):
        link = f"{reverse(page)}?q={subject}&state={state}" if page else of_alert
        assert said.endswith(f"\nhttps://desk.example{link}")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("break_order_external", "Open order that was not placed here"),
        ("scorecard_order_error_rate", "Scorecard order error rate"),
    ],
)
def test_the_title_says_the_kind_in_plain_words_and_an_unknown_one_as_its_code(
    ops: Receiver, problem: Raise, code: str, words: str
) -> None:
    problem(code)

    tell()

    assert ops.titles == [f"SIMULATED · main · To act on: {words}"]


def test_every_kind_that_is_documented_has_words() -> None:
    page = (settings_.BASE_DIR / "docs" / "alerts.md").read_text().partition("## The codes")[2]
    firsts = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    codes = {code for cell in firsts for code in re.findall(r"`(\w+)`", cell)}

    assert len(codes) > 35
    assert codes <= set(kinds._WORDS)


def test_twelve_orphans_make_one_message(ops: Receiver, problem: Raise) -> None:
    problem("polls_held_back", severity=WARNING, message="Polls are slow.")
    for number in range(12):
        problem("break_orphan", f"S{number}", message=f"S{number}: our book says 0.")

    tell()

    assert ops.titles == ["SIMULATED · main · 12 to act on, 1 to look at"]
    assert ops.last.startswith(
        "To act on: Position at the broker only (12)\n- S0: our book says 0."
    )
    assert states() == ["sent"] * 13


def test_a_message_of_very_many_stays_short_and_counts_the_rest(
    ops: Receiver, problem: Raise
) -> None:
    for number in range(49):
        problem("break_orphan", f"S{number}", message=f"S{number}: " + "our book says 0 " * 30)
    problem("books_old", severity=WARNING, message="The books are old. " * 20)

    tell()

    assert len(ops.last) < 2000
    shown = ops.last.count("- S")
    assert f"- and {49 - shown} more" in ops.last
    assert ops.last.endswith("And 1 more.")
    assert states() == ["sent"] * 50


def test_what_comes_within_the_window_goes_into_one_message(
    ops: Receiver, problem: Raise, settings: LazySettings
) -> None:
    settings.ALERT_BATCH_SECONDS = 5
    problem("break_orphan", "AAPL")
    tell()
    assert ops.messages == []
    pass_time(seconds=4)
    problem("break_orphan", "TSLA")
    tell()
    assert ops.messages == []

    pass_time(seconds=2)
    tell()

    assert ops.titles == ["SIMULATED · main · To act on: Position at the broker only (2)"]


@pytest.mark.parametrize(
    ("severity", "before", "after"), [("critical", 55, 10), ("warning", 235, 10)]
)
def test_a_problem_that_stands_for_long_is_told_again(
    ops: Receiver, problem: Raise, severity: str, before: float, after: float
) -> None:
    problem(severity=Alert.Severity(severity))
    tell()
    pass_time(minutes=before)
    tell()
    assert len(ops.messages) == 1

    problem(severity=Alert.Severity(severity))
    pass_time(minutes=after)
    tell()

    assert len(ops.messages) == 2
    assert "Still: The stream is down." in ops.last
    assert "seen 2 times." in ops.last


def test_a_problem_that_becomes_critical_is_told_at_once(ops: Receiver, problem: Raise) -> None:
    problem(severity=WARNING)
    tell()
    problem()
    tell()
    problem(severity=WARNING)
    tell()

    assert [title.rpartition(" · ")[2] for title in ops.titles] == [
        "To look at: Broker's stream down",
        "To act on: Broker's stream down",
    ]
    assert Alert.objects.get().severity == "critical"


def test_the_end_of_a_problem_that_was_told_is_told_once(ops: Receiver, problem: Raise) -> None:
    alert = problem()
    tell()
    end(alert)
    tell()
    pass_time(days=2)
    tell()

    assert len(ops.messages) == 2
    assert ops.titles[-1] == "SIMULATED · main · Over: Broker's stream down"
    assert re.search(r"- Over after \d s\. It was: The stream is down\.$", ops.last)
    assert ops.messages[-1]["type"] == "success"


def test_a_problem_over_before_it_was_told_is_not_told(ops: Receiver, problem: Raise) -> None:
    end(problem(severity=WARNING))

    tell()
    tell()

    assert ops.messages == []
    assert states() == ["suppressed"]
    assert AlertMessage.objects.get().reason == "It was over before it was told."
    assert Alert.objects.get().told_ended_at is not None


def test_a_problem_over_while_its_message_waits_is_not_told(
    ops: Receiver, problem: Raise, settings: LazySettings
) -> None:
    settings.ALERT_BATCH_SECONDS = 5
    alert = problem(severity=WARNING)
    tell()
    end(alert)
    pass_time(seconds=6)
    tell()

    assert ops.messages == []
    assert states() == ["suppressed"]


def test_a_critical_problem_is_told_though_it_is_over(ops: Receiver, problem: Raise) -> None:
    end(problem())

    tell()
    tell()

    assert [title.rpartition(" · ")[2] for title in ops.titles] == [
        "To act on: Broker's stream down",
        "Over: Broker's stream down",
    ]


def test_the_end_is_told_only_where_the_problem_was(
    both: tuple[Receiver, Receiver], problem: Raise, settings: LazySettings
) -> None:
    settings.ALERT_RULES = "ops:critical,mail:warning"
    alert = problem(severity=WARNING)
    tell()
    end(alert)
    tell()

    ops, mail = both
    assert ops.messages == []
    assert len(mail.messages) == 2


def test_a_warning_that_comes_and_goes_is_told_at_most_every_ten_minutes(
    ops: Receiver, problem: Raise
) -> None:
    for _ in range(3):
        alert = problem(severity=WARNING)
        tell()
        end(alert)
        tell()
    assert len(ops.messages) == 2  # that it came, and that it went

    problem(severity=WARNING)
    AlertMessage.objects.update(sent_at=F("sent_at") - timedelta(minutes=11))
    tell()

    assert len(ops.messages) == 3
    assert states() == ["sent", "sent", "suppressed", "suppressed", "sent"]


def test_what_is_over_is_not_told_again_though_another_channel_still_waits(
    both: tuple[Receiver, Receiver], problem: Raise
) -> None:
    ops, mail = both
    mail.status = 500
    alert = problem()
    tell()
    end(alert)
    tell()
    pass_time(minutes=61)
    tell()

    told = [text["message"] for text in ops.messages if "The stream is down." in text["message"]]
    assert len(told) == 2
    assert "Over after" in told[-1]
    assert states(alert=alert, channel="ops") == ["sent", "sent"]


def test_a_critical_problem_that_comes_back_is_told_at_once(ops: Receiver, problem: Raise) -> None:
    first = problem()
    tell()
    end(first)
    problem()
    tell()
    tell()

    assert len(Alert.objects.all()) == 2
    assert sum("to act on" in title.lower() for title in ops.titles) == 2
    assert sum(text["message"].count("Over after") for text in ops.messages) == 1


def test_without_a_channel_alerts_stay_in_the_console_and_nothing_piles_up(
    problem: Raise, receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    over, standing = problem(), problem("books_old")
    end(over)
    tell()
    tell()
    assert AlertMessage.objects.count() == 0
    assert not Alert.objects.filter(last_told_at=None).exists()
    assert Alert.objects.get(pk=over.pk).told_ended_at is not None

    # A channel that is set up later hears of what still stands, not of the past.
    receiver = receivers()
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={receiver.address}")
    pass_time(minutes=61)
    tell()

    assert receiver.titles == [
        "SIMULATED · main · To act on: Book not compared with the broker for long"
    ]
    assert "Still" not in receiver.last
    assert AlertMessage.objects.get().alert == standing


def test_messages_of_a_channel_that_is_gone_are_withdrawn(
    ops: Receiver, problem: Raise, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem()
    hand_over(configured())
    monkeypatch.delenv("ORDINIS_ALERT_URLS")
    tell()
    assert states() == ["pending"]

    pass_time(minutes=16)
    tell()

    assert states() == ["suppressed"]
    assert ops.messages == []


def test_two_that_hand_over_at_once_make_one_message(
    ops: Receiver, problem: Raise, settings: LazySettings
) -> None:
    problem()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(10)
        hand_over(configured())
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)

    assert states() == ["pending"]
    assert Alert.objects.get().times_told == 1


def test_an_alert_that_other_work_holds_is_left_for_the_next_run(
    ops: Receiver, problem: Raise
) -> None:
    problem()
    problem("books_old")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            problem("books_old")  # the work that raised it again has not committed
            held.set()
            assert done.wait(20)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    tell()
    assert ops.titles == ["SIMULATED · main · To act on: Broker's stream down"]
    done.set()
    holder.join(10)

    tell()

    assert ops.titles[1:] == [
        "SIMULATED · main · To act on: Book not compared with the broker for long"
    ]


def test_raising_and_ending_take_two_statements_and_one(
    ops: Receiver, account: BrokerAccount
) -> None:
    with CaptureQueriesContext(connection) as raising:
        raise_alert(account.pk, code="c", subject="s", severity=WARNING, message="m")
    with CaptureQueriesContext(connection) as ending:
        end_alert(account.pk, code="c", subject="s")

    sql = [query["sql"] for query in raising if query["sql"] not in ("BEGIN", "COMMIT")]
    assert len(sql) == 2, sql
    assert len(ending) == 1


def test_a_problem_of_the_whole_installation_stands_once(ops: Receiver, problem: Raise) -> None:
    problem(of=None)
    problem(of=None)

    tell()

    assert Alert.objects.get().seen_count == 2
    assert ops.titles == ["SIMULATED · To act on: Broker's stream down"]
