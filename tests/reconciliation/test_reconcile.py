"""Book against broker: what a hand trade leaves behind, from suspect to applied correction."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.models import LedgerEntry, Position
from reconciliation import jobs, run
from reconciliation.corrections import decide
from reconciliation.models import Break, Correction, ReconciliationReport, Suspect
from reconciliation.run import reconcile
from tests.conftest import Api, hold, quote
from tests.reconciliation.conftest import make_break, waiting
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_first_run_takes_over_the_book_and_finds_nothing(book: BrokerAccount) -> None:
    report = ReconciliationReport.objects.get()

    assert (report.complete, report.compared_count) == (True, 2)
    assert (report.zombies, report.orphans, report.quantity_drifts) == ([], [], [])
    assert {p.symbol: p.qty for p in Position.objects.all()} == {"KO": 100, "OKE": 40}


def test_a_position_closed_by_hand_becomes_a_zombie_and_is_closed_externally(
    sim: SimulatorServer, book: BrokerAccount, approver: User, api: Api
) -> None:
    sim.post("/sim/trade", {"symbol": "OKE", "side": "sell", "qty": "40"})

    row = make_break(book)
    assert (row.kind, row.symbol, row.difference) == ("zombie", "OKE", -40)
    assert row.status == "correcting"
    decide(waiting().pk, "approve", user=approver, comment="sold in the app")

    seen = api.get("/positions/OKE").json()
    assert (seen["qty"], seen["drift_qty"], seen["status"]) == ("0", "0", "closed")
    assert seen["closed_reason"] == "closed_externally"
    entry = LedgerEntry.objects.get(kind="correction")
    assert (entry.qty, entry.cause) == (-40, f"correction/{Correction.objects.get().pk}")
    row.refresh_from_db()
    assert row.status == "resolved"
    assert list(violations()) == []
    report = reconcile(book)
    assert (report.zombies, report.reconciled_count) == ([], 1)


def test_a_position_opened_by_hand_is_an_orphan_critical_in_report_and_alert(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "buy", "qty": "7"})

    row = make_break(book)

    assert (row.kind, row.severity, row.value) == ("orphan", "critical", 1750)
    report = ReconciliationReport.objects.first()
    assert report is not None
    assert report.orphans == ["TSLA"]
    assert "TSLA" in report.critical_issues[0]
    alert = Alert.objects.get(code="break_orphan")
    assert (alert.severity, alert.subject, alert.ended_at) == ("critical", "TSLA", None)
    decide(waiting().pk, "approve", user=approver, comment="bought in the app")
    position = Position.objects.get(symbol="TSLA")
    assert (position.qty, position.average_price) == (7, 250)
    alert.refresh_from_db()
    assert alert.ended_at is not None


def test_a_quantity_that_differs_is_corrected_to_the_brokers_quantity_and_price(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    sim.post("/sim/position", {"symbol": "KO", "qty": "130", "average_price": "61.5"})

    row = make_break(book)
    decide(waiting().pk, "approve", user=approver, comment="transfer")

    assert (row.kind, row.difference) == ("quantity", 30)
    position = Position.objects.get(symbol="KO")
    assert (position.qty, position.average_price) == (130, Decimal("61.5"))
    assert list(violations()) == []


def test_a_difference_seen_once_is_only_a_suspect(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    hold(sim, "KO", "101", "60")

    report = reconcile(book)

    assert [drift["symbol"] for drift in report.quantity_drifts] == ["KO"]
    assert Suspect.objects.get().symbol == "KO"
    assert Break.objects.count() == 0


def test_a_difference_that_is_gone_at_the_second_look_was_none(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    hold(sim, "KO", "101", "60")
    reconcile(book)
    hold(sim, "KO", "100", "60")

    reconcile(book)

    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)


def test_a_second_look_before_its_time_decides_nothing(
    sim: SimulatorServer, book: BrokerAccount, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 10
    hold(sim, "KO", "101", "60")
    for _ in range(3):
        reconcile(book)
    assert Break.objects.count() == 0

    settings.SECOND_LOOK_SECONDS = 0
    reconcile(book)

    assert Break.objects.get().symbol == "KO"


def test_the_clock_takes_the_second_look_when_it_is_due(
    sim: SimulatorServer, book: BrokerAccount, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 10
    hold(sim, "KO", "101", "60")
    reconcile(book)
    jobs.second_look()
    assert Break.objects.count() == 0

    settings.SECOND_LOOK_SECONDS = 0
    jobs.second_look()

    assert Break.objects.get().symbol == "KO"


def test_an_order_that_moves_between_the_looks_makes_it_start_again(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: Callable[..., dict[str, Any]]
) -> None:
    hold(sim, "KO", "101", "60")
    reconcile(book)
    quote(sim, "KO", "70")
    body = order(symbol="KO", qty="1", reference_price=None, limit_price="50")
    assert api.post("/orders", body).status_code == 201

    reconcile(book)
    assert Break.objects.count() == 0

    until(lambda: (reconcile(book), Break.objects.count())[1], every=0.3)
    assert Break.objects.get().symbol == "KO"


def test_the_same_facts_again_make_one_break_and_one_correction(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    hold(sim, "KO", "0", "0")
    for _ in range(5):
        reconcile(book)

    row = Break.objects.get()
    assert row.seen_count == 5
    assert Correction.objects.count() == 1


def test_a_drift_that_heals_closes_its_break_and_withdraws_its_correction(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    hold(sim, "KO", "100", "60")

    reconcile(book)

    row.refresh_from_db()
    assert row.status == "healed"
    assert Correction.objects.get().status == "superseded"
    assert LedgerEntry.objects.filter(kind="correction").count() == 0


@pytest.mark.parametrize("path", ["/v2/positions", "/v2/orders", "/v2/account"])
def test_a_failed_read_is_not_an_empty_account(
    sim: SimulatorServer, book: BrokerAccount, path: str
) -> None:
    sim.post("/sim/faults", [{"kind": "status_before", "path": path, "count": 99}])

    for _ in range(3):
        report = reconcile(book)

    assert not report.complete
    assert report.reason
    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)
    # The third in a row is critical.
    told = dict(Alert.objects.values_list("code", "severity"))
    assert told == {"reconciliation_incomplete": "warning", "reconciliation_failing": "critical"}
    sim.delete("/sim/faults")
    reconcile(book)
    assert not Alert.objects.filter(ended_at=None).exists()


def test_another_account_behind_the_keys_concludes_nothing(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    BrokerAccount.objects.update(account_number="PA-OTHER")
    book.refresh_from_db()

    report = reconcile(book)

    assert not report.complete
    assert "Check the keys" in report.reason


def test_a_dry_run_keeps_nothing_but_its_report(sim: SimulatorServer, book: BrokerAccount) -> None:
    hold(sim, "KO", "90", "60")

    for _ in range(2):
        report = reconcile(book, dry_run=True)

    assert [drift["symbol"] for drift in report.quantity_drifts] == ["KO"]
    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)


def test_in_read_only_mode_a_break_gets_no_correction(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    call_command("limits", "reconcile_mode=read_only", "--reason", "first week")
    hold(sim, "KO", "90", "60")

    row = make_break(book)

    assert row.status == "open"
    assert Correction.objects.count() == 0


def test_an_account_that_is_not_watched_is_not_looked_at_again(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    reconcile(book)
    call_command("limits", "reconcile_mode=off", "--reason", "moving house")
    runs = ReconciliationReport.objects.count()

    jobs.second_look()
    jobs.reconcile()

    assert ReconciliationReport.objects.count() == runs
    assert Suspect.objects.count() == 0


def test_an_account_that_can_not_be_reconciled_does_not_hold_up_the_next(
    sim: SimulatorServer,
    book: BrokerAccount,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    BrokerAccount.objects.create(name="a-first", broker="simulator", mode="simulated")
    first = BrokerAccount.objects.get(name="a-first")
    monkeypatch.setattr(run, "_LONGEST_WAIT", 0.1)
    settings.RECONCILE_SECONDS = 0.01
    runs = ReconciliationReport.objects.filter(account=book).count()

    with ThreadPoolExecutor(1) as pool, run.alone(first):
        pool.submit(_closing(jobs.reconcile)).result()

    assert ReconciliationReport.objects.filter(account=book).count() == runs + 1


def test_standing_breaks_take_no_more_queries_however_many(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    counts = []
    for few in (["AAPL MSFT"], ["JPM XOM UNH WMT", "CAT BAC MRK PEP"]):
        for symbols in few:  # more at once would be a mass
            for symbol in symbols.split():
                hold(sim, symbol, "5", "100")
            for _ in range(3):
                reconcile(book)
        counts.append(min(_queries_of_a_run(book) for _ in range(3)))

    assert Break.objects.count() == 10
    assert counts[0] == counts[1], counts


def _queries_of_a_run(book: BrokerAccount) -> int:
    """Now and then the broker's edge asks the table of the request limit, besides."""
    with CaptureQueriesContext(connection) as queries:
        reconcile(book)
    return len(queries)


