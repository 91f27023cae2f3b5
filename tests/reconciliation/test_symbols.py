"""After every order that ends its symbol is compared, soon and by itself (SPEC R3)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models import F, Max, QuerySet

from orders import jobs as order_jobs
from orders.models import Order, OrderHistory
from ordinis.accounts.models import BrokerAccount
from ordinis.schedule import JOBS
from ordinis.verify import violations
from positions.models import Position
from reconciliation import jobs, symbols
from reconciliation.models import Break, ReconciliationReport, Suspect
from reconciliation.run import reconcile
from risk.figures import database_now
from tests.conftest import Api, hold, quote
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("wide_limits"),
]
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def buy(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder
) -> Callable[..., Order]:
    """Buys one share of a symbol at $60, and waits until that is booked."""

    def bought(symbol: str = "KO", **changes: str) -> Order:
        quote(sim, symbol, "60")
        body = {"symbol": symbol, "qty": "1", "limit_price": "60", **changes}
        answer = api.post("/orders", order(reference_price=None, **body))
        assert answer.status_code == 201, answer.json()
        placed = Order.objects.get(pk=answer.json()["id"])
        until(lambda: _polled().filter(pk=placed.pk, status="filled").exists())
        return placed

    return bought


def asked(sim: SimulatorServer) -> list[str]:
    """The paths under which positions were asked for."""
    return [
        call["path"] for call in sim.get("/sim/log", method="GET") if "position" in call["path"]
    ]


def test_the_job_runs_often_enough_for_five_seconds() -> None:
    (job,) = (job for job in JOBS if job.function == "reconciliation.jobs.after_orders")

    # Twice the half second in which clocks may differ, and as much for the broker's answer.
    assert job.every <= 5 - 4 * symbols._CLOCKS_DIFFER.total_seconds()


def test_a_symbol_is_due_when_its_order_has_ended_and_not_once_it_was_compared(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    assert symbols.due(book, database_now()) == []
    buy("KO")
    assert symbols.due(book, database_now()) == ["KO"]
    _half_a_second_later()
    sim.delete("/sim/log")

    jobs.after_orders()

    assert symbols.due(book, database_now()) == []
    assert asked(sim) == ["/v2/positions/KO"]
    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)


def test_nothing_due_asks_the_broker_for_nothing(sim: SimulatorServer, book: BrokerAccount) -> None:
    sim.delete("/sim/log")

    jobs.after_orders()

    assert sim.get("/sim/log") == []


def test_several_orders_of_a_symbol_are_one_question(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    for number in range(3):
        buy("KO", client_order_id=f"ko-{number}")
    _half_a_second_later()
    sim.delete("/sim/log")

    jobs.after_orders()

    assert asked(sim) == ["/v2/positions/KO"]
    assert symbols.due(book, database_now()) == []


def test_several_symbols_are_one_question(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    for symbol in ("JPM", "KO", "OKE"):
        buy(symbol)
    _half_a_second_later()
    sim.delete("/sim/log")

    jobs.after_orders()

    assert asked(sim) == ["/v2/positions"]
    assert symbols.due(book, database_now()) == []


def test_a_difference_is_a_suspect_that_the_second_look_makes_a_break(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    buy("KO")
    hold(sim, "KO", "100", "60")  # the broker has lost it again

    jobs.after_orders()

    suspect = Suspect.objects.get()
    assert (suspect.subject, suspect.kind, suspect.difference) == ("position/KO", "quantity", -1)
    assert Break.objects.count() == 0
    _a_minute_ago()
    until(_looked_again)
    assert Break.objects.get().symbol == "KO"


def test_it_concludes_nothing_of_other_symbols(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    buy("KO")
    hold(sim, "OKE", "0", "70")
    reports = ReconciliationReport.objects.count()

    jobs.after_orders()

    assert Suspect.objects.count() == 0
    assert ReconciliationReport.objects.count() == reports
    assert Position.objects.get(symbol="OKE").compared_at is None


def test_a_cancelled_order_makes_its_symbol_due_where_shares_are_held_or_filled(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    for symbol in ("KO", "TSLA"):
        quote(sim, symbol, "60")
        body = order(symbol=symbol, qty="1", reference_price=None, limit_price="40")
        placed = api.post("/orders", body).json()
        assert api.post(f"/orders/{placed['id']}/cancel").status_code in (200, 202)
    until(lambda: _polled().filter(status="canceled").count() == 2)

    assert symbols.due(book, database_now()) == ["KO"]


def test_an_order_that_was_denied_makes_nothing_due(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    call_command("limits", "blocked_symbols=KO", reason="not this one")
    body = order(symbol="KO", qty="1", reference_price=None, limit_price="60")
    assert api.post("/orders", body).status_code == 422

    assert Order.objects.get().status == "denied"
    assert symbols.due(book, database_now()) == []


def test_what_ended_long_ago_is_left_to_whole_runs(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    buy("KO")

    assert symbols.due(book, database_now() + timedelta(minutes=3)) == []


def test_a_position_that_lags_behind_its_fill_is_suspected_and_no_break(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    sim.post("/sim/options", {"position_lag": 0.8})
    until(lambda: sim.trading("GET", "/v2/positions/KO").status_code == 200)
    buy("KO")

    jobs.after_orders()
    assert Suspect.objects.get().difference == -1

    until(lambda: sim.trading("GET", "/v2/positions/KO").json()["qty"] == "101")
    assert reconcile(book).differences == []
    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)
    assert list(violations()) == []


def test_a_broker_that_can_not_be_read_leaves_it_due(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    buy("KO")
    _half_a_second_later()
    fault = {"kind": "status_before", "path": "/v2/positions/KO", "count": None}
    sim.post("/sim/faults", [fault])

    jobs.after_orders()

    assert symbols.due(book, database_now()) == ["KO"]
    assert Suspect.objects.count() == 0
    sim.delete("/sim/faults")
    jobs.after_orders()
    assert symbols.due(book, database_now()) == []


def test_an_account_that_is_not_watched_is_left_alone(
    sim: SimulatorServer, book: BrokerAccount, buy: Callable[..., Order]
) -> None:
    buy("KO")
    call_command("limits", "reconcile_mode=off", reason="moving house")
    sim.delete("/sim/log")

    jobs.after_orders()

    assert asked(sim) == []


def _polled() -> QuerySet[Order]:
    """All orders, as the broker has them now."""
    order_jobs.poll()
    return Order.objects.all()


def _looked_again() -> bool:
    jobs.second_look()
    return Break.objects.exists()


def _half_a_second_later() -> None:
    """A comparison in the very moment of an order's end is made once more."""
    last = OrderHistory.objects.aggregate(last=Max("received_at"))["last"]
    until(lambda: database_now() - last > symbols._CLOCKS_DIFFER)


def _a_minute_ago() -> None:
    Order.objects.update(updated_at=F("updated_at") - timedelta(minutes=1))
