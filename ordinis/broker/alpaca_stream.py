"""Alpaca's `trade_updates` stream through alpaca-py, so that no message is dropped in silence.

alpaca-py drops a message whose handler raises, never ends on wrong keys, and has no replay: so
the handler only puts the raw message on a queue, wrong keys end the stream with an error, and
each connection puts a mark on the queue, at which the reader fetches what was missed.
"""

import asyncio
import queue
from typing import Any, Final

from alpaca.trading.stream import TradingStream

CONNECTED: Final = "connected"
ALIVE: Final = "alive"  # every few seconds while the connection stands
STOP: Final = "stop"  # put by whoever wants the reader to end
_ALIVE_EVERY = 5.0
Message = dict[str, Any] | str


class KeysRefused(Exception):
    """The broker's stream does not accept our keys."""


class TradeUpdates(TradingStream):
    """Puts every raw message, and CONNECTED after each connection, on `messages`."""

    def __init__(
        self, *, url: str, key_id: str, secret_key: str, messages: "queue.SimpleQueue[Message]"
    ) -> None:
        super().__init__(
            key_id,
            secret_key,
            raw_data=True,
            url_override=stream_url(url),
            # A half-open connection is noticed within 15 s.
            websocket_params={"ping_interval": 5, "ping_timeout": 10, "max_queue": 1024},
        )
        self._messages = messages
        self._refused = False
        self.subscribe_trade_updates(self._put)

    async def _put(self, message: dict[str, Any]) -> None:
        self._messages.put(message)

    async def _auth(self) -> None:
        try:
            await super()._auth()  # type: ignore[no-untyped-call]
        except ValueError:  # the library would try the same keys for ever
            self._refused = True
            self._should_run = False
            raise

    async def _start_ws(self) -> None:
        await super()._start_ws()  # type: ignore[no-untyped-call]
        self._messages.put(CONNECTED)

    async def _live(self) -> None:
        while True:
            if self._running:
                self._messages.put(ALIVE)
            await asyncio.sleep(_ALIVE_EVERY)

    async def follow(self, stop: asyncio.Event) -> None:
        """Reads until `stop` is set. Raises KeysRefused."""
        reading = asyncio.ensure_future(self._run_forever())  # type: ignore[no-untyped-call]
        tasks = (reading, asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._live()))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.close()
        if self._refused:
            raise KeysRefused(
                "The broker's stream refuses our keys. Check APCA_API_KEY_ID, "
                "APCA_API_SECRET_KEY and APCA_API_BASE_URL."
            )


def stream_url(url: str) -> str:
    """The stream's address, which follows from the trading host's."""
    scheme, rest = url.split("://", 1)
    return f"{'ws' if scheme == 'http' else 'wss'}://{rest}/stream"
