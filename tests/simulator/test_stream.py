"""The order stream: Alpaca's protocol and events, through alpaca-py's own client and raw."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.simulator.desk import accepted, filled, reaches, resting, send, wait_for
from tests.simulator.listener import Listener
from tests.simulator_server import SimulatorServer


@pytest.fixture
def listener(sim: SimulatorServer) -> Iterator[Listener]:
    with Listener(sim) as listener:
        yield listener


def test_alpaca_py_hears_of_an_order_from_acceptance_to_fill(
    sim: SimulatorServer, listener: Listener
) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "249.90", "ask": "249.93"})
    accepted(sim, qty="50", client_order_id="o1")

    wait_for(lambda: listener.names("o1") == ["pending_new", "new", "fill"])

    new, fill = listener.events[1], listener.events[2]
    assert "execution_id" in new
    assert "price" not in new
    assert (fill["price"], fill["qty"], fill["position_qty"]) == ("249.93", "50", "50")
    assert (fill["order"]["status"], fill["order"]["filled_qty"]) == ("filled", "50")
    assert {"at", "event_id", "timestamp", "execution_id", "settle_date"} <= set(fill)
    assert "cancel_requested_at" in fill["order"]
    assert "subtag" not in fill["order"]
    (activity,) = sim.trading("GET", "/v2/account/activities/FILL").json()
    assert activity["id"].endswith(fill["execution_id"])


def test_executions_are_told_one_by_one_and_the_order_cumulatively(
    sim: SimulatorServer, listener: Listener
) -> None:
    waiting = resting(sim, qty="10", limit_price="100", client_order_id="o1")
    sim.post("/sim/fill", {"id": waiting["id"], "qty": "4", "price": "90"})
    sim.post("/sim/fill", {"id": waiting["id"], "qty": "6", "price": "95"})

    wait_for(lambda: len(listener.events) == 4)

    first, second = listener.events[2:]
    assert (first["event"], first["qty"], first["price"], first["position_qty"]) == (
        "partial_fill",
        "4",
        "90",
        "4",
    )
    assert (second["event"], second["qty"], second["price"], second["position_qty"]) == (
        "fill",
        "6",
        "95",
        "10",
    )
    assert (first["order"]["status"], second["order"]["status"]) == (
        "partially_filled",
        "filled",
    )
    assert (first["order"]["filled_qty"], second["order"]["filled_qty"]) == ("4", "10")
    assert second["order"]["filled_avg_price"] == "93"
    identities = [event["event_id"] for event in listener.events]
    assert identities == sorted(set(identities))
    assert {len(identity) for identity in identities} == {26}


def test_a_hand_trade_in_the_brokers_app_is_streamed_too(
    sim: SimulatorServer, listener: Listener
) -> None:
    made = sim.post("/sim/trade", {"symbol": "OKE", "side": "buy", "qty": "9", "price": "70"})

    wait_for(lambda: listener.names(made["client_order_id"]) == ["pending_new", "new", "fill"])

    assert made["status"] == "filled"


def test_a_position_set_by_a_transfer_is_silent(sim: SimulatorServer, listener: Listener) -> None:
    sim.post("/sim/position", {"symbol": "OKE", "qty": "9", "average_price": "70"})
    accepted(sim, client_order_id="after", limit_price="100")

    wait_for(lambda: listener.names("after"))

    assert {event["order"]["client_order_id"] for event in listener.events} == {"after"}
    assert sim.trading("GET", "/v2/account/activities/FILL").json() == []


def test_cancel_replace_and_what_the_venue_does_by_itself_are_told(
    sim: SimulatorServer, listener: Listener
) -> None:
    first = resting(sim, limit_price="100", client_order_id="o1")
    sim.trading(
        "PATCH",
        f"/v2/orders/{first['id']}",
        json={"limit_price": "101", "client_order_id": "o2"},
    )
    reaches(sim, first["id"], "replaced")
    second = reaches(
        sim,
        sim.trading("GET", "/v2/orders").json()[0]["id"],
        "new",
    )
    sim.trading("DELETE", f"/v2/orders/{second['id']}")
    third = resting(sim, limit_price="100", client_order_id="o3")
    sim.post("/sim/order", {"id": third["id"], "status": "done_for_day"})

    wait_for(lambda: listener.names("o3") == ["pending_new", "new", "done_for_day"])

    assert listener.names("o1") == ["pending_new", "new", "pending_replace", "replaced"]
    assert listener.names("o2") == ["pending_new", "new", "pending_cancel", "canceled"]


def test_a_cancel_that_lost_the_race_is_told_so(sim: SimulatorServer, listener: Listener) -> None:
    sim.post("/sim/options", {"cancel_delay": 0.05})
    waiting = resting(sim, limit_price="100", client_order_id="o1")
    sim.trading("DELETE", f"/v2/orders/{waiting['id']}")
    sim.post("/sim/fill", {"id": waiting["id"]})

    wait_for(
        lambda: (
            listener.names("o1")
            == ["pending_new", "new", "pending_cancel", "fill", "order_cancel_rejected"]
        )
    )

    assert listener.events[-1]["reason"] == "TOO_LATE_TO_CANCEL"


def test_a_bust_takes_the_shares_back_and_names_the_execution(
    sim: SimulatorServer, listener: Listener
) -> None:
    filled(sim, qty="10", client_order_id="o1")
    wait_for(lambda: len(listener.events) == 3)
    execution_id = listener.events[2]["execution_id"]

    sim.post("/sim/bust", {"execution_id": execution_id})

    wait_for(lambda: len(listener.events) == 4)
    bust = listener.events[3]
    assert (bust["event"], bust["previous_execution_id"]) == ("trade_bust", execution_id)
    assert (bust["qty"], bust["position_qty"]) == ("-10", "0")
    assert sim.get("/sim/state")["account"]["cash"] == "1000000"


def test_a_muted_stream_loses_events_for_good(sim: SimulatorServer, listener: Listener) -> None:
    sim.post("/sim/faults", {"kind": "stream_mute"})
    filled(sim, client_order_id="lost")
    sim.delete("/sim/faults")
    filled(sim, client_order_id="told")

    wait_for(lambda: listener.names("told") == ["pending_new", "new", "fill"])

    assert listener.names("lost") == []


def test_events_can_come_twice_and_out_of_order(sim: SimulatorServer, listener: Listener) -> None:
    sim.post("/sim/faults", [{"kind": "stream_duplicate"}])
    accepted(sim, limit_price="100", client_order_id="twice")
    wait_for(lambda: listener.names("twice") == ["pending_new", "pending_new", "new"])

    sim.post("/sim/faults", [{"kind": "stream_swap"}])
    accepted(sim, limit_price="100", client_order_id="swapped")

    wait_for(lambda: listener.names("swapped") == ["new", "pending_new"])


def test_a_closed_stream_is_found_again_by_alpaca_py_and_nothing_is_replayed(
    sim: SimulatorServer, listener: Listener
) -> None:
    sim.post("/sim/faults", {"kind": "stream_close"})
    wait_for(lambda: sim.get("/sim/state")["stream_listeners"] == 0)
    filled(sim, client_order_id="missed")

    wait_for(lambda: sim.get("/sim/state")["stream_listeners"] == 1)
    filled(sim, client_order_id="heard")

    wait_for(lambda: listener.names("heard") == ["pending_new", "new", "fill"])
    assert listener.names("missed") == []


def _talk(sim: SimulatorServer, *messages: object) -> list[tuple[aiohttp.WSMsgType, Any]]:
    """One answer for each message."""

    async def talk() -> list[tuple[aiohttp.WSMsgType, Any]]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(sim.stream_url) as socket,
        ):
            answers = []
            for message in messages:
                await socket.send_str(json.dumps(message))
                answer = await socket.receive(timeout=5)
                answers.append((answer.type, json.loads(answer.data)))
            return answers

    return asyncio.run(talk())


def test_the_stream_answers_in_binary_frames_and_grants_what_it_offers(
    sim: SimulatorServer,
) -> None:
    keys = {"key_id": "K", "secret_key": "S"}

    answers = _talk(
        sim,
        {"action": "authenticate", "data": keys},
        {"action": "listen", "data": {"streams": ["trade_updates", "nonsense"]}},
        {"action": "listen", "data": {"streams": []}},
    )

    assert {kind for kind, _ in answers} == {aiohttp.WSMsgType.BINARY}
    assert [body for _, body in answers] == [
        {
            "stream": "authorization",
            "data": {"status": "authorized", "action": "authenticate"},
        },
        {"stream": "listening", "data": {"streams": ["trade_updates"]}},
        {"stream": "listening", "data": {"streams": []}},
    ]


def test_who_does_not_listen_is_told_nothing(sim: SimulatorServer) -> None:
    async def stay_silent() -> list[Any]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(sim.stream_url) as socket,
        ):
            await socket.send_json(
                {"action": "authenticate", "data": {"key_id": "K", "secret_key": "S"}}
            )
            first = json.loads((await socket.receive(timeout=5)).data)
            await asyncio.to_thread(filled, sim)
            await socket.send_json({"action": "listen", "data": {"streams": []}})
            return [first, json.loads((await socket.receive(timeout=5)).data)]

    first, second = asyncio.run(stay_silent())

    assert (first["stream"], second["stream"]) == ("authorization", "listening")


def test_listening_before_authenticating_is_unauthorized(sim: SimulatorServer) -> None:
    answers = _talk(
        sim,
        {"action": "listen", "data": {"streams": ["trade_updates"]}},
        {"action": "authenticate", "data": {"key_id": "K"}},
    )

    assert [body["data"] for _, body in answers] == [
        {"status": "unauthorized", "action": "listen"},
        {"status": "unauthorized", "action": "authenticate"},
    ]


def test_a_second_stream_can_be_turned_away(sim: SimulatorServer, listener: Listener) -> None:
    sim.post("/sim/options", {"stream_limit": 1})

    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        _talk(sim, {"action": "authenticate", "data": {}})

    assert refusal.value.status == 429


def test_a_refused_order_is_not_streamed(sim: SimulatorServer, listener: Listener) -> None:
    send(sim, qty="100000", client_order_id="refused")
    filled(sim, client_order_id="taken")

    wait_for(lambda: listener.names("taken") == ["pending_new", "new", "fill"])

    assert listener.names("refused") == []


def test_an_event_can_come_late_unheard_of_or_garbled(
    sim: SimulatorServer, listener: Listener
) -> None:
    sim.post(
        "/sim/faults",
        [
            {"kind": "stream_delay", "seconds": 0.05, "body": '"event":"pending_new"'},
            {"kind": "stream_unknown_event", "body": '"event":"new"'},
            {"kind": "stream_unknown_status", "body": '"event":"fill"'},
        ],
    )
    filled(sim, client_order_id="o1")

    wait_for(lambda: len(listener.names("o1")) == 3)

    assert listener.names("o1") == ["pending_quantum", "fill", "pending_new"]
    assert listener.events[1]["order"]["status"] == "pending_quantum"


def test_half_an_event_reaches_nobody_and_leaves_the_stream_open(
    sim: SimulatorServer, listener: Listener
) -> None:
    sim.post("/sim/faults", {"kind": "stream_garbage"})
    filled(sim, client_order_id="o1")

    wait_for(lambda: listener.names("o1") == ["new", "fill"])

    assert sim.get("/sim/state")["stream_listeners"] == 1


def test_in_a_gap_nobody_can_connect_and_what_happens_is_lost(sim: SimulatorServer) -> None:
    with Listener(sim) as listener:
        sim.post("/sim/faults", {"kind": "stream_gap", "seconds": 0.2})
        wait_for(lambda: sim.get("/sim/state")["stream_listeners"] == 0)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            _talk(sim, {"action": "authenticate", "data": {}})
        assert refusal.value.status == 503
        filled(sim, client_order_id="missed")
        wait_for(lambda: sim.get("/sim/state")["stream_listeners"] == 1)

    assert listener.names("missed") == []


def test_a_frozen_connection_answers_no_ping(sim: SimulatorServer) -> None:
    async def ping() -> list[bool]:
        answered = []
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(sim.stream_url, autoping=False) as socket,
        ):
            for fault in (None, {"kind": "stream_freeze", "seconds": 0.5}):
                if fault is not None:
                    await asyncio.to_thread(sim.post, "/sim/faults", fault)
                await socket.ping()
                try:
                    message = await socket.receive(timeout=0.2)
                    answered.append(message.type is aiohttp.WSMsgType.PONG)
                except TimeoutError:
                    answered.append(False)
            # Half open, not dead: it comes to life again.
            message = await socket.receive(timeout=5)
            answered.append(message.type is aiohttp.WSMsgType.PONG)
        return answered

    assert asyncio.run(ping()) == [True, False, True]
