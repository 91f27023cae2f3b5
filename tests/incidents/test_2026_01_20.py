"""2026-01-20: a position closed in Alpaca's own app stayed open in the database, and one opened
there was never in it. Nobody was told; the strategies went on with both.

Here the same two hand trades: found within two looks, told, and corrected once, with the evidence.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import LedgerEntry, Position
from reconciliation import jobs
from reconciliation.models import Break, Correction, ReconciliationReport
from tests.conftest import Api, hold, quote
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _books_are_right() -> Iterator[None]:
    yield
    assert list(violations()) == []


@pytest.fixture
def book(sim: SimulatorServer, account: BrokerAccount, settings: LazySettings) -> BrokerAccount:
    """A book with 40 OKE and 100 KO, compared by the clock."""
    settings.SECOND_LOOK_SECONDS = 0
    settings.RECONCILE_SECONDS = 0.01
    hold(sim, "KO", "100", "60")
    hold(sim, "OKE", "40", "70")
    quote(sim, "OKE", "75")
    quote(sim, "TSLA", "250")
    jobs.reconcile()
    return account


@pytest.fixture
def console(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("ann"))
    return client


def by_hand(sim: SimulatorServer) -> None:
    """What was done in the broker's own app that day."""
    sim.post("/sim/close", {"symbol": "OKE"})
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "buy", "qty": "7"})


def looked_at_twice() -> None:
    jobs.reconcile()
    until(_both_are_breaks)


def _both_are_breaks() -> bool:
    jobs.second_look()
    return Break.objects.count() == 2


def approve(console: Client, symbol: str) -> Any:
    correction = Correction.objects.get(status="proposed", subject__symbol=symbol)
    return console.post(
        f"/reconciliation/correction/{correction.pk}/decide/",
        {"decision": "approve", "comment": "Done in the broker's own app."},
    )


def shares() -> dict[str, Decimal]:
    return dict(Position.objects.exclude(qty=0).values_list("symbol", "qty"))


def test_both_are_in_the_report_and_the_orphan_alerts_as_critical(
    sim: SimulatorServer, book: BrokerAccount, api: Api
) -> None:
    by_hand(sim)
    looked_at_twice()

    report = ReconciliationReport.objects.filter(complete=True)[0]
    assert (report.zombies, report.orphans) == (["OKE"], ["TSLA"])
    assert any("TSLA" in issue for issue in report.critical_issues)
    told = {each["subject"]: each["explanation"] for each in report.differences}
    assert told.keys() == {"position/OKE", "position/TSLA"}
    assert "Traded at the broker past Ordinis: -40 at $75" in told["position/OKE"]
    assert "Traded at the broker past Ordinis: +7 at $250" in told["position/TSLA"]
    alerts = {a.code: (a.severity, a.subject) for a in Alert.objects.filter(ended_at=None)}
    assert alerts["break_orphan"] == ("critical", "TSLA")
    assert alerts["break_zombie"][1] == "OKE"
    listed = api.get("/reconciliation/breaks").json()["items"]
    assert {(each["kind"], each["symbol"]) for each in listed} == {
        ("zombie", "OKE"),
        ("orphan", "TSLA"),
    }
    assert shares() == {"KO": 100, "OKE": 40}


def test_by_hand_both_are_corrected_through_the_consoles_form_and_only_once(
    sim: SimulatorServer, book: BrokerAccount, console: Client
) -> None:
    by_hand(sim)
    looked_at_twice()
    zombie = Correction.objects.get(subject__symbol="OKE")

    for symbol in ("OKE", "TSLA"):
        assert approve(console, symbol).status_code == 302
    again = console.post(
        f"/reconciliation/correction/{zombie.pk}/decide/",
        {"decision": "approve", "comment": "Once more."},
    )

    assert again.status_code == 409
    assert shares() == {"KO": 100, "TSLA": 7}
    oke, tsla = (Position.objects.get(symbol=symbol) for symbol in ("OKE", "TSLA"))
    assert (oke.status, oke.closed_reason, oke.realized_profit) == (
        "closed",
        "closed_externally",
        200,
    )
    assert tsla.average_price == 250
    _nothing_more_happens(sim, book)


def test_in_automatic_mode_the_zombie_closes_by_itself_and_the_orphan_waits_for_a_person(
    sim: SimulatorServer, book: BrokerAccount, console: Client
) -> None:
    call_command(
        "limits",
        "reconcile_mode=automatic",
        "auto_correct_max_value=100000",
        "auto_correct_max_qty=1000",
        reason="wide enough for both",
    )
    by_hand(sim)
    looked_at_twice()

    oke = Position.objects.get(symbol="OKE")
    assert (oke.status, oke.closed_reason) == ("closed", "closed_externally")
    applied = Correction.objects.get(status="applied")
    assert (applied.subject.symbol, applied.automatic, applied.decided_by) == ("OKE", True, None)
    waiting = Correction.objects.get(status="proposed")
    assert (waiting.subject.symbol, waiting.subject.kind) == ("TSLA", "orphan")
    assert shares() == {"KO": 100}

    assert approve(console, "TSLA").status_code == 302

    assert shares() == {"KO": 100, "TSLA": 7}
    _nothing_more_happens(sim, book)


def _nothing_more_happens(sim: SimulatorServer, book: BrokerAccount) -> None:
    """Looking again finds, proposes and books nothing, and the alerts are over."""
    entries = LedgerEntry.objects.count()
    corrections = Correction.objects.count()

    for _ in range(3):
        jobs.reconcile()
        jobs.second_look()

    report = ReconciliationReport.objects.all()[0]
    assert (report.complete, report.differences, report.pending_approval_count) == (True, [], 0)
    assert (LedgerEntry.objects.count(), Correction.objects.count()) == (entries, corrections)
    assert not Break.objects.filter(ended_at=None).exists()
    assert not Alert.objects.filter(code__startswith="break_", ended_at=None).exists()
    state = sim.get("/sim/state")
    assert shares() == {p["symbol"]: Decimal(p["qty"]) for p in state["positions"]}
    assert cash_of(book.pk) == Decimal(state["account"]["cash"])
