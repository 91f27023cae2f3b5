"""The poll and the taking over of the book: what is read from the broker without its stream."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from orders import jobs
from orders.models import Fill, Order
from orders.sync import ensure_open_book, poll
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.errors import BrokerUnavailable
from positions.models import Position
from tests.conftest import Api, quote
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def test_a_fill_is_noticed_by_the_poll_alone(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    api.post("/orders", order())
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])

    jobs.poll()

    assert Order.objects.get().status == "filled"
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert Fill.objects.get().inferred


def test_orders_of_others_are_left_alone(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    other = {
        "symbol": "KO",
        "side": "buy",
        "qty": "1",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "1.00",
        "client_order_id": "not-ours",
    }
    sim.trading("POST", "/v2/orders", json=other)

    jobs.poll()

    assert Order.objects.count() == 0
    assert Alert.objects.count() == 0


def test_an_open_order_that_the_broker_no_longer_knows_is_told_and_holds_up_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order())
    sim.post("/sim/reset", {})
    account.refresh_from_db()

    assert poll(account)

    alert = Alert.objects.get()
    assert (alert.code, alert.severity) == ("order_missing", "critical")
    assert Order.objects.get().is_open


def test_a_look_up_that_fails_leaves_the_poll_incomplete_and_changes_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "249")
    broker_order_id = api.post("/orders", order()).json()["broker_order_id"]
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])
    account.refresh_from_db()
    path = f"/v2/orders/{broker_order_id}"
    sim.post("/sim/faults", [{"kind": "status_before", "path": path, "count": 9}])

    assert not poll(account)
    assert Order.objects.get().filled_qty == 0
    sim.delete("/sim/faults")

    assert poll(account)
    assert Order.objects.get().status == "filled"


def test_the_book_is_not_opened_while_orders_move(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    """A fill between the two reads would be missing from the opening, or in it twice."""
    sim.post("/sim/price", {"hold": False})
    sim.post("/sim/options", {"tick_seconds": 0.001, "latency": 0.05})
    ended = threading.Event()

    def trade() -> None:
        while not ended.is_set():
            body = {
                "symbol": "KO",
                "side": "buy",
                "qty": "1",
                "type": "limit",
                "time_in_force": "day",
                "limit_price": "1.00",
            }
            sim.trading("POST", "/v2/orders", json=body)

    trading = threading.Thread(target=trade)
    trading.start()
    try:
        with pytest.raises(BrokerUnavailable, match="keeps moving"):
            ensure_open_book(account)
    finally:
        ended.set()
        trading.join()

    assert BrokerAccount.objects.get().opened_at is None
    ensure_open_book(account)
    assert BrokerAccount.objects.get().opened_at is not None