def test_runs_never_overlap_and_who_asks_during_one_gets_the_next_ones_report(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    sim.post("/sim/options", {"latency": 0.2})
    before = ReconciliationReport.objects.count()
    sim.delete("/sim/log")

    def run(_: int) -> int:
        try:
            return reconcile(book).pk
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        under_way = pool.submit(run, 0)
        until(lambda: len(sim.get("/sim/log")) > 0, every=0.01)
        others = set(pool.map(run, range(5)))

    assert ReconciliationReport.objects.count() - before == 2
    assert len(others) == 1
    assert under_way.result() not in others
    assert Correction.objects.count() == 1
    spans = sorted(
        (r.started_at, r.started_at + timedelta(seconds=float(r.duration_seconds)))
        for r in ReconciliationReport.objects.all()
    )
    rounding = timedelta(milliseconds=1)
    assert all(later[0] >= earlier[1] - rounding for earlier, later in pairwise(spans))


def test_who_waits_too_long_for_a_run_is_told_so(
    sim: SimulatorServer, book: BrokerAccount, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LONGEST_WAIT", 0.2)
    with ThreadPoolExecutor(1) as pool, run.alone(book):
        answer = pool.submit(_closing(lambda: api.post("/reconciliation/run"))).result()

    assert (answer.status_code, answer.json()["code"]) == (503, "reconciliation_busy")
    assert api.post("/reconciliation/run").status_code == 200


def _closing(call: Callable[[], Any]) -> Callable[[], Any]:
    def closing() -> Any:
        try:
            return call()
        finally:
            connection.close()

    return closing


def test_the_api_runs_lists_and_shows_reports_and_breaks(
    sim: SimulatorServer, book: BrokerAccount, api: Api
) -> None:
    hold(sim, "KO", "90", "60")

    for _ in range(2):
        report = api.post("/reconciliation/run", {"dry_run": False}).json()

    assert report["complete"] is True
    assert report["quantity_drifts"] == [
        {
            "kind": "quantity",
            "symbol": "KO",
            "local": "100",
            "broker": "90",
            "difference": "-10",
        }
    ]
    assert report["pending_approval_count"] == 1
    assert api.get(f"/reconciliation/reports/{report['id']}").json() == report
    page = api.get("/reconciliation/reports", limit=2).json()
    assert page["items"][0]["id"] == report["id"]
    rest = api.get("/reconciliation/reports", cursor=page["next"]).json()
    assert (len(page["items"]), len(rest["items"]), rest["next"]) == (2, 1, None)
    (row,) = api.get("/reconciliation/breaks").json()["items"]
    assert (row["kind"], row["local"], row["broker"], row["status"]) == (
        "quantity",
        "100",
        "90",
        "correcting",
    )
    assert row["correction"] == Correction.objects.get().pk
