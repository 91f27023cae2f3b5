"""The event sources: history first, then live, under the ids that the order stream uses."""

from pathlib import Path
from typing import Any

import pytest

from tests.simulator.desk import accepted, filled, refused, resting, wait_for
from tests.simulator.eventsource import ACTIVITIES, TRADES, Reader, told
from tests.simulator.listener import Listener
from tests.simulator_server import SimulatorServer


def test_events_carry_the_ids_of_the_order_stream_and_name_the_account(
    sim: SimulatorServer,
) -> None:
    with Listener(sim) as listener, Reader(sim, TRADES) as reader:
        filled(sim, client_order_id="o1")
        wait_for(lambda: len(listener.events) == 3 and len(reader.events) == 3)

    assert reader.names() == ["pending_new", "new", "fill"]
    assert reader.ids() == [event["event_id"] for event in listener.events]
    account_id = sim.get("/sim/state")["account"]["id"]
    assert reader.events[2] == {"account_id": account_id, **listener.events[2]}
    assert reader.response.headers["Content-Type"] == "text/event-stream"
    assert reader.response.headers["X-Request-ID"]


def test_without_a_since_nothing_of_the_past_is_told(sim: SimulatorServer) -> None:
    filled(sim, client_order_id="past")
    with Reader(sim, TRADES) as reader:
        filled(sim, client_order_id="live")
        wait_for(lambda: len(reader.events) == 3)

    assert {event["order"]["client_order_id"] for event in reader.events} == {"live"}


def test_after_an_id_everything_missed_comes_first_and_then_what_happens(
    sim: SimulatorServer,
) -> None:
    filled(sim, client_order_id="seen")
    last_seen = told(sim)[-1]["event_id"]
    filled(sim, client_order_id="missed")

    with Reader(sim, TRADES, since_id=last_seen) as reader:
        wait_for(lambda: len(reader.events) == 3)
        filled(sim, client_order_id="live")
        wait_for(lambda: len(reader.events) == 6)

    assert reader.ids() == sorted(set(reader.ids()))
    assert reader.ids()[0] > last_seen
    names = [event["order"]["client_order_id"] for event in reader.events]
    assert names == ["missed"] * 3 + ["live"] * 3


def test_until_ends_the_stream_at_an_id_or_a_moment(sim: SimulatorServer) -> None:
    for number in range(3):
        resting(sim, limit_price="100", client_order_id=f"o{number}")
    everything = told(sim)
    ids = [event["event_id"] for event in everything]

    with Reader(sim, TRADES, since_id=ids[1], until_id=ids[3]) as by_id:
        wait_for(lambda: by_id.ended)
    since, until = everything[1]["timestamp"], everything[3]["timestamp"]
    with Reader(sim, TRADES, since=since, until=until) as by_moment:
        wait_for(lambda: by_moment.ended)

    assert by_id.ids() == ids[2:4]
    assert by_moment.ids() == ids[1:4]


def test_an_id_that_is_still_to_come_ends_the_stream_when_it_does(sim: SimulatorServer) -> None:
    resting(sim, limit_price="100")
    first, second = (event["event_id"] for event in told(sim))

    with Reader(sim, TRADES, since_id=first, until_id=second[:-1] + "Z") as reader:
        wait_for(lambda: reader.ids() == [second])
        resting(sim, limit_price="101")
        wait_for(lambda: reader.ended)

    assert reader.ids() == [second]


@pytest.mark.parametrize(
    "query",
    [
        {"until": "2026-01-01"},
        {"until_id": "01KYA98EMMAHZ1EAE2B7SQVP4M"},
        {"since": "2026-01-01", "since_id": "01KYA98EMMAHZ1EAE2B7SQVP4M"},
        {"since_id": "not-a-ulid"},
        {"since": "yesterday"},
    ],
)
@pytest.mark.parametrize("path", [TRADES, ACTIVITIES])
def test_bounds_that_do_not_go_together_are_refused(
    sim: SimulatorServer, path: str, query: dict[str, str]
) -> None:
    status, body = refused(sim.trading("GET", path, params=query))

    assert status in {400, 422}
    assert body["message"]


def test_a_quiet_source_gives_signs_of_life(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"sse_heartbeat": 0.01})

    with Reader(sim, TRADES) as reader:
        wait_for(lambda: len(reader.comments) >= 2)

    assert set(reader.comments) == {": heartbeat"}


def test_a_broker_may_have_no_event_sources(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"sse": False})

    assert [sim.trading("GET", path).status_code for path in (TRADES, ACTIVITIES)] == [404, 404]


def test_an_event_source_needs_keys(sim: SimulatorServer) -> None:
    assert sim.trading("GET", TRADES, headers={}).status_code == 401


def test_a_fill_is_told_as_an_activity_under_its_execution_id(sim: SimulatorServer) -> None:
    order = filled(sim, client_order_id="o1", qty="10")
    fill = told(sim)[2]

    (activity,) = told(sim, ACTIVITIES)

    details: dict[str, Any] = activity["details"]
    assert activity["ref_id"] == fill["execution_id"]
    assert (activity["activity_type"], activity["qty"]) == ("FILL", "10")
    assert details == details | {
        "order_id": order["id"],
        "client_order_id": "o1",
        "cum_qty": "10",
        "leaves_qty": "0",
        "order_status": "filled",
        "execution_type": "fill",
    }


def test_what_happened_before_a_restart_can_still_be_asked_for(tmp_path: Path) -> None:
    with SimulatorServer(seed=1, state_path=tmp_path / "state.sqlite3") as sim:
        sim.post("/sim/price", {"hold": True})
        accepted(sim, client_order_id="o1", limit_price="100")
        wait_for(lambda: len(told(sim)) == 2)
        before = told(sim)

        sim.stop()
        sim.start()

        assert told(sim) == before
        resting(sim, client_order_id="o2", limit_price="100")
        with Reader(sim, TRADES, since_id=before[0]["event_id"]) as reader:
            wait_for(lambda: len(reader.events) == 3)
    assert reader.ids()[0] == before[1]["event_id"]
    assert reader.ids() == sorted(reader.ids())


def test_a_reader_said_to_be_slow_is_told_how_much_it_lost(sim: SimulatorServer) -> None:
    with Reader(sim, TRADES) as reader:
        sim.post("/sim/faults", {"kind": "sse_slow", "body": '"event":"fill"'})
        filled(sim)
        wait_for(lambda: reader.comments)

    assert reader.names() == ["pending_new", "new"]
    assert reader.comments == [": you are reading too slowly, dropped 1 messages"]
    assert [event["event"] for event in told(sim)] == ["pending_new", "new", "fill"]


@pytest.mark.parametrize(
    ("kind", "comments"), [("sse_close", []), ("sse_error", [": internal server error"])]
)
def test_a_source_can_end_with_or_without_a_word(
    sim: SimulatorServer, kind: str, comments: list[str]
) -> None:
    with Reader(sim, TRADES) as reader:
        wait_for(lambda: sim.get("/sim/state")["event_listeners"] == 1)
        sim.post("/sim/faults", {"kind": kind})
        wait_for(lambda: reader.ended)

    assert reader.comments == comments
    wait_for(lambda: sim.get("/sim/state")["event_listeners"] == 0)
