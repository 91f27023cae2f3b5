"""Faults: what the client gets to see goes wrong; what the exchange does stays right."""

import pytest
import requests

from tests.simulator.desk import accepted, filled, order, resting, send, wait_for
from tests.simulator_server import SimulatorServer


def _orders(sim: SimulatorServer) -> list[str]:
    return [found["client_order_id"] for found in sim.get("/sim/state")["orders"]]


def test_an_answer_dropped_after_acceptance_leaves_an_order_that_fills(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/faults", {"kind": "drop_after", "method": "POST", "path": "/v2/orders"})

    with pytest.raises(requests.ConnectionError):
        send(sim, client_order_id="o1")

    found = sim.trading(
        "GET", "/v2/orders:by_client_order_id", params={"client_order_id": "o1"}
    ).json()
    wait_for(lambda: order(sim, found["id"])["status"] == "filled")
    assert send(sim, client_order_id="o1").status_code == 422


def test_a_request_dropped_before_leaves_nothing_but_its_line_in_the_log(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/faults", {"kind": "drop_before", "method": "POST"})

    with pytest.raises(requests.ConnectionError):
        send(sim, client_order_id="o1")

    assert _orders(sim) == []
    (entry,) = sim.get("/sim/log", method="POST", path="/v2/orders")
    assert (entry["fault"], entry["status"]) == ("drop_before", None)
    assert entry["body"]["client_order_id"] == "o1"
    assert send(sim, client_order_id="o1").status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "is_taken"),
    [
        ({"kind": "status_after"}, 504, True),
        ({"kind": "status_after", "status": 500}, 500, True),
        ({"kind": "status_before"}, 503, False),
        ({"kind": "status_before", "status": 429, "retry_after": 2}, 429, False),
        ({"kind": "html_after"}, 502, True),
        ({"kind": "html_after", "status": 200}, 200, True),
    ],
)
def test_a_status_can_lie_about_what_became_of_the_order(
    sim: SimulatorServer, fault: dict[str, object], status: int, is_taken: bool
) -> None:
    sim.post("/sim/faults", {**fault, "path": "/v2/orders"})

    answer = send(sim, client_order_id="o1")

    assert answer.status_code == status
    assert (_orders(sim) == ["o1"]) is is_taken
    assert answer.headers.get("Retry-After") == ("2" if "retry_after" in fault else None)
    assert answer.headers["Content-Type"].startswith(
        "text/html" if fault["kind"] == "html_after" else "application/json"
    )


def test_a_late_answer_comes_after_the_order_took_effect(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "delay_after", "seconds": 5, "path": "/v2/orders"})
    body = {"symbol": "TSLA", "qty": "1", "side": "buy", "type": "market"}

    with pytest.raises(requests.ReadTimeout):
        sim.trading("POST", "/v2/orders", json={**body, "time_in_force": "day"}, timeout=0.1)

    assert len(_orders(sim)) == 1


def test_a_stalled_request_is_never_answered_and_never_done(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "stall", "method": "POST"})

    with pytest.raises(requests.ReadTimeout):
        sim.trading("POST", "/v2/orders", json={}, timeout=0.1)

    assert _orders(sim) == []


def test_a_look_up_can_fail_for_a_while_after_acceptance(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "lookup_404", "seconds": 0.15})
    accepted(sim, client_order_id="o1", limit_price="100")

    def look() -> int:
        query = {"client_order_id": "o1"}
        return sim.trading("GET", "/v2/orders:by_client_order_id", params=query).status_code

    assert look() == 404
    wait_for(lambda: look() == 200)


def test_a_fault_meets_only_the_requests_it_names_and_only_so_often(sim: SimulatorServer) -> None:
    sim.post(
        "/sim/faults",
        [{"kind": "status_before", "path": "/v2/orders", "body": "OKE", "count": 2}],
    )

    assert send(sim).status_code == 200
    assert sim.trading("GET", "/v2/account").status_code == 200
    statuses = [send(sim, symbol="OKE", limit_price="50").status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert sim.get("/sim/faults") == []


def test_faults_can_be_taken_away(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "status_before", "count": 100})
    sim.delete("/sim/faults")

    assert sim.trading("GET", "/v2/account").status_code == 200


def test_a_fault_that_does_not_exist_is_refused(sim: SimulatorServer) -> None:
    answer = sim.trading("POST", "/sim/faults", json={"kind": "earthquake"})

    assert answer.status_code == 422
    assert "drop_after" in answer.json()["message"]


def test_the_log_proves_that_nothing_was_sent(sim: SimulatorServer) -> None:
    sim.trading("GET", "/v2/account")
    assert sim.get("/sim/log", method="POST") == []

    filled(sim, client_order_id="o1")

    (entry,) = sim.get("/sim/log", method="POST", path="/v2/orders")
    assert (entry["status"], entry["body"]["client_order_id"]) == (200, "o1")
    assert "key" not in str(entry).lower()
    sim.delete("/sim/log")
    assert sim.get("/sim/log") == []


def test_latency_holds_up_each_answer(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"latency": 0.05})

    assert sim.trading("GET", "/v2/clock").elapsed.total_seconds() >= 0.05


def test_listed_positions_can_lag_behind_their_orders(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"position_lag": 30})
    filled(sim, symbol="OKE", qty="9", limit_price="80")
    assert sim.trading("GET", "/v2/positions").json() == []

    # Only the listing lags: what may be sold is judged by the true position.
    waiting = resting(sim, symbol="OKE", qty="9", side="sell", limit_price="90")
    assert waiting["position_intent"] == "sell_to_close"
    sim.post("/sim/options", {"position_lag": 0})

    (held,) = sim.trading("GET", "/v2/positions").json()
    assert (held["qty"], held["qty_available"]) == ("9", "0")
