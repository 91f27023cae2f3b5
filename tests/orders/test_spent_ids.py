"""Client order ids that were spent at the broker before, and orders that turn up after all."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from orders import jobs, lifecycle, statuses
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.sync import ensure_open_book
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.alerts.models import Alert
from ordinis.broker.errors import BrokerRefused
from ordinis.verify import violations
from positions.models import Position
from reconciliation import corrections
from reconciliation.corrections import NotDecided
from reconciliation.models import Correction, Suspect
from reconciliation.run import reconcile
from tests.conftest import Api, hold, quote, sent
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]
POST_ORDERS = {"method": "POST", "path": "/v2/orders"}


def _spend(sim: SimulatorServer, account: BrokerAccount, client_order_id: str, qty: str) -> None:
    """An order of this id filled at the broker, and the book was taken over after it."""
    body = {
        "symbol": "TSLA",
        "side": "buy",
        "qty": qty,
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "249.93",
        "client_order_id": client_order_id,
    }
    quote(sim, "TSLA", "249")
    sim.trading("POST", "/v2/orders", json=body)
    until(lambda: [p for p in sim.get("/sim/state")["positions"] if p["symbol"] == "TSLA"])
    ensure_open_book(account)


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was at the broker before counts as long before: the test does not wait for clocks."""
    monkeypatch.setattr("orders.sameness.CLOCKS_DIFFER", timedelta(0))


@pytest.mark.parametrize("qty", ["50", "7"], ids=["same terms", "other terms"])
def test_an_id_spent_at_the_broker_before_ends_as_rejected_and_books_nothing_twice(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    account: BrokerAccount,
    long_ago: None,
    qty: str,
) -> None:
    _spend(sim, account, "rsi-TSLA-1", qty)

    answer = api.post("/orders", order(client_order_id="rsi-TSLA-1"))
    jobs.resolve()

    assert answer.status_code == 202
    stored = Order.objects.get()
    assert stored.status == statuses.REJECTED
    assert stored.rejection is not None
    assert stored.rejection["code"] == "client_order_id_spent"
    assert Position.objects.get(symbol="TSLA").qty == int(qty)
    assert Alert.objects.get().code == "mismatched_order"
    assert list(violations()) == []


def test_a_refused_second_sending_proves_nothing_about_the_first(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_after"}])
    sim.post("/sim/faults", [{"kind": "lookup_404", "seconds": 600}])
    sim.post("/sim/faults", [{"kind": "list_empty", "path": "/v2/orders", "count": None}])
    api.post("/orders", order(client_order_id="twice"))
    for _ in range(2):
        jobs.resolve()
    Order.objects.update(first_missed_at=Order.objects.get().created_at - timedelta(seconds=11))

    jobs.resolve()  # sent again; the broker refuses the spent id, look-ups still lag
    assert Order.objects.get().attempts == 2
    assert Order.objects.get().status == statuses.UNRESOLVED
    sim.delete("/sim/faults")
    jobs.resolve()

    assert Order.objects.get().status in ("pending_new", "new")


def test_a_failed_order_that_had_filled_after_all_is_found_by_the_watch(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_after"}])
    api.post("/orders", order(client_order_id="late"))
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])
    wrong = Origin(Source.SUBMIT, "test", "a wrong end")
    lifecycle.transition(Order.objects.get().pk, statuses.FAILED, wrong)

    jobs.watch()

    assert Order.objects.get().status == "filled"
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert "late_report" in set(Alert.objects.values_list("code", flat=True))


def test_another_strategy_gets_nothing_of_an_order_under_the_same_id(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order(client_order_id="shared"))
    other = Strategy.objects.create(account=account, name="momentum")
    _, secret = ApiToken.issue(other, SCOPES)

    answer = Api(secret).post("/orders", order(client_order_id="shared"))

    assert (answer.status_code, answer.json()["code"]) == (409, "client_order_id_reused")
    assert "order" not in answer.json()
    assert len(sent(sim)) == 1


def test_a_broker_account_has_one_book(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "100", "240")
    ensure_open_book(account)
    second = BrokerAccount.objects.create(name="typo", broker="simulator", mode="simulated")
    _, secret = ApiToken.issue(Strategy.objects.create(account=second, name="x"), SCOPES)

    with pytest.raises(BrokerRefused, match="has its book here already, as 'main'"):
        ensure_open_book(second)
    answer = Api(secret).post("/orders", order(side="sell", qty="100"))

    assert answer.status_code == 503
    assert "already, as 'main'" in answer.json()["detail"]
    assert sent(sim) == []


def test_a_correction_waits_while_an_order_of_its_symbol_is_unresolved(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    account: BrokerAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reconcile(account)
    quote(sim, "TSLA", "249")
    hidden = {"kind": "list_empty", "path": "/v2/account/activities/FILL", "count": None}
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_after"}, hidden])
    api.post("/orders", order())
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])
    monkeypatch.setattr("reconciliation.looks._RESTLESS", timedelta(0))
    reconcile(account)
    assert Suspect.objects.count() == 1
    reconcile(account)
    approver = User.objects.create_superuser("approver")

    with pytest.raises(NotDecided, match="not known yet"):
        corrections.decide(Correction.objects.get().pk, "approve", user=approver, comment="yes")
    jobs.resolve()
    reconcile(account)

    assert Position.objects.get(symbol="TSLA").qty == 50
    assert Correction.objects.get().status == "superseded"
    assert list(violations()) == []


def _put_the_brokers_clock_back(sim: SimulatorServer) -> None:
    now = datetime.fromisoformat(sim.get("/sim/clock")["now"])
    sim.post("/sim/clock", {"set": (now - timedelta(seconds=45)).isoformat()})


def test_the_answer_to_our_own_request_is_ours_whatever_the_brokers_clock_says(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    _put_the_brokers_clock_back(sim)

    answer = api.post("/orders", order(client_order_id="skew-1"))

    assert answer.status_code == 201, answer.content
    jobs.poll()
    assert Order.objects.get().is_open


def test_a_lost_order_is_found_though_the_brokers_clock_is_behind(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    _put_the_brokers_clock_back(sim)
    sim.post("/sim/faults", {"kind": "drop_after", "method": "POST", "path": "/v2/orders"})
    api.post("/orders", order(client_order_id="skew-2"))

    jobs.resolve()

    assert Order.objects.get().status in ("pending_new", "new")
    assert not Alert.objects.filter(code="mismatched_order").exists()


def test_an_older_order_is_proof_of_nothing_while_the_brokers_clock_can_not_be_asked(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    _put_the_brokers_clock_back(sim)
    sim.post("/sim/faults", {"kind": "drop_after", "method": "POST", "path": "/v2/orders"})
    sim.post("/sim/faults", {"kind": "status_before", "path": "/v2/clock", "count": 3})
    api.post("/orders", order(client_order_id="skew-3"))

    jobs.resolve()

    assert Order.objects.get().status == statuses.UNRESOLVED
    assert Alert.objects.filter(code="mismatched_order").exists()
