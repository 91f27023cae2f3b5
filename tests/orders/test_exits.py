"""Dependent orders when they are asked for: what is stored, shown and refused. Nothing is sent."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from orders.models import Order
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from tests.conftest import Api, hold, quote, sent
from tests.orders.dependents import LOSS, PAIR, PARENT, PROFIT, bought, fill, idle, poll, rest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    idle()
    assert list(violations()) == []


def test_both_exits_are_stored_waiting_with_their_parent_and_shown_with_it(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)

    shown = api.get(f"/orders/{parent.pk}").json()
    exits = {
        each["type"]: each for each in (api.get(f"/orders/{i}").json() for i in shown["dependents"])
    }
    assert len(shown["dependents"]) == 2
    assert {each["parent"] for each in exits.values()} == {str(parent.pk)}
    assert {(each["status"], each["state"]) for each in exits.values()} == {("waiting", "queued")}
    assert {(each["side"], each["qty"]) for each in exits.values()} == {("sell", "9")}
    assert {each["time_in_force"] for each in exits.values()} == {"gtc"}
    assert exits["limit"]["limit_price"] == "262.50"
    assert exits["stop"]["stop_price"] == "244.00"
    assert {each["correlation_id"] for each in exits.values()} == {shown["correlation_id"]}
    (first,) = api.get(f"/orders/{exits['stop']['id']}/history").json()
    assert (first["from"], first["to"], first["source"]) == (None, "waiting", "api")
    assert [each["body"]["client_order_id"] for each in sent(sim)] == [str(parent)]


def test_exits_take_the_time_in_force_and_the_limit_that_are_given(
    sim: SimulatorServer, api: Api
) -> None:
    loss = {"stop_price": "244.00", "limit_price": "243.50", "time_in_force": "day"}
    rest(sim, api, stop_loss=loss)

    stop = Order.objects.get(role="stop_loss")
    assert (stop.type, stop.limit_price, stop.time_in_force) == ("stop_limit", 243.5, "day")


def test_the_same_order_again_answers_the_same_exits_and_stores_no_others(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, client_order_id="once", **PAIR)

    again = api.post("/orders", {**PARENT, "client_order_id": "once", **PAIR})
    other = api.post("/orders", {**PARENT, "client_order_id": "once", **PROFIT})

    assert (again.status_code, other.status_code) == (200, 409)
    assert set(again.json()["dependents"]) == {str(e.pk) for e in parent.dependents.all()}
    assert Order.objects.count() == 3


_SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"take_profit": {"limit_price": "249.99"}}, "dependent_price_wrong_side"),
    ({"stop_loss": {"stop_price": "250.00"}}, "dependent_price_wrong_side"),
    ({**PROFIT, "stop_loss": {"stop_price": "262.50"}}, "dependent_price_wrong_side"),
    ({"side": "sell", **PROFIT}, "dependent_price_wrong_side"),
    ({"side": "sell", **LOSS}, "dependent_price_wrong_side"),
    (
        {**LOSS, "take_profit": {"limit_price": "262.50", "time_in_force": "day"}},
        "dependents_differ",
    ),
    ({"qty": "9.5", **PAIR}, "fraction_type_not_allowed"),
    (
        {"qty": "9.5", "take_profit": {"limit_price": "262.50", "time_in_force": "gtc"}},
        "fraction_not_day",
    ),
    ({"take_profit": {"limit_price": "262.505"}}, "limit_price_off_tick"),
    ({"stop_loss": {"stop_price": "244.001"}}, "stop_price_off_tick"),
    ({"take_profit": {"limit_price": "262.50", "time_in_force": "ioc"}}, "invalid_request"),
    ({"take_profit": {"limit_price": 262.5}}, "invalid_request"),
]


def test_exits_that_make_no_sense_are_refused_with_their_order_and_nothing_is_stored(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "TSLA", "50", "240")

    for exits, code in _SENSELESS:
        answer = api.post("/orders", {**PARENT, **exits})
        assert (answer.status_code, answer.json()["code"]) == (422, code), exits
        assert len(answer.json()["detail"]) > 20

    assert Order.objects.count() == 0
    assert sent(sim) == []


def test_a_fraction_has_one_exit_for_the_day(sim: SimulatorServer, api: Api) -> None:
    bought(sim, api, qty="9.5", **PROFIT)

    exit = Order.objects.get(role="take_profit")
    assert (exit.time_in_force, exit.qty) == ("day", Decimal("9.5"))
    assert exit.broker_order_id is not None


def test_a_denied_order_stores_no_exits(sim: SimulatorServer, api: Api) -> None:
    sim.post("/sim/account", {"buying_power": "100"})

    answer = api.post("/orders", {**PARENT, **PAIR})

    assert answer.json()["code"] == "order_denied"
    assert [order.status for order in Order.objects.all()] == ["denied"]
    assert sent(sim) == []


def test_the_exits_of_an_order_that_the_broker_refuses_are_closed_at_once(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/faults", [{"kind": "no_funds"}])

    answer = api.post("/orders", {**PARENT, **PAIR})
    idle()

    assert answer.json()["code"] == "broker_rejected"
    assert {o.role: o.status for o in Order.objects.all()} == {
        "": "rejected",
        "take_profit": "canceled",
        "stop_loss": "canceled",
    }
    step = Order.objects.get(role="take_profit").history.latest("seq")
    assert (step.source, step.reason) == ("dependents", "Its parent ended with nothing filled.")
    assert len(sent(sim)) == 1
    assert not Alert.objects.exclude(code="breaker_open").exists()


def test_the_exits_of_an_order_rejected_after_it_was_accepted_are_closed(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/faults", [{"kind": "reject_later"}])
    quote(sim, "TSLA", "255")
    api.post("/orders", {**PARENT, **PAIR})
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "rejected"])

    poll()

    assert sorted(o.status for o in Order.objects.all()) == ["canceled", "canceled", "rejected"]
    assert len(sent(sim)) == 1


def test_an_order_of_its_own_waits_for_the_parent_that_it_names(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api)

    answer = api.post("/orders", _exit(parent, client_order_id="exit-1"))

    assert answer.status_code == 201
    told = answer.json()
    assert (told["status"], told["parent"], told["time_in_force"]) == (
        "waiting",
        str(parent.pk),
        "gtc",
    )
    assert api.get(f"/orders/{parent.pk}").json()["dependents"] == [told["id"]]
    repeated = api.post("/orders", _exit(parent, client_order_id="exit-1"))
    assert (repeated.status_code, repeated.json()["id"]) == (200, told["id"])
    assert [each["body"]["client_order_id"] for each in sent(sim)] == [str(parent)]

    fill(sim, parent)
    poll()

    assert [each["body"]["client_order_id"] for each in sent(sim)] == [str(parent), "exit-1"]


def test_its_type_needs_no_enabling_and_its_time_in_force_may_be_given(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api)
    stop = _exit(parent, type="stop", limit_price=None, stop_price="244.00", time_in_force="day")

    assert api.post("/orders", stop).status_code == 201
    fill(sim, parent)
    poll()

    body = sent(sim)[-1]["body"]
    assert (body["type"], body["time_in_force"]) == ("stop", "day")


def test_an_order_that_is_no_exit_of_its_parent_is_refused_and_not_stored(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api)
    stop_at_once = {"time_in_force": "ioc", "type": "stop", "limit_price": None}
    senseless: list[tuple[dict[str, Any], str]] = [
        ({"qty": "10"}, "parent_too_small"),
        ({"side": "buy"}, "parent_differs"),
        ({"symbol": "KO"}, "parent_differs"),
        ({"parent": "00000000-0000-0000-0000-000000000000"}, "parent_not_found"),
        ({"parent": "oke-1"}, "invalid_request"),
        (PROFIT, "invalid_request"),
        ({**stop_at_once, "stop_price": "244"}, "time_in_force_not_allowed"),
    ]

    for changes, code in senseless:
        answer = api.post("/orders", _exit(parent, **changes))
        assert (answer.status_code, answer.json()["code"]) == (422, code), changes

    assert list(Order.objects.all()) == [parent]
    assert len(sent(sim)) == 1


def test_an_exit_can_not_wait_for_an_exit(sim: SimulatorServer, api: Api) -> None:
    rest(sim, api, **PROFIT)
    profit = Order.objects.get(role="take_profit")

    answer = api.post("/orders", _exit(profit, side="buy", limit_price="200.00"))

    assert (answer.status_code, answer.json()["code"]) == (422, "parent_is_dependent")
    assert Order.objects.count() == 2


def test_an_order_can_not_wait_for_one_that_ended_with_nothing_filled(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api)
    sim.post("/sim/cancel", {"id": parent.broker_order_id})
    until(lambda: _poll_sees(parent, "canceled"))

    answer = api.post("/orders", _exit(parent))

    assert (answer.status_code, answer.json()["code"]) == (422, "parent_closed")
    assert "canceled" in answer.json()["detail"]
    assert list(Order.objects.all()) == [parent]


def test_what_a_parent_was_replaced_by_says_how_much_may_wait_for_it(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api)
    api.post(f"/orders/{parent.pk}/replace", {"qty": "20"})
    until(lambda: _poll_sees(parent, "replaced"))

    larger = api.post("/orders", _exit(parent, qty="20"))
    too_large = api.post("/orders", _exit(parent, qty="21"))
    (successor,) = parent.replacements.all()
    sim.post("/sim/cancel", {"id": successor.broker_order_id})
    until(lambda: _poll_sees(successor, "canceled"))
    too_late = api.post("/orders", _exit(parent))

    assert [a.status_code for a in (larger, too_large, too_late)] == [201, 422, 422]
    assert too_large.json()["code"] == "parent_too_small"
    assert too_late.json()["code"] == "parent_closed"


def test_an_exit_of_a_parent_that_has_filled_is_sent_at_once(
    sim: SimulatorServer, api: Api
) -> None:
    parent = bought(sim, api)

    answer = api.post("/orders", _exit(parent, qty="5"))
    idle()

    assert answer.status_code == 201
    assert sent(sim)[-1]["body"]["client_order_id"] == answer.json()["client_order_id"]
    assert api.get(f"/orders/{answer.json()['id']}").json()["status"] in ("pending_new", "new")


def test_a_sell_has_one_exit_since_the_broker_takes_no_pair_for_what_follows_it(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "TSLA", "50", "240")
    exits = {"take_profit": {"limit_price": "240"}, "stop_loss": {"stop_price": "270"}}

    answer = api.post("/orders", {**PARENT, "side": "sell", **exits})

    assert (answer.status_code, answer.json()["code"]) == (422, "pair_needs_buy")
    assert Order.objects.count() == 0
    assert sent(sim) == []


def _exit(parent: Order, /, **changes: Any) -> dict[str, Any]:
    """A sell of the parent's shares above its price."""
    body = {
        "symbol": "TSLA",
        "side": "sell",
        "qty": "9",
        "limit_price": "262.50",
        "parent": str(parent.pk),
    }
    return {key: value for key, value in {**body, **changes}.items() if value is not None}


def _poll_sees(order: Order, status: str) -> bool:
    poll()
    order.refresh_from_db()
    return order.status == status
