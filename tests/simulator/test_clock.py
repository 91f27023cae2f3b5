"""The venue's clock, held, moved and set; and that a held one makes everything repeatable."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ordinis.simulator.clock import VenueClock
from tests.simulator.desk import accepted, order, position, send
from tests.simulator.eventsource import told
from tests.simulator_server import SimulatorServer

FRIDAY = "2026-07-24T14:00:00Z"  # ten in the morning in New York


@pytest.fixture
def held(sim: SimulatorServer) -> SimulatorServer:
    """A simulator whose clock stands at ten on a Friday, in market hours mode."""
    sim.post("/sim/clock", {"hold": True, "set": FRIDAY})
    sim.post("/sim/market", {"mode": "hours"})
    return sim


def _status(sim: SimulatorServer, order_id: str) -> str:
    return str(order(sim, order_id)["status"])


def test_while_the_clock_is_held_nothing_happens_by_itself(held: SimulatorServer) -> None:
    held.post("/sim/options", {"new_delay": 1, "fill_delay": 2})
    sent = accepted(held)
    assert sent["created_at"] == "2026-07-24T14:00:00.000000000Z"
    statuses = []

    for seconds in ("0.5", "0.5", "1.999999999", "0.000000001"):
        held.post("/sim/clock", {"advance": seconds})
        statuses.append(_status(held, sent["id"]))

    assert statuses == ["pending_new", "new", "new", "filled"]
    assert order(held, sent["id"])["filled_at"] == "2026-07-24T14:00:03.000000000Z"
    assert held.trading("GET", "/v2/clock").json()["timestamp"] == (
        "2026-07-24T10:00:03.000000000-04:00"
    )


def test_on_a_long_way_everything_happens_at_its_own_moment(held: SimulatorServer) -> None:
    day = accepted(held, limit_price="100", client_order_id="day")
    night = send(held, limit_price="100", extended_hours=True, client_order_id="late").json()

    held.post("/sim/clock", {"set": "2026-07-28T00:00:00Z"})

    ends = {
        event["order"]["client_order_id"]: event["timestamp"]
        for event in told(held)
        if event["event"] == "expired"
    }
    assert ends == {
        "day": "2026-07-24T20:00:00.000000000Z",
        "late": "2026-07-25T00:00:00.000000000Z",
    }
    assert order(held, day["id"])["expires_at"] == ends["day"]
    assert order(held, night["id"])["expires_at"] == ends["late"]


def test_an_order_sent_at_the_weekend_is_released_at_the_open(held: SimulatorServer) -> None:
    held.post("/sim/clock", {"set": "2026-07-25T15:00:00Z"})
    sent = accepted(held)
    assert sent["status"] == "accepted"

    held.post("/sim/clock", {"set": "2026-07-27T13:29:59.999Z"})
    before = _status(held, sent["id"])
    held.post("/sim/clock", {"set": "2026-07-27T13:31:00Z"})

    assert (before, _status(held, sent["id"])) == ("accepted", "filled")
    assert order(held, sent["id"])["submitted_at"] == "2026-07-27T13:30:00.004000000Z"


def test_the_close_makes_the_last_figures_of_the_day(held: SimulatorServer) -> None:
    held.post("/sim/position", {"symbol": "OKE", "qty": "10", "average_price": "70"})
    held.post("/sim/price", {"symbol": "OKE", "bid": "80", "ask": "80"})
    assert position(held, "OKE")["lastday_price"] == "72.4"

    held.post("/sim/clock", {"set": "2026-07-24T20:00:00Z"})
    held.post("/sim/price", {"symbol": "OKE", "bid": "84", "ask": "84"})

    now = held.get("/sim/state")["account"]
    assert (now["last_equity"], now["equity"]) == ("1000800", "1000840")
    assert now["last_maintenance_margin"] == "240"
    assert now["balance_asof"] == "2026-07-23"
    oke = position(held, "OKE")
    assert (oke["lastday_price"], oke["change_today"], oke["unrealized_intraday_pl"]) == (
        *("80", "0.05", "40"),
    )


def test_the_clock_can_go_back_and_events_still_rise(held: SimulatorServer) -> None:
    first = accepted(held, limit_price="100")
    held.post("/sim/clock", {"advance": 60})

    held.post("/sim/clock", {"set": "2026-07-24T13:45:00Z"})
    second = accepted(held, limit_price="100")
    held.post("/sim/clock", {"advance": 1})

    assert second["created_at"] < first["created_at"]
    assert _status(held, second["id"]) == "new"
    held.post("/sim/clock", {"advance": 3600})
    ids = [event["event_id"] for event in told(held)]
    assert len(ids) == 4
    assert ids == sorted(ids)


def test_what_was_under_way_goes_on_after_the_clock_went_back(held: SimulatorServer) -> None:
    held.post("/sim/options", {"new_delay": 1})
    sent = accepted(held, limit_price="100")

    held.post("/sim/clock", {"set": "2026-07-24T13:45:00Z"})
    held.post("/sim/clock", {"advance": 1})

    assert _status(held, sent["id"]) == "new"


def test_a_running_clock_never_shows_the_same_moment_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_795_000_000_000_000_000)
    clock = VenueClock()

    shown = [clock() for _ in range(3)]

    assert len(set(shown)) == 3
    assert shown == sorted(shown)


def test_a_released_clock_runs_on_from_where_it_stood(sim: SimulatorServer) -> None:
    sim.post("/sim/clock", {"hold": True, "set": FRIDAY})

    sim.post("/sim/clock", {"hold": False})

    now = sim.get("/sim/clock")
    assert now["held"] is False
    assert FRIDAY[:-1] < now["now"] < "2026-07-24T14:01"


@pytest.mark.parametrize("body", [{"set": "soon"}, {"advance": -1}, {"speed": 2}])
def test_a_clock_that_makes_no_sense_is_refused(
    sim: SimulatorServer, body: dict[str, object]
) -> None:
    assert sim.trading("POST", "/sim/clock", json=body).status_code == 422


def _rehearse(sim: SimulatorServer) -> None:
    """A morning in which about everything happens."""
    sim.post("/sim/options", {"partial_fill_probability": 0.5})
    for number in range(6):
        send(sim, qty="100", client_order_id=f"o{number}")
        sim.post("/sim/clock", {"advance": 0.01})
    waiting = send(sim, symbol="OKE", limit_price="50").json()
    sim.post("/sim/tick", {"count": 5})
    sim.post("/sim/clock", {"advance": 1})
    changed = sim.trading("PATCH", f"/v2/orders/{waiting['id']}", json={"limit_price": "51"})
    sim.post("/sim/clock", {"advance": 1})
    sim.trading("DELETE", f"/v2/orders/{changed.json()['id']}")
    exits = {"take_profit": {"limit_price": "19"}, "stop_loss": {"stop_price": "16"}}
    send(sim, symbol="ET", qty="9", order_class="bracket", limit_price="18", **exits)
    sim.trading("DELETE", "/v2/positions/TSLA")
    sim.post("/sim/clock", {"set": "2026-07-24T20:30:00Z"})


def _dump(sim: SimulatorServer) -> str:
    return json.dumps(sim.get("/sim/snapshot"), sort_keys=True)


def test_the_same_seed_and_requests_make_the_same_state_to_the_letter() -> None:
    dumps = []
    for seed in (4, 4, 5):
        with SimulatorServer(seed=seed) as sim:
            sim.post("/sim/price", {"hold": True})
            sim.post("/sim/clock", {"hold": True, "set": FRIDAY})
            sim.post("/sim/reset", {})
            sim.post("/sim/market", {"mode": "hours"})
            _rehearse(sim)
            dumps.append((_dump(sim), json.dumps(sim.get("/sim/state"))))

    assert dumps[0] == dumps[1]
    assert dumps[0] != dumps[2]


def test_a_snapshot_brings_back_everything_and_goes_on_the_same_way(
    held: SimulatorServer,
) -> None:
    held.post("/sim/options", {"partial_fill_probability": 0.5})
    send(held, qty="100", client_order_id="before")
    held.post("/sim/clock", {"advance": 1})
    saved = held.get("/sim/snapshot")
    _rehearse(held)
    first = _dump(held)
    held.post("/sim/reset", {})

    assert held.post("/sim/snapshot", saved) == {
        "orders": 1,
        "now": "2026-07-24T14:00:01.000000000Z",
        "held": True,
    }

    assert held.get("/sim/snapshot") == saved
    assert send(held, client_order_id="before").status_code == 422
    _rehearse(held)
    assert _dump(held) == first


def test_a_snapshot_is_kept_by_the_state_file_too(tmp_path: Path) -> None:
    with SimulatorServer(seed=1, state_path=tmp_path / "state.sqlite3") as sim:
        sim.post("/sim/clock", {"hold": True, "set": FRIDAY})
        send(sim, client_order_id="o1")
        sim.post("/sim/clock", {"advance": 1})
        saved = sim.get("/sim/snapshot")
        sim.post("/sim/reset", {})
        sim.post("/sim/snapshot", saved)

        sim.stop()
        sim.start()

        assert sim.get("/sim/snapshot") == saved


@pytest.mark.parametrize("body", [{}, {"version": 99}, {"version": 2, "events": []}, [1]])
def test_what_is_no_snapshot_changes_nothing(sim: SimulatorServer, body: Any) -> None:
    accepted(sim, client_order_id="o1", limit_price="100")

    assert sim.trading("POST", "/sim/snapshot", json=body).status_code == 422

    assert len(sim.get("/sim/state")["orders"]) == 1
