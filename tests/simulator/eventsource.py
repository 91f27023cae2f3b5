"""Reads an event source in a thread of its own, keeping what it is told."""

import json
import threading
from types import TracebackType
from typing import Any

import requests

from tests.simulator_server import SimulatorServer

KEYS = {"APCA-API-KEY-ID": "test", "APCA-API-SECRET-KEY": "test"}
TRADES = "/v2/events/trades"
ACTIVITIES = "/v2beta1/events/activities"


class Reader:
    """`with Reader(sim, TRADES, since_id=...) as reader:` reads until the end or the with's end."""

    def __init__(self, sim: SimulatorServer, path: str, **query: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.comments: list[str] = []
        self.ended = False
        self._session = requests.Session()
        self._session.trust_env = False
        self.response = self._session.get(
            sim.url + path, params=query, headers=KEYS, stream=True, timeout=10
        )
        assert self.response.status_code == 200, self.response.text
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self.response.iter_lines(chunk_size=None):
                if line.startswith(b"data: "):
                    self.events.append(json.loads(line[6:]))
                elif line:
                    self.comments.append(line.decode())
        except requests.RequestException:
            pass
        finally:
            self.ended = True

    def ids(self) -> list[str]:
        return [event["event_id"] for event in list(self.events)]

    def names(self) -> list[str]:
        return [event["event"] for event in list(self.events)]

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._session.close()


def told(sim: SimulatorServer, path: str = TRADES, since: str = "2020-01-01") -> list[Any]:
    """All events up to now."""
    with Reader(sim, path, since=since, until=sim.get("/sim/clock")["now"]) as reader:
        reader._thread.join(10)
        assert reader.ended
        return reader.events
