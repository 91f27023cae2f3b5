"""What the order management of source F had to stand: a broker that times out after the configured
retries, a fill while the cancel is under way, a caller that retries at once, insufficient funds,
and a limit price that rounds to nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from orders import jobs, resolver
from orders.models import Order
from ordinis.accounts.models import SCOPES, ApiToken, Strategy
from ordinis.broker.transport import ATTEMPTS
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api, quote, sent
from tests.orders.dependents import at_broker, idle, poll
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]
POST_ORDERS = {"method": "POST", "path": "/v2/orders"}


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    idle()
    assert list(violations()) == []


# --- the broker times out after the configured retries -----------------------------------------


def test_before_an_order_is_sent_the_caller_is_told_and_nothing_is_stored(
    sim: SimulatorServer, api: Api, order: MakeOrder, settings: Any
) -> None:
    api.post("/orders", order(limit_price="1.00", reference_price=None))
    sim.delete("/sim/log")
    settings.FIGURES_MAX_AGE = 0
    settings.BROKER_TIMEOUT = 0.2
    sim.post("/sim/faults", [{"kind": "stall", "path": "/v2/account", "count": None}])

    answer = api.post("/orders", order())

    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert "nothing was sent" in answer.json()["detail"]
    assert "Try again" in answer.json()["detail"]
    assert answer["Retry-After"]
    assert len(sim.get("/sim/log?path=/v2/account")) == ATTEMPTS
    assert Order.objects.count() == 1
    assert sent(sim) == []


def test_an_order_that_timed_out_is_not_posted_again_blindly_and_not_lost(
    sim: SimulatorServer, api: Api, order: MakeOrder, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    settings.BROKER_TIMEOUT = 1
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "stall", "seconds": 1.2}])

    answer = api.post("/orders", order(client_order_id="f-1"))
    assert (answer.status_code, answer.json()["status"]) == (202, "unresolved")
    assert len(sent(sim)) == 1
    for _ in range(3):
        jobs.resolve()

    assert [each["body"]["client_order_id"] for each in sent(sim)] == ["f-1", "f-1"]
    (only,) = sim.get("/sim/state")["orders"]
    assert only["client_order_id"] == "f-1"
    assert Order.objects.get().broker_order_id == only["id"]


def test_a_cancel_that_timed_out_is_told_as_such_and_kept(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    standing = Order.objects.get(pk=api.post("/orders", order()).json()["id"])
    until(lambda: at_broker(sim, standing)["status"] == "new")
    away = {"kind": "status_before", "method": "DELETE", "path": "/v2/orders/.*", "count": None}
    sim.post("/sim/faults", [away])

    answer = api.post(f"/orders/{standing.pk}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert "The cancel is kept" in answer.json()["detail"]
    assert len(sim.get("/sim/log?method=DELETE")) == ATTEMPTS
    sim.delete("/sim/faults")
    jobs.pursue_cancels()
    jobs.follow_up()

    until(lambda: at_broker(sim, standing)["status"] == "canceled")
    poll()
    assert Order.objects.get().status == "canceled"


# --- a fill arrives while the cancel is under way -----------------------------------------------


def test_a_fill_while_the_cancel_is_under_way_counts_and_no_further_cancel_is_sent(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    standing = Order.objects.get(pk=api.post("/orders", order()).json()["id"])
    until(lambda: at_broker(sim, standing)["status"] == "new")
    sim.post("/sim/faults", [{"kind": "fill_while_cancelling"}])

    assert api.post(f"/orders/{standing.pk}/cancel").status_code == 200
    until(lambda: at_broker(sim, standing)["status"] == "filled")
    poll()
    again = api.post(f"/orders/{standing.pk}/cancel")
    jobs.pursue_cancels()
    jobs.follow_up()

    assert (again.status_code, again.json()["status"]) == (200, "filled")
    assert Position.objects.get().qty == 50
    assert len(sim.get("/sim/log?method=DELETE")) == 1


# --- the caller retries at once -----------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False], ids=["same id", "an id each"])
def test_a_caller_that_retries_at_once_has_one_order(
    sim: SimulatorServer, strategy: Strategy, order: MakeOrder, named: bool
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/options", {"latency": 0.02})
    _, token = ApiToken.issue(strategy, SCOPES)
    start = Barrier(6)

    def call(number: int) -> Any:
        body = order(client_order_id="f-2" if named else f"f-2-{number}")
        start.wait(10)
        try:
            return Api(token).post("/orders", body)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(call, range(6)))

    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 201, 202}
    assert codes.count(201) <= 1
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(sent(sim)) == 1
    assert len(sim.get("/sim/state")["orders"]) == 1


# --- the broker says insufficient funds ---------------------------------------------------------


def test_insufficient_funds_are_passed_on_and_nothing_is_retried(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{"kind": "no_funds"}])

    answer = api.post("/orders", order(client_order_id="f-3"))
    for job in (jobs.resolve, jobs.pursue_cancels, jobs.follow_up, jobs.watch, jobs.poll):
        job()
    again = api.post("/orders", order(client_order_id="f-3"))

    assert (answer.status_code, answer.json()["code"]) == (422, "broker_rejected")
    assert answer.json()["broker_message"] == "insufficient buying power"
    assert (again.status_code, again.json()["status"]) == (200, "rejected")
    assert answer.json()["order"]["status"] == "rejected"
    assert len(sent(sim)) == 1


# --- a limit price that rounds to nothing -------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("0.04", "limit_price_not_positive"),
        ("0.03", "limit_price_not_positive"),
        ("0.0401", "max_slippage_exceeded"),
    ],
)
def test_a_limit_price_that_rounds_to_nothing_is_an_invalid_order(
    sim: SimulatorServer, api: Api, order: MakeOrder, reference: str, code: str
) -> None:
    call_command("limits", "offset_mode=absolute", "buy_offset=0.04", "--reason", "source F")

    answer = api.post("/orders", order(reference_price=reference))

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert Order.objects.count() == 0
    assert sent(sim) == []


def test_a_sell_below_the_smallest_step_is_an_invalid_order(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    answer = api.post("/orders", order(side="sell", reference_price="0.00009"))

    assert (answer.status_code, answer.json()["code"]) == (422, "limit_price_below_tick")
    assert Order.objects.count() == 0
    assert sent(sim) == []
