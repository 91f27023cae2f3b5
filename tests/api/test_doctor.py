"""`doctor`: each thing that can be wrong is named, with what to do."""

import contextlib
import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

from ordinis.accounts.models import BrokerAccount
from ordinis.models import Heartbeat
from reconciliation.run import reconcile
from risk.figures import database_now
from risk.models import SelfTest
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


def _findings() -> dict[str, dict[str, str]]:
    out = StringIO()
    with contextlib.suppress(CommandError):  # it failed something; the findings say what
        call_command("doctor", json=True, stdout=out)
    return {finding["check"]: finding for finding in json.loads(out.getvalue())}


@pytest.fixture
def healthy(sim: SimulatorServer, account: BrokerAccount) -> SimulatorServer:
    reconcile(account)
    SelfTest.objects.create(account=account, actor="test", passed=True, results=[])
    for name in ("worker", "listen"):
        Heartbeat.objects.create(name=name, last_seen_at=database_now())
    return sim


def test_a_healthy_desk_has_nothing_to_do(healthy: SimulatorServer) -> None:
    out = StringIO()

    call_command("doctor", stdout=out)

    assert "FAIL" not in out.getvalue()
    assert "look" not in out.getvalue()
    assert "answers on the simulator" in out.getvalue()


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ({"path": "/v2/account", "status": 401}, "main: keys", "APCA_API_KEY_ID"),
        ({"path": "/v2/account", "status": 503}, "main: keys", "Ask again"),
        ({"path": "/v2/clock", "status": 500}, "main: clock", "Ask again"),
    ],
)
def test_what_the_broker_refuses_is_named(
    healthy: SimulatorServer, fault: dict[str, Any], check: str, words: str
) -> None:
    healthy.post("/sim/faults", [{"kind": "status_before", "count": 9, **fault}])

    finding = _findings()[check]

    assert finding["status"] in ("fail", "warning")
    assert words in finding["advice"]


def test_a_broker_that_is_not_there_is_named(
    healthy: SimulatorServer, settings: LazySettings
) -> None:
    settings.BROKER_URL = "http://127.0.0.1:9"

    assert _findings()["main: keys"]["status"] == "fail"


def _suspend(sim: SimulatorServer) -> None:
    sim.trading("PATCH", "/v2/account/configurations", json={"suspend_trade": True})


def _other_account(sim: SimulatorServer) -> None:
    BrokerAccount.objects.update(account_number="PA-OTHER")


def _silent_worker(sim: SimulatorServer) -> None:
    Heartbeat.objects.filter(name="worker").delete()


@pytest.mark.parametrize(
    ("harm", "check", "advice"),
    [
        (_suspend, "main: settings", "broker's own app"),
        (_other_account, "main: account", "another database"),
        (_silent_worker, "worker", "manage.py start"),
    ],
)
def test_what_stands_in_the_way_is_named(
    healthy: SimulatorServer, harm: Callable[[SimulatorServer], None], check: str, advice: str
) -> None:
    harm(healthy)

    finding = _findings()[check]

    assert finding["status"] != "ok"
    assert advice in finding["advice"]
