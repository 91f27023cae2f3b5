"""The poll: fills reach the book by it alone."""

from collections.abc import Callable
from typing import Any

import pytest

from orders import jobs
from orders.models import Fill, Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
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
