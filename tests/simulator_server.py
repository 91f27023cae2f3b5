"""The simulator on a free port, for tests: real HTTP and websockets, in a thread of its own.

Never a mock: what a test sends goes through the same server that the demo runs.
"""

import asyncio
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import requests

from ordinis.simulator.doors import bind
from ordinis.simulator.server import build_app, serving


class SimulatorServer:
    """`with SimulatorServer(seed=1) as sim:` serves `sim.url` and `sim.stream_url`.

    In memory unless given a state path; begins as a snapshot has it, given one. `stop()` and
    `start()` play a broker that goes away and comes back on the same port; without a state path it
    comes back empty.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        state_path: Path | None = None,
        snapshot_path: Path | None = None,
        port: int = 0,
    ) -> None:
        self._seed = seed
        self._state_path = state_path
        self._snapshot_path = snapshot_path
        self.port = port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> "SimulatorServer":
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        listener = bind(self.port)
        self.port = listener.getsockname()[1]
        listening = threading.Event()

        async def serve() -> None:
            self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
            app = build_app(
                seed=self._seed,
                state_path=self._state_path,
                snapshot_path=self._snapshot_path,
            )
            async with serving(listener, app):
                listening.set()
                await self._stopped.wait()

        self._thread = threading.Thread(
            target=lambda: asyncio.run(serve()), name="simulator", daemon=True
        )
        self._thread.start()
        if not listening.wait(10):
            raise RuntimeError("the simulator did not start within 10 s")

    def stop(self) -> None:
        if self._thread is None or self._loop is None or self._stopped is None:
            return
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)
        if self._thread.is_alive():
            raise RuntimeError("the simulator did not stop within 10 s")
        self._thread = None

    def get(self, path: str, /, **query: str) -> Any:
        """The JSON under a path of /sim/; raises for anything but success."""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: object = None) -> Any:
        return self._call("POST", path, json={} if body is None else body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def trading(self, method: str, path: str, **options: Any) -> requests.Response:
        """A trading request with keys, its answer whatever it is."""
        keys = {"APCA-API-KEY-ID": "test", "APCA-API-SECRET-KEY": "test"}
        options = {"headers": keys, "timeout": 10, **options}
        with requests.Session() as session:
            session.trust_env = False  # a proxy in the environment would capture loopback
            return session.request(method, self.url + path, **options)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        response = self.trading(method, path, **options)
        if response.status_code >= 400:
            raise AssertionError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json()
