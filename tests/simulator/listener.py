"""alpaca-py's own client of the order stream, in a thread of its own."""

import threading
from types import TracebackType
from typing import Any

from alpaca.trading.stream import TradingStream

from tests.simulator.desk import wait_for
from tests.simulator_server import SimulatorServer


class Listener:
    """alpaca-py's TradingStream in a thread, keeping what it is told."""

    def __init__(self, sim: SimulatorServer) -> None:
        self._sim = sim
        self.events: list[dict[str, Any]] = []
        self._stream = TradingStream("key", "secret", raw_data=True, url_override=sim.stream_url)
        self._stream.subscribe_trade_updates(self._keep)
        self._thread = threading.Thread(target=self._stream.run, daemon=True)

    async def _keep(self, message: dict[str, Any]) -> None:
        self.events.append(message["data"])

    def names(self, client_order_id: str) -> list[str]:
        return [
            event["event"]
            for event in list(self.events)
            if event["order"]["client_order_id"] == client_order_id
        ]

    def __enter__(self) -> "Listener":
        self._thread.start()
        wait_for(lambda: self._sim.get("/sim/state")["stream_listeners"] == 1)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stream.stop()
        # Its client waits up to five seconds for a last message; a cut line is quicker.
        self._sim.post("/sim/faults", {"kind": "stream_close"})
        self._thread.join(10)
