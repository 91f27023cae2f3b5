"""2025-08-07: an order written off as a "timeout" that had filled; a sell of 1,591.166892 FNGU cut
to 711 from stale data and then refused for want of a position; TECL refused for buying power.

(The positions that were sold whole and bought back belong to rebalancing.)
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from orders import jobs
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from positions.models import Position
from risk import figures
from tests.conftest import Api, hold, quote, sent
from tests.listening import filled_at_broker
from tests.orders.dependents import idle
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
FNGU = {"symbol": "FNGU", "side": "sell", "limit_price": "25.00", "qty": "1591.166892"}


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    idle()
    assert list(violations()) == []


@pytest.mark.parametrize(
    "lost",
    [{"kind": "delay_after", "seconds": 1.2}, {"kind": "status_after", "status": 504}],
    ids=["late", "504"],
)
def test_an_order_believed_a_timeout_that_had_filled_is_found_filled(
    sim: SimulatorServer, api: Api, settings: Any, lost: dict[str, Any]
) -> None:
    settings.BROKER_TIMEOUT = 1
    quote(sim, "TSLA", "249")
    sim.post("/sim/faults", [{"method": "POST", "path": "/v2/orders", **lost}])
    body = {"client_order_id": "a839190e", "symbol": "TSLA", "side": "buy", "qty": "50"}
    body |= {"limit_price": "250.00"}

    answer = api.post("/orders", body)
    assert (answer.status_code, answer.json()["status"]) == (202, "unresolved")
    until(lambda: filled_at_broker(sim))
    jobs.resolve()

    found = api.get("/orders/by-client-id/a839190e").json()
    assert (found["status"], found["filled_qty"]) == ("filled", "50")
    assert Decimal(found["average_fill_price"]) == 249
    assert Position.objects.get().qty == 50
    again = api.post("/orders", body)
    assert (again.status_code, again.json()["id"]) == (200, found["id"])
    assert len(sent(sim)) == 1
    steps = [step["to"] for step in api.get(f"/orders/{found['id']}/history").json()]
    assert steps == ["submitting", "unresolved", "filled"]


def test_the_sell_of_1591_166892_fngu_is_judged_by_what_is_free_now_and_leaves_whole(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "FNGU", "711", "24.00")
    quote(sim, "FNGU", "24.90")
    figures.ask(account)  # what everybody may use for the next second, and is stale by then
    hold(sim, "FNGU", "1591.166892", "24.00")

    answer = api.post("/orders", FNGU)

    assert answer.status_code == 201, answer.content
    assert [each["body"]["qty"] for each in sent(sim)] == ["1591.166892"]
    quote(sim, "FNGU", "25.01")
    until(lambda: filled_at_broker(sim))
    jobs.poll()
    assert Position.objects.get(symbol="FNGU").qty == 0


@pytest.mark.parametrize("free", ["711", "0"], ids=["711 free", "no position"])
def test_the_same_sell_is_denied_when_less_is_free_now_and_is_not_cut_in_silence(
    sim: SimulatorServer, api: Api, account: BrokerAccount, free: str
) -> None:
    hold(sim, "FNGU", "1591.166892", "24.00")
    figures.ask(account)
    hold(sim, "FNGU", free, "24.00")

    answer = api.post("/orders", FNGU)

    assert (answer.status_code, answer.json()["code"]) == (422, "order_denied")
    (violation,) = answer.json()["violations"]
    assert violation["code"] == "insufficient_quantity"
    assert Decimal(violation["limit"]) == Decimal(free)
    assert Decimal(violation["actual"]) == Decimal("1591.166892")
    assert Order.objects.get().status == "denied"
    assert sent(sim) == []


def test_the_tecl_order_of_52596_against_3432_62_is_denied_here_with_both_amounts(
    sim: SimulatorServer, api: Api, wide_limits: None
) -> None:
    sim.post("/sim/account", {"buying_power": "3432.62"})
    body = {"symbol": "TECL", "side": "buy", "qty": "600", "limit_price": "87.66"}

    answer = api.post("/orders", body)

    assert (answer.status_code, answer.json()["code"]) == (422, "order_denied")
    (violation,) = answer.json()["violations"]
    assert violation["code"] == "insufficient_buying_power"
    assert "needs $52,596.00, has $3,432.62" in violation["message"]
    assert Decimal(violation["actual"]) == 52596
    assert answer.json()["order"]["status"] == "denied"
    assert sent(sim) == []
