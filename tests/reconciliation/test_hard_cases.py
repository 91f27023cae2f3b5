"""Hard cases of reconciliation: what is gone, stale, changed meanwhile, or told late."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ordinis import first_look
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from positions.ledger import cash_of
from positions.models import LedgerEntry, Position
from reconciliation import breaks, jobs, looks, queue, run, snapshots
from reconciliation.corrections import NotDecided, decide
from reconciliation.models import Break, Correction, ReconciliationReport, Suspect
from reconciliation.run import reconcile
from tests.conftest import Api, hold, quote
from tests.reconciliation.comparing import under_way
from tests.reconciliation.conftest import make_break, waiting
from tests.reconciliation.test_adoption import broker_cash
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
Sim = SimulatorServer


def test_comparisons_that_crash_are_told(
    sim: Sim, book: BrokerAccount, settings: LazySettings
) -> None:
    settings.RECONCILE_SECONDS = 0
    sim.post("/sim/symbol", {"symbol": "AAPL261218C00200000", "price": "5"})
    hold(sim, "AAPL261218C00200000", "1", "5")

    runs = ReconciliationReport.objects.filter(complete=True).count()

    for _ in range(4):
        jobs.reconcile()

    compared = ReconciliationReport.objects.filter(complete=True).count() > runs
    assert compared or Alert.objects.filter(account=book).exists()


def test_an_account_that_is_busy_at_the_start_does_not_keep_the_next_from_being_compared(
    sim: Sim, book: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_LONGEST_WAIT", 0.1)
    first = BrokerAccount.objects.create(name="a-first", broker="simulator", mode="simulated")
    runs = ReconciliationReport.objects.filter(account=book).count()

    with under_way(first), contextlib.suppress(run.Busy):
        first_look._compare()

    assert ReconciliationReport.objects.filter(account=book).count() == runs + 1


def test_money_that_is_missing_is_not_called_found_because_shares_differ_too(
    sim: Sim, book: BrokerAccount
) -> None:
    sim.post("/sim/account", {"cash": str(broker_cash(book) - 1000)})
    row = make_break(book)
    assert row.kind == "cash"
    hold(sim, "KO", "90", "60")

    reconcile(book)

    row.refresh_from_db()
    assert row.is_open


def make_two_looks(book: BrokerAccount) -> None:
    reconcile(book)
    reconcile(book)


def test_a_zombie_is_not_closed_by_itself_when_its_shares_are_worth_more_than_the_limit(
    sim: Sim, book: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    hold(sim, "TSLA", "1", "10")
    make_two_looks(book)
    decide_all(book)
    call_command("limits", "reconcile_mode=automatic", "--reason", "small ones")
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "sell", "qty": "1"})

    make_two_looks(book)

    assert not Correction.objects.filter(automatic=True).exists()


def decide_all(book: BrokerAccount) -> None:
    approver = User.objects.create_superuser("somebody")
    for each in Correction.objects.filter(status="proposed"):
        decide(each.pk, "approve", user=approver, comment="yes")


def test_a_suspect_from_before_a_mass_does_not_make_a_run_every_two_seconds(
    sim: Sim, account: BrokerAccount, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    for symbol in ("AAPL", "JPM", "KO", "MSFT", "OKE", "XOM"):
        hold(sim, symbol, "10", "50")
    reconcile(account)
    hold(sim, "KO", "9", "50")
    reconcile(account)
    sim.post("/sim/faults", [{"kind": "list_empty", "path": "/v2/positions", "count": None}])
    make_two_looks(account)
    settings.SECOND_LOOK_SECONDS = 10
    moment = Suspect.objects.get().last_seen - timedelta(minutes=1)
    Suspect.objects.update(last_seen=moment)
    runs = ReconciliationReport.objects.count()

    for _ in range(5):
        jobs.second_look()

    assert ReconciliationReport.objects.count() - runs <= 1


def test_a_broker_away_for_six_seconds_is_no_critical_alert_because_something_was_suspected(
    sim: Sim, book: BrokerAccount, settings: LazySettings
) -> None:
    hold(sim, "KO", "99", "60")
    reconcile(book)
    settings.SECOND_LOOK_SECONDS = 10
    Suspect.objects.update(last_seen=Suspect.objects.get().last_seen - timedelta(seconds=10))
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/positions", "count": 99}])

    for _ in range(3):  # the job's cadence is two seconds
        jobs.second_look()

    assert not Alert.objects.filter(code="reconciliation_failing").exists()


def test_a_drift_that_comes_to_be_worth_more_than_the_alert_value_is_told(
    sim: Sim, book: BrokerAccount
) -> None:
    quote(sim, "KO", "60")
    hold(sim, "KO", "101", "60")
    row = make_break(book)
    assert not Alert.objects.filter(code="break_quantity").exists()
    quote(sim, "KO", "6000")

    reconcile(book)

    row.refresh_from_db()
    assert Alert.objects.filter(code="break_quantity").exists()


def test_nothing_is_corrected_by_itself_once_the_mode_is_no_longer_automatic(
    sim: Sim, book: BrokerAccount
) -> None:
    call_command("limits", "reconcile_mode=automatic", "--reason", "small ones")
    hold(sim, "KO", "99", "60")
    reconcile(book)
    sim.post("/sim/options", {"latency": 0.3})
    sim.delete("/sim/log")

    def compare() -> None:
        try:
            reconcile(book)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(compare)
        until(lambda: sim.get("/sim/log"))
        call_command("limits", "reconcile_mode=read_only", "--reason", "stop it")
        under_way.result()

    assert LedgerEntry.objects.filter(kind="correction").count() == 0


def test_a_proposal_on_positions_that_lag_behind_a_fill_is_not_applied(
    sim: Sim,
    book: BrokerAccount,
    approver: User,
    settings: LazySettings,
    api: Api,
    order: Callable[..., dict[str, Any]],
    wide_limits: None,
) -> None:
    quote(sim, "KO", "60")
    hold(sim, "KO", "90", "60")
    make_break(book)
    settings.SECOND_LOOK_SECONDS = 10
    sim.post("/sim/clock", {"advance": 60})
    sim.post("/sim/options", {"position_lag": 9})
    body = order(symbol="KO", qty="5", reference_price=None, limit_price="60")
    assert api.post("/orders", body).status_code == 201
    until(
        lambda: [
            told
            for told in sim.get("/sim/state")["orders"]
            if (told["status"], told["symbol"]) == ("filled", "KO")
        ]
    )
    with pytest.raises(NotDecided) as moved:
        decide(waiting().pk, "approve", user=approver, comment="sold")
    successor = moved.value.successor

    if successor is not None:
        with pytest.raises(NotDecided):
            decide(successor.pk, "approve", user=approver, comment="then so")

    assert Position.objects.get(symbol="KO").qty == 105


def _full_margin(sim: Sim, account: BrokerAccount) -> None:
    quote(sim, "KO", "100")
    hold(sim, "KO", "4000", "100")
    sim.post("/sim/account", {"cash": "-300000"})
    reconcile(account)


def test_an_account_at_full_margin_has_no_buying_power_break_when_prices_fall(
    sim: Sim, account: BrokerAccount, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    _full_margin(sim, account)
    reconcile(account)
    quote(sim, "KO", "98.5")

    for _ in range(3):
        reconcile(account)

    assert Break.objects.count() == 0


def test_a_buying_power_surprise_is_found_while_prices_move(sim: Sim, book: BrokerAccount) -> None:
    quote(sim, "KO", "60")
    reconcile(book)
    sim.post("/sim/account", {"buying_power": "200"})
    for look in range(20):
        quote(sim, "KO", f"{60 + Decimal(look) / 100}")
        reconcile(book)
        ages = Suspect.objects.all()
        for each in ages:  # a minute passes
            Suspect.objects.filter(pk=each.pk).update(
                first_seen=each.first_seen - timedelta(minutes=1),
                quiet_since=each.quiet_since - timedelta(minutes=1),
                steady_since=each.steady_since - timedelta(minutes=1),
            )

    assert Break.objects.filter(kind="buying_power").exists()


def test_a_cash_correction_can_be_approved_while_the_desk_trades(
    sim: Sim,
    book: BrokerAccount,
    approver: User,
    api: Api,
    order: Callable[..., dict[str, Any]],
    wide_limits: None,
) -> None:
    quote(sim, "KO", "60")
    sim.post("/sim/account", {"cash": str(broker_cash(book) - 1000)})
    make_break(book)
    proposed = waiting()
    body = order(symbol="KO", qty="1", reference_price=None, limit_price="60")
    assert api.post("/orders", body).status_code == 201
    until(lambda: sim.get("/sim/state")["orders"][-1]["status"] == "filled")

    reconcile(book)

    decide(proposed.pk, "approve", user=approver, comment="a fee, by telephone")
    assert cash_of(book.pk) == broker_cash(book)


def test_rejected_proposals_cost_no_queries_at_each_look(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    counts = []
    for symbols in ("AAPL MSFT", "JPM XOM UNH"):
        for symbol in symbols.split():
            hold(sim, symbol, "5", "100")
            make_two_looks(book)
        for each in Correction.objects.filter(status="proposed"):
            decide(each.pk, "reject", user=approver, comment="wait")
        with CaptureQueriesContext(connection) as queries:
            reconcile(book)
        counts.append(len(queries))

    assert counts[1] - counts[0] < 6


def test_a_proposal_that_took_anothers_place_says_its_own_size_and_explanation(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "KO", "60")
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "10", "price": "60"})
    make_break(book)
    hold(sim, "KO", "80", "60")
    with pytest.raises(NotDecided):
        decide(waiting().pk, "approve", user=approver, comment="sold in the app")

    reconcile(book)

    successor = waiting()
    assert successor.difference == -20
    assert successor.explanation is not None
    assert successor.explanation["code"] == "external_trades_in_part"
    assert successor.value == 1200


def test_a_break_that_a_person_resolved_during_a_run_raises_no_alert_that_never_ends(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "KO", "60")
    reconcile(book)
    sim.post("/sim/account", {"buying_power": "200"})
    row = make_break(book)
    quote(sim, "KO", "66")
    found, taken = run._compare(book, snapshots.take(book), dry_run=False)
    made = looks.plan(book, found, taken.figures.asked_at)
    queue.resolve(row, by=approver, comment="in order")

    breaks.carry_out(book, made, taken)

    reconcile(book)
    row.refresh_from_db()
    assert row.status == "resolved"
    assert not Alert.objects.filter(ended_at=None).exists()


def test_what_a_person_resolved_during_a_run_is_not_called_healed(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    sim.post("/sim/account", {"buying_power": "200"})
    row = make_break(book)
    sim.post("/sim/account", {"buying_power": None})
    found, taken = run._compare(book, snapshots.take(book), dry_run=False)
    made = looks.plan(book, found, taken.figures.asked_at)
    queue.resolve(row, by=approver, comment="in order")

    breaks.carry_out(book, made, taken)

    row.refresh_from_db()
    assert row.status == "resolved"


def test_one_empty_list_does_not_push_aside_a_waiting_proposal(
    sim: Sim, account: BrokerAccount, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    for symbol in ("AAPL", "JPM", "KO", "MSFT", "OKE", "XOM"):
        hold(sim, symbol, "10", "50")
    reconcile(account)
    hold(sim, "KO", "9", "50")
    row = make_break(account)
    proposed = waiting()
    sim.post("/sim/faults", [{"kind": "list_empty", "path": "/v2/positions", "count": 1}])

    reconcile(account)

    row.refresh_from_db()
    assert waiting() == proposed
    assert row.kind == "quantity"


def test_a_mode_that_corrects_nothing_leaves_no_proposal_waiting(
    sim: Sim, book: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    call_command("limits", "reconcile_mode=read_only", "--reason", "only looking")

    reconcile(book)

    row.refresh_from_db()
    assert row.status == "open"
    assert Correction.objects.get().status == "superseded"


def test_a_report_says_when_cash_could_not_be_compared(sim: Sim, book: BrokerAccount) -> None:
    hold(sim, "KO", "90", "60")

    report = reconcile(book)

    assert [action["action"] for action in report.actions] == ["suspect", "not_compared"]
