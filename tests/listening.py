"""`manage.py listen` in a thread of the test, on the test's database and simulator."""

import asyncio
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from orders.models import Order
from orders.stream import Consumer
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_stream import Frame
from tests.simulator_server import SimulatorServer


class Listening:
    """`with Listening(account):` consumes the account's stream until the block ends."""

    def __init__(self, account: BrokerAccount) -> None:
        self.error: Exception | None = None
        self._consumer = Consumer(account, key_id="k", secret_key="s")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="listening", daemon=True)

    def __enter__(self) -> "Listening":
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)
            assert not self._thread.is_alive(), "the consumer did not stop"
            self._loop.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._consumer.run(self._stop))
        except Exception as error:
            self.error = error


def frame(data: str | bytes) -> Frame:
    return Frame(data, datetime.now(UTC))


def listeners(sim: SimulatorServer) -> int:
    return int(sim.get("/sim/state")["stream_listeners"])


def filled_at_broker(sim: SimulatorServer) -> list[dict[str, Any]]:
    return [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"]


def fill(sim: SimulatorServer, order: Order, qty: str) -> None:
    sim.post("/sim/fill", {"client_order_id": order.client_order_id, "qty": qty})
