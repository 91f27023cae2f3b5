"""An order's way through the API to the broker, on a real simulator over HTTP."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from tests.conftest import Api, hold, quote, sent
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def test_a_buy_of_50_tsla_at_250_30_with_15_bps_leaves_as_249_93(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")

    answer = api.post("/orders", order(client_order_id="rsi-20261120-TSLA-1"))

    assert answer.status_code == 201, answer.content
    assert answer.json()["limit_price"] == "249.93"
    (request,) = sent(sim)
    assert Decimal(str(request["body"]["limit_price"])) == Decimal("249.93")
    assert Decimal(str(request["body"]["qty"])) == 50
    assert request["body"]["client_order_id"] == "rsi-20261120-TSLA-1"
