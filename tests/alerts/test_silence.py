"""A process that is down is told of by one that lives; the outside hears when none is."""

import threading
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from django.conf import LazySettings
from django.db.models import F

from ordinis import heartbeat_out
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts import silence
from ordinis.alerts.jobs import tell
from ordinis.alerts.models import Alert
from ordinis.models import Heartbeat
from reconciliation.models import ReconciliationReport
from risk.figures import database_now
from tests.alerts.conftest import Raise, Receiver
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def alive(*names: str) -> None:
    for name in names:
        Heartbeat.objects.update_or_create(name=name, defaults={"last_seen_at": database_now()})


def silent(name: str) -> None:
    Heartbeat.objects.filter(name=name).update(
        last_seen_at=F("last_seen_at") - timedelta(seconds=40)
    )


@pytest.mark.parametrize("name", ["worker", "listen"])
def test_a_silent_process_is_an_alert_until_it_is_back(ops: Receiver, name: str) -> None:
    alive(name)
    assert not silence.look_at(name)
    tell()
    assert ops.messages == []

    silent(name)
    assert silence.look_at(name)
    assert silence.look_at(name)
    tell()
    assert ops.titles == ["SIMULATED · To act on: Process without a sign of life"]
    assert Alert.objects.get().seen_count == 1

    alive(name)
    silence.look_at(name)
    tell()
    assert ops.titles[-1] == "SIMULATED · Over: Process without a sign of life"


def test_a_stream_that_said_itself_that_it_is_down_is_not_told_twice(problem: Raise) -> None:
    problem("stream_down")

    silence.look_at("listen")

    assert not Alert.objects.filter(code="process_silent").exists()


def test_after_its_own_start_the_worker_gives_the_stream_time_to_begin(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    settings.PROCESS_SILENT_SECONDS = 3600
    silence.look_at_stream()
    assert not Alert.objects.exists()

    settings.PROCESS_SILENT_SECONDS = 0.0001
    silence.look_at_stream()

    assert Alert.objects.get().subject == "listen"


def test_the_streams_process_delivers_while_the_worker_is_down(
    ops: Receiver, problem: Raise, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROCESS_SILENT_SECONDS = 0.05
    monkeypatch.setattr(silence, "_EVERY", 0.05)
    problem("books_old")
    stop = threading.Event()
    watching = threading.Thread(target=silence.watch_worker, args=(stop,))
    watching.start()

    until(lambda: ops.messages)
    stop.set()
    watching.join(20)

    assert ops.titles[0] == "SIMULATED · main · 2 to act on"
    assert "No periodic job has run" in ops.messages[0]["message"]


@pytest.fixture
def outside(receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch) -> Receiver:
    receiver = receivers()
    address = f"http://127.0.0.1:{receiver.port}/secret-path"
    monkeypatch.setenv("ORDINIS_HEARTBEAT_URL", address)
    return receiver


@pytest.fixture
def healthy(account: BrokerAccount) -> None:
    ReconciliationReport.objects.create(
        account=account,
        mode="manual",
        complete=True,
        started_at=database_now(),
        duration_seconds=Decimal("0.2"),
    )
    alive("worker", "listen")


def test_the_heartbeat_address_is_called_while_all_is_well(
    healthy: None, outside: Receiver
) -> None:
    heartbeat_out.call()

    assert outside.messages == [{"path": "/secret-path"}]


def test_the_heartbeat_address_is_not_called_when_something_is_not_well(
    healthy: None, outside: Receiver
) -> None:
    silent("listen")

    heartbeat_out.call()

    assert outside.messages == []


def test_a_heartbeat_address_that_fails_fails_nothing_and_stays_secret(
    healthy: None,
    outside: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outside.status = 500
    heartbeat_out.call()
    outside.close()
    heartbeat_out.call()
    monkeypatch.setenv("ORDINIS_HEARTBEAT_URL", "secret-path")
    heartbeat_out.call()

    logged = [record for record in caplog.records if "heartbeat address" in record.getMessage()]
    assert len(logged) == 3
    assert not [r for r in logged if "secret-path" in r.getMessage() + str(vars(r))]


def test_without_a_heartbeat_address_nothing_is_asked(
    django_assert_num_queries: Callable[[int], object],
) -> None:
    with django_assert_num_queries(0):  # type: ignore[attr-defined]
        heartbeat_out.call()
