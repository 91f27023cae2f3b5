"""What a venue does to orders that nobody expects: late fills, lost races, busts."""

from typing import Any

import pytest

from tests.simulator.desk import accepted, filled, order, position, reaches, resting, wait_for
from tests.simulator.eventsource import ACTIVITIES, told
from tests.simulator_server import SimulatorServer


def _events(sim: SimulatorServer, client_order_id: str) -> list[str]:
    return [
        event["event"]
        for event in told(sim)
        if event["order"]["client_order_id"] == client_order_id
    ]


def _cancel(sim: SimulatorServer, **fields: Any) -> dict[str, Any]:
    """An order for 10 at 100 that is being cancelled."""
    waiting = resting(sim, limit_price="100", client_order_id="o1", **fields)
    assert sim.trading("DELETE", f"/v2/orders/{waiting['id']}").status_code == 204
    return waiting


def test_an_order_can_fill_after_it_was_cancelled(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "late_fill", "seconds": 0.01})

    waiting = _cancel(sim)

    assert reaches(sim, waiting["id"], "filled")["canceled_at"] is not None
    assert _events(sim, "o1") == ["pending_new", "new", "pending_cancel", "canceled", "fill"]
    assert position(sim, "TSLA")["qty"] == "10"


def test_an_order_can_fill_while_it_is_being_cancelled(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "fill_while_cancelling"})

    waiting = _cancel(sim)

    assert reaches(sim, waiting["id"], "filled")["filled_qty"] == "10"
    assert _events(sim, "o1")[2:] == ["pending_cancel", "fill", "order_cancel_rejected"]


def test_an_order_can_fill_in_part_before_its_cancel_comes_through(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "part_fill_while_cancelling"})

    waiting = _cancel(sim)

    assert reaches(sim, waiting["id"], "canceled")["filled_qty"] == "5"
    assert _events(sim, "o1")[2:] == ["pending_cancel", "partial_fill", "canceled"]


def test_a_cancel_can_be_rejected_and_asked_for_again(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "cancel_rejected"})
    waiting = _cancel(sim)
    reaches(sim, waiting["id"], "new")
    assert _events(sim, "o1")[2:] == ["pending_cancel", "order_cancel_rejected"]

    sim.trading("DELETE", f"/v2/orders/{waiting['id']}")

    reaches(sim, waiting["id"], "canceled")


def test_an_accepted_order_can_be_rejected_by_the_venue(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "reject_later", "body": "o1"})
    spared = accepted(sim, limit_price="100", client_order_id="o2")
    rejected = accepted(sim, limit_price="100", client_order_id="o1")

    assert reaches(sim, rejected["id"], "rejected")["failed_at"] is not None
    reaches(sim, spared["id"], "new")
    assert _events(sim, "o1") == ["pending_new", "rejected"]


def test_a_replacement_can_be_rejected_and_the_old_order_lives_on(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "replace_rejected"})
    old = resting(sim, limit_price="100", client_order_id="o1")

    new = sim.trading("PATCH", f"/v2/orders/{old['id']}", json={"limit_price": "101"}).json()

    reaches(sim, new["id"], "rejected")
    assert order(sim, old["id"])["status"] == "new"
    assert _events(sim, "o1")[2:] == ["pending_replace", "order_replace_rejected"]


def test_a_fill_can_be_taken_back_by_itself(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "bust_later", "seconds": 0.01})

    filled(sim, client_order_id="o1")

    wait_for(lambda: _events(sim, "o1")[3:] == ["trade_bust"])
    assert sim.trading("GET", "/v2/positions").json() == []
    assert sim.get("/sim/state")["account"]["cash"] == "1000000"


def test_a_fill_that_was_taken_back_by_hand_is_not_taken_back_again(sim: SimulatorServer) -> None:
    sim.post("/sim/clock", {"hold": True})
    sim.post("/sim/faults", {"kind": "bust_later", "seconds": 5})
    accepted(sim, client_order_id="o1")
    sim.post("/sim/clock", {"advance": 1})
    sim.post("/sim/bust", {"execution_id": told(sim)[2]["execution_id"]})

    sim.post("/sim/clock", {"advance": 10})

    assert _events(sim, "o1")[2:] == ["fill", "trade_bust"]
    assert sim.get("/sim/state")["account"]["cash"] == "1000000"


@pytest.mark.parametrize(
    ("price", "kind", "cash"),
    [(None, "trade_bust", "1000000"), ("250.10", "trade_correct", "997499")],
)
def test_a_bust_or_correction_names_the_execution_and_comes_once(
    sim: SimulatorServer, price: str | None, kind: str, cash: str
) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "250.20", "ask": "250.30"})
    filled(sim, client_order_id="o1")
    execution_id = told(sim)[2]["execution_id"]
    command = {"execution_id": execution_id} | ({"price": price} if price else {})

    sim.post("/sim/bust", command)

    event, activity = told(sim)[-1], told(sim, ACTIVITIES)[-1]
    assert (event["event"], event["previous_execution_id"]) == (kind, execution_id)
    assert (activity["previous_id"], activity["ref_id"]) == (execution_id, event["execution_id"])
    assert activity["details"]["execution_type"] == kind
    assert sim.get("/sim/state")["account"]["cash"] == cash
    again = sim.trading("POST", "/sim/bust", json=command)
    assert again.status_code == 422
    assert sim.get("/sim/state")["account"]["cash"] == cash


def test_a_late_fill_can_be_made_by_hand(sim: SimulatorServer) -> None:
    waiting = _cancel(sim)
    reaches(sim, waiting["id"], "canceled")
    assert sim.trading("POST", "/sim/fill", json={"id": waiting["id"]}).status_code == 422

    sim.post("/sim/fill", {"id": waiting["id"], "qty": "4", "price": "99", "late": True})

    late = order(sim, waiting["id"])
    assert (late["status"], late["filled_qty"]) == ("canceled", "4")
    assert _events(sim, "o1")[-2:] == ["canceled", "partial_fill"]
