"""The state survives a kill: a real `manage.py simulator` is killed and started again."""

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from django.core.management import CommandError, call_command

from tests.simulator.desk import wait_for
from tests.simulator_server import SimulatorServer

PROJECT = Path(__file__).resolve().parents[2]
KEYS = {"APCA-API-KEY-ID": "key", "APCA-API-SECRET-KEY": "secret"}


class Process:
    """A simulator as a user starts it."""

    def __init__(self, state: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "manage.py", "simulator"),
                *("--port", str(port), "--state", str(state), "--seed", "3"),
            ],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(10)

    def call(self, method: str, path: str, body: object = None) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, self.url + path, json=body, headers=KEYS, timeout=10)
        return answer.json()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _order(client_order_id: str, **fields: str) -> dict[str, str]:
    return {
        "symbol": "OKE",
        "qty": "9",
        "side": "buy",
        "type": "limit",
        "limit_price": "80",
        "time_in_force": "gtc",
        "client_order_id": client_order_id,
        **fields,
    }


def test_a_killed_simulator_comes_back_with_all_it_knew(tmp_path: Path) -> None:
    state, port = tmp_path / "state.sqlite3", _free_port()
    first = Process(state, port)
    assert (
        first.said
        == f"The simulated broker listens on {first.url} (its own app: {first.url}/sim/).\n"
    )
    first.call("POST", "/sim/price", {"hold": True})
    first.call("POST", "/sim/options", {"fill_delay": 0.01, "new_delay": 0.01})
    first.call("POST", "/sim/symbol", {"symbol": "NEWCO", "price": "12"})
    first.call("POST", "/v2/orders", _order("filled-one"))
    wait_for(lambda: len(first.call("GET", "/v2/positions")) == 1)
    first.call("POST", "/v2/orders", _order("resting-one", symbol="STWD", limit_price="10"))
    wait_for(lambda: first.call("GET", "/v2/orders")[0]["status"] == "new")
    first.call("POST", "/sim/options", {"new_delay": 60})
    cut_off = first.call("POST", "/v2/orders", _order("cut-off-one", limit_price="81"))
    before = first.call("GET", "/sim/state")
    fills = first.call("GET", "/v2/account/activities/FILL")

    assert first.end(signal.SIGKILL) == -signal.SIGKILL

    second = Process(state, port)
    second.call("POST", "/sim/price", {"hold": True})
    after = second.call("GET", "/sim/state")
    assert after["positions"] == before["positions"]
    assert after["orders"] == before["orders"]
    assert after["account"]["cash"] == before["account"]["cash"]
    assert after["prices"].keys() == before["prices"].keys()
    assert second.call("GET", "/v2/account/activities/FILL") == fills
    for spent in ("filled-one", "resting-one", "cut-off-one"):
        again = second.call("POST", "/v2/orders", _order(spent))
        assert again["message"] == "client_order_id must be unique"
    assert second.call("GET", "/sim/options")["new_delay"] == 60
    assert cut_off["id"] in {order["id"] for order in second.call("GET", "/v2/orders")}
    assert second.end(signal.SIGTERM) == 0


def test_an_order_cut_off_by_a_restart_goes_on_to_its_fill(tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite3"
    with SimulatorServer(seed=1, state_path=state) as sim:
        sim.post("/sim/price", {"hold": True})
        sim.post("/sim/options", {"new_delay": 0.3})
        order = sim.trading("POST", "/v2/orders", json=_order("o1")).json()
        assert order["status"] == "pending_new"

        sim.stop()
        sim.start()

        wait_for(
            lambda: sim.trading("GET", f"/v2/orders/{order['id']}").json()["status"] == "filled"
        )
        assert sim.get("/sim/state")["positions"][0]["qty"] == "9"


def test_reserved_buying_power_survives_a_restart(tmp_path: Path) -> None:
    with SimulatorServer(seed=1, state_path=tmp_path / "state.sqlite3") as sim:
        sim.post("/sim/price", {"hold": True})
        sim.trading("POST", "/v2/orders", json=_order("o1", limit_price="10"))
        assert sim.get("/sim/state")["account"]["buying_power"] == "3999910"

        sim.stop()
        sim.start()

        assert sim.get("/sim/state")["account"]["buying_power"] == "3999910"
        assert sim.get("/sim/state")["account"]["cash"] == "1000000"


@pytest.mark.parametrize("taken", ["port", "state"])
def test_what_is_in_use_is_named_in_one_line(tmp_path: Path, taken: str) -> None:
    state = tmp_path / "state.sqlite3"
    with SimulatorServer(seed=1, state_path=state) as sim:
        port, file = (
            (sim.port, tmp_path / "other.sqlite3") if taken == "port" else (_free_port(), state)
        )

        with pytest.raises(CommandError) as refusal:
            call_command("simulator", port=port, state=file)

    line = str(refusal.value)
    assert "\n" not in line
    assert (f"Port {port} is taken" if taken == "port" else str(state)) in line


def test_an_interrupt_ends_it_cleanly_and_fast(tmp_path: Path) -> None:
    process = Process(tmp_path / "state.sqlite3", _free_port())

    assert process.end(signal.SIGINT) == 0


def test_a_saved_snapshot_is_what_another_simulator_begins_with(tmp_path: Path) -> None:
    saved = tmp_path / "snapshot.json"
    with SimulatorServer(seed=1) as sim:
        sim.post("/sim/clock", {"hold": True, "set": "2026-07-24T14:00:00Z"})
        sim.trading("POST", "/v2/orders", json=_order("o1"))
        saved.write_text(sim.trading("GET", "/sim/snapshot").text)

    with SimulatorServer(seed=2, snapshot_path=saved) as other:
        assert other.get("/sim/snapshot") == json.loads(saved.read_text())
        assert other.get("/sim/clock")["now"] == "2026-07-24T14:00:00.000000000Z"


def test_a_file_that_is_no_snapshot_is_named_in_one_line(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"version": 99}')

    with pytest.raises(CommandError) as refusal:
        call_command("simulator", port=_free_port(), state=tmp_path / "state.sqlite3", load=wrong)

    assert str(wrong) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_state_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    with SimulatorServer(seed=1, state_path=path) as sim:
        sim.trading("POST", "/v2/orders", json=_order("o1", limit_price="10"))
        before = sim.get("/sim/state")["orders"][0]
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 1")
        database.execute("DROP TABLE events")
        body = json.loads(database.execute("SELECT body FROM orders").fetchone()[0])
        # The first version wrote every field, and knew neither collars nor busts.
        full = {"hwm": None, "legs": [], "parent": None, "triggered": False, **body}
        database.execute("UPDATE orders SET body = ?", (json.dumps(full),))
        database.commit()

    with SimulatorServer(seed=1, state_path=path) as sim:
        assert sim.get("/sim/state")["orders"][0]["id"] == before["id"]
