"""Messages arrive though channels fail, hang or die, and workers do."""

import logging
import threading
import time

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command
from django.db import connection

from ordinis.alerts import delivery
from ordinis.alerts.channels import configured
from ordinis.alerts.jobs import tell
from ordinis.alerts.models import Alert, AlertChannel, AlertMessage, end_alert
from ordinis.alerts.outbox import hand_over
from tests.alerts.conftest import Raise, Receiver, pass_time, states
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

SECRETS = ("hunter22", "token-of-secrets", "127.0.0.1")


def test_what_was_raised_before_a_crash_is_told_after_it(ops: Receiver, problem: Raise) -> None:
    problem()  # and the process that raised it is gone

    hand_over(configured())  # and so is the one that made the message
    tell()

    assert len(ops.messages) == 1


def test_what_a_dead_worker_had_claimed_is_sent_when_the_claim_is_over(
    ops: Receiver, problem: Raise
) -> None:
    problem()
    hand_over(configured())
    assert delivery._claimed("ops") is not None  # and it dies here
    tell()
    assert ops.messages == []

    pass_time(seconds=61)
    tell()

    assert len(ops.messages) == 1
    assert states() == ["sent"]
    assert AlertMessage.objects.get().attempts == 2


def test_two_workers_at_once_send_one_message(ops: Receiver, problem: Raise) -> None:
    for number in range(12):
        problem("break_orphan", f"S{number}")
    start = threading.Barrier(2)

    def work() -> None:
        start.wait(10)
        tell()
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)

    tell()
    assert sum(text["message"].count("- ") for text in ops.messages) == 12
    assert len(ops.messages) == 1


def test_a_channel_that_fails_is_tried_again_later_and_later(ops: Receiver, problem: Raise) -> None:
    problem()
    ops.status = 500
    tell()
    tell()
    assert AlertMessage.objects.get().attempts == 1

    for seconds, attempts in ((9, 1), (2, 2), (50, 2), (11, 3)):
        pass_time(seconds=seconds)
        tell()
        assert AlertMessage.objects.get(kind="problem").attempts == attempts

    ops.status = 200
    pass_time(minutes=5)
    tell()

    assert ops.titles[:1] == ["SIMULATED · main · To act on: Broker's stream down"]
    assert states() == ["sent"]
    assert AlertChannel.objects.get().failures == 0


def test_a_message_has_failed_after_the_last_attempt(
    ops: Receiver, problem: Raise, settings: LazySettings
) -> None:
    settings.ALERT_ATTEMPTS = 2
    alert = problem()
    ops.status = 500
    tell()
    pass_time(minutes=16)
    tell()
    assert states() == ["failed"]

    end_alert(alert.account_id, code=alert.code, subject=alert.subject)
    ops.status = 200
    pass_time(minutes=16)
    tell()

    assert ops.messages == []  # its end means nothing to whom it was never told
    assert Alert.objects.get(pk=alert.pk).told_ended_at is not None


def test_new_problems_wait_while_a_channel_is_failing_and_then_go_together(
    ops: Receiver, problem: Raise
) -> None:
    problem()
    ops.status = 500
    tell()
    ops.asked.clear()
    problem("books_old")
    tell()
    assert not ops.asked.is_set()

    ops.status = 200
    pass_time(seconds=11)
    tell()

    assert ops.titles == ["SIMULATED · main · 2 to act on"]


def test_nothing_piles_up_for_a_channel_that_is_dead_for_hours(
    ops: Receiver, problem: Raise
) -> None:
    problem()
    ops.status = 500
    for _ in range(4):
        tell()
        pass_time(minutes=61)

    assert states(alert__code="stream_down") == ["pending"]


def test_a_dead_channel_is_told_on_another_and_so_is_its_return(
    both: tuple[Receiver, Receiver], problem: Raise
) -> None:
    ops, mail = both
    ops.status = 500
    problem()
    for _ in range(3):
        tell()
        pass_time(minutes=6)
    assert len(mail.messages) == 1
    tell()

    assert mail.titles[-1] == "SIMULATED · To act on: Alert channel dead"
    assert "The channel ops has failed 3 times in a row" in mail.last
    assert not AlertMessage.objects.filter(channel="ops", alert__code="alert_channel_dead").exists()

    ops.status = 200
    pass_time(minutes=16)
    tell()
    tell()

    assert mail.titles[-1] == "SIMULATED · Over: Alert channel dead"
    assert any("Broker's stream down" in title for title in ops.titles)
    assert not Alert.objects.filter(code="alert_channel_dead", ended_at=None).exists()


def test_a_slow_channel_holds_up_no_other(
    both: tuple[Receiver, Receiver], problem: Raise, settings: LazySettings
) -> None:
    settings.ALERT_RUN_SECONDS = 0.5
    ops, mail = both
    ops.may_answer.clear()
    problem()
    began = time.monotonic()
    tell()
    took = time.monotonic() - began

    assert took < 3
    assert len(mail.messages) == 1
    assert states(channel="ops") == ["pending"]
    assert "No answer within 0.5 seconds" in AlertMessage.objects.get(channel="ops").error

    # It is not asked again while it still has the first; what it takes late counts.
    pass_time(seconds=11)
    tell()
    assert AlertMessage.objects.get(channel="ops").attempts == 1
    ops.may_answer.set()
    until(lambda: states(channel="ops") == ["sent"])
    assert len(ops.messages) == 1
    until(lambda: not delivery._sending["ops"].is_alive())


def test_a_channel_that_was_given_up_and_then_refuses_failed_once(
    ops: Receiver, problem: Raise, settings: LazySettings
) -> None:
    settings.ALERT_RUN_SECONDS = 0.3
    ops.status = 500
    ops.may_answer.clear()
    problem()
    tell()
    ops.may_answer.set()
    until(lambda: not delivery._sending["ops"].is_alive())

    assert AlertChannel.objects.get().failures == 1
    assert "No answer" in AlertMessage.objects.get().error


def test_no_secret_of_an_address_reaches_a_table_or_a_log(
    ops: Receiver,
    problem: Raise,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, logger="ordinis")
    ops.status = 500
    problem()
    tell()
    ops.close()
    pass_time(seconds=11)
    tell()

    row, channel = AlertMessage.objects.get(), AlertChannel.objects.get()
    assert row.error
    assert channel.last_error == row.error
    output = capsys.readouterr()
    ours = [record for record in caplog.records if record.name != "apprise"]  # has no way out
    assert not logging.getLogger("apprise").propagate
    logged = "".join(record.getMessage() + str(vars(record)) for record in ours)
    assert "alerts not delivered" in logged
    for secret in SECRETS:
        assert secret not in row.error + logged + output.out + output.err
    assert "hunter22" not in repr(configured())


def test_the_command_tests_every_channel(
    both: tuple[Receiver, Receiver], capsys: pytest.CaptureFixture[str]
) -> None:
    ops, mail = both
    mail.status = 401

    with pytest.raises(CommandError, match="1 of 2"):
        call_command("test_alert")

    assert ops.titles == ["SIMULATED · Test alert"]
    said = capsys.readouterr().out
    assert "ok    ops" in said
    assert "FAIL  mail" in said
    assert not [secret for secret in SECRETS if secret in said]
    assert states() == ["sent", "failed"]
    tell()
    assert len(ops.messages) == 1


def test_the_command_says_when_there_is_no_channel() -> None:
    with pytest.raises(CommandError, match="ORDINIS_ALERT_URLS"):
        call_command("test_alert")
