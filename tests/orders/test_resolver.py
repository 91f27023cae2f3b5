"""Lost answers: an order whose outcome is unknown is brought to proof, and never doubled."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings

from orders import jobs, resolver, statuses
from orders.models import Order
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from tests.conftest import Api, quote, sent
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]
POST_ORDERS = {"method": "POST", "path": "/v2/orders"}


def _at_broker(sim: SimulatorServer) -> list[dict[str, Any]]:
    return list(sim.get("/sim/state")["orders"])


def _age(order: Order, seconds: float) -> None:
    """Plays that time has passed since the order was made, sent and first missed."""
    moved = {
        name: getattr(order, name) - timedelta(seconds=seconds)
        for name in ("created_at", "judged_at", "submitted_at", "first_missed_at")
        if getattr(order, name) is not None
    }
    Order.objects.filter(pk=order.pk).update(**moved)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop_after"},
        {"kind": "status_after", "status": 504},
        {"kind": "status_after", "status": 500},
        {"kind": "html_after", "status": 502},
        {"kind": "html_after", "status": 200},
        {"kind": "delay_after", "seconds": 1.5},
    ],
    ids=lambda fault: f"{fault['kind']} {fault.get('status', '')}",
)
def test_an_accepted_order_whose_answer_is_lost_is_found_and_sent_only_once(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    settings: LazySettings,
    fault: dict[str, Any],
) -> None:
    settings.BROKER_TIMEOUT = 1
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, **fault}])

    answer = api.post("/orders", order(client_order_id="lost-1"))
    assert answer.status_code == 202, answer.content
    assert answer.json()["status"] == "unresolved"
    jobs.resolve()

    found = api.get("/orders/by-client-id/lost-1").json()
    assert found["status"] in ("pending_new", "new")
    assert [o["client_order_id"] for o in _at_broker(sim)] == ["lost-1"]
    assert len(sent(sim)) == 1
    assert list(violations()) == []


def test_an_order_that_never_arrived_is_sent_again_with_the_same_id_after_three_misses(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    api.post("/orders", order(client_order_id="gone-1"))

    for _ in range(3):
        jobs.resolve()
    assert Order.objects.get().status == statuses.UNRESOLVED, "10 seconds have not passed"
    assert _at_broker(sim) == []
    _age(Order.objects.get(), 11)
    jobs.resolve()

    resent = Order.objects.get()
    assert (resent.status, resent.attempts) == ("pending_new", 2)
    assert [o["client_order_id"] for o in _at_broker(sim)] == ["gone-1"]
    first, second = (request["body"] for request in sent(sim))
    assert first == second


def test_two_misses_are_not_proof_however_long_they_took(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    api.post("/orders", order())

    jobs.resolve()
    _age(Order.objects.get(), 30)
    jobs.resolve()

    assert Order.objects.get().status == statuses.UNRESOLVED
    assert len(sent(sim)) == 1


def test_an_order_too_old_to_send_fails_and_a_later_report_reopens_it(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    api.post("/orders", order(client_order_id="gone-2"))
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 90)
    jobs.resolve()
    assert Order.objects.get().status == statuses.FAILED
    quote(sim, "TSLA", "260")

    late = {
        "symbol": "TSLA",
        "side": "buy",
        "qty": "50",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "249.93",
        "client_order_id": "gone-2",
    }
    sim.trading("POST", "/v2/orders", json=late)
    jobs.poll()

    # It was written off, and whoever sent it has gone on: it is cancelled, and a person told.
    def is_cancelled() -> bool:
        jobs.poll()
        return Order.objects.get().status == "canceled"

    until(is_cancelled)
    assert Alert.objects.get(code="late_report").severity == "critical"
    assert list(violations()) == []


def test_a_lookup_that_lags_behind_does_not_make_a_second_order(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_after"}])
    sim.post("/sim/faults", [{"kind": "lookup_404", "seconds": 60}])
    sim.post("/sim/faults", [{"kind": "list_empty", "path": "/v2/orders", "count": None}])
    api.post("/orders", order(client_order_id="lag-1"))
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 11)

    jobs.resolve()  # the third miss: sent again, and the broker refuses the spent id
    assert Order.objects.get().status == statuses.UNRESOLVED
    sim.delete("/sim/faults")
    jobs.resolve()

    assert Order.objects.get().status in ("pending_new", "new")
    assert len(_at_broker(sim)) == 1


def test_an_order_that_only_the_look_up_misses_is_found_in_the_list_before_it_is_sent_again(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_after"}])
    sim.post("/sim/faults", [{"kind": "lookup_404", "seconds": 60}])
    api.post("/orders", order(client_order_id="lag-2"))
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 11)

    jobs.resolve()

    assert Order.objects.get().status in ("pending_new", "new")
    assert len(sent(sim)) == 1


def test_an_order_refused_when_it_is_sent_again_is_rejected_once_it_is_not_found_again(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "no_funds"}])
    api.post("/orders", order())
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 11)
    jobs.resolve()
    assert Order.objects.get().status == statuses.UNRESOLVED, "the first sending may be there"
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 11)

    jobs.resolve()

    refused = Order.objects.get()
    assert refused.status == statuses.REJECTED
    assert "insufficient buying power" in (refused.rejection or {})["message"]
    assert len(sent(sim)) == 2
    assert list(violations()) == []


def test_a_list_that_can_not_be_read_whole_is_no_proof(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    api.post("/orders", order())
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 11)
    away = {"kind": "status_before", "method": "GET", "path": "/v2/orders", "count": 3}
    sim.post("/sim/faults", [away])

    jobs.resolve()

    assert Order.objects.get().status == statuses.UNRESOLVED
    assert len(sent(sim)) == 1


def test_an_order_that_was_to_be_cancelled_is_never_sent_again(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    order_id = api.post("/orders", order()).json()["id"]
    assert api.post(f"/orders/{order_id}/cancel").status_code == 202
    for _ in range(2):
        jobs.resolve()
    _age(Order.objects.get(), 11)

    jobs.resolve()

    assert Order.objects.get().status == statuses.FAILED
    assert len(sent(sim)) == 1


def test_an_order_whose_sender_died_is_taken_over(
    sim: SimulatorServer, api: Api, submitted: Order
) -> None:
    assert resolver.due(datetime.now(UTC)) == []
    _age(submitted, 16)

    jobs.resolve()

    assert Order.objects.get().status == statuses.UNRESOLVED
    assert sent(sim) == []


def test_a_broker_that_does_not_answer_proves_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_before"}])
    api.post("/orders", order())
    sim.post("/sim/faults", [{"kind": "status_before", "status": 503, "count": 20}])

    for _ in range(5):
        jobs.resolve()

    assert Order.objects.get().lookups_missed == 0
    assert Order.objects.get().status == statuses.UNRESOLVED


def test_buys_of_a_symbol_wait_until_its_unresolved_order_is_proved(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{**POST_ORDERS, "kind": "drop_after"}])
    api.post("/orders", order())

    denied = api.post("/orders", order(reference_price=None, limit_price="249"))
    jobs.resolve()
    accepted = api.post("/orders", order(reference_price=None, limit_price="249"))

    assert [v["code"] for v in denied.json()["violations"]] == ["symbol_unresolved"]
    assert accepted.status_code == 201
