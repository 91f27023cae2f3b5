"""Alpaca's `trade_updates` stream through alpaca-py, so that no message is dropped in silence.

alpaca-py drops a frame that it can't read and a message whose handler raises, never ends on wrong
keys, waits for ever for an answer to its keys, and does not check that it is listened to: so every
frame goes on a queue untouched, wrong keys end the stream with an error, and marks on the queue
say when the connection stands and when it is gone. Must never look into a message, let alone wait
for whoever reads the queue.
"""

import asyncio
import json
import logging
import queue
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from alpaca.trading.stream import TradingStream
from websockets.exceptions import WebSocketException

log = logging.getLogger("ordinis.stream")

_CHANNEL: Final = "trade_updates"
_ALIVE_EVERY = 2.0
_HANDSHAKE_SECONDS = 5.0
# Alpaca answers 429 while it still holds the connection that we lost, so not at once; but the
# library forgets its patience only after data, and a quiet account must not wait half a minute.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.5, 4.0
# A peer that is gone sends no farewell, and the library waits for it this long, up to three times.
FAREWELL_SECONDS = 0.5
_LARGEST_FRAME = 16 * 1024 * 1024  # bytes


class Mark(Enum):
    """What is on the queue beside frames."""

    CONNECTED = "connected"
    """Every update from here on comes as a frame; what came before has to be fetched."""
    ALIVE = "alive"
    """Every few seconds while the connection stands."""
    DISCONNECTED = "disconnected"
    STOP = "stop"
    """Put by whoever wants the reader to end."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What the broker sent, to the letter, and when it reached us."""

    data: str | bytes
    received_at: datetime


Message = Frame | Mark


class KeysRefused(Exception):
    """The broker's stream does not accept our keys."""


class TradeUpdates(TradingStream):
    """Puts every frame that may be an update, and the marks, on `messages`.

    A connection whose other end has gone silent is given up at the latest `ping_interval +
    ping_timeout` seconds after its last sign, and three farewells.
    """

    def __init__(
        self,
        *,
        url: str,
        key_id: str,
        secret_key: str,
        messages: "queue.SimpleQueue[Message]",
        ping_interval: float = 3,
        ping_timeout: float = 6,
    ) -> None:
        super().__init__(
            key_id,
            secret_key,
            raw_data=True,
            url_override=stream_url(url),
            websocket_params={
                "ping_interval": ping_interval,
                "ping_timeout": ping_timeout,
                "close_timeout": FAREWELL_SECONDS,
                "open_timeout": _HANDSHAKE_SECONDS,
                "max_queue": 1024,
                "max_size": _LARGEST_FRAME,
            },
        )
        self._reconnect_min_backoff = _SHORTEST_WAIT
        self._reconnect_max_backoff = _LONGEST_WAIT
        self._messages = messages
        self._refused = False
        self._stands = False
        self.subscribe_trade_updates(self._never)

    async def follow(self, stop: asyncio.Event) -> None:
        """Reads until `stop` is set. Raises KeysRefused."""
        stopping = asyncio.ensure_future(stop.wait())
        tasks = [stopping, asyncio.ensure_future(self._live())]
        try:
            while not stop.is_set():
                reading = asyncio.ensure_future(self._run_forever())  # type: ignore[no-untyped-call]
                tasks.append(reading)
                await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
                if self._refused:
                    raise KeysRefused(
                        "The broker's stream refuses our keys. Check APCA_API_KEY_ID, "
                        "APCA_API_SECRET_KEY and APCA_API_BASE_URL."
                    )
                if reading.done():  # the library's loop is not meant to end by itself
                    log.error("the stream's loop ended: %s", reading.exception())
                    await asyncio.wait((stopping,), timeout=_SHORTEST_WAIT)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    async def close(self) -> None:
        if self._stands:  # said first: parting from a peer that is gone takes a while
            self._stands = False
            self._messages.put(Mark.DISCONNECTED)
        await super().close()

    async def _never(self, _message: dict[str, Any]) -> None:
        """The library asks for a handler before it connects; `_consume` hands out the frames."""

    async def _start_ws(self) -> None:
        try:
            await super()._start_ws()  # type: ignore[no-untyped-call]
            early = await asyncio.wait_for(self._listened_to(), _HANDSHAKE_SECONDS)
        except OSError as error:
            # The library writes a traceback for every error that is not of this kind.
            raise WebSocketException(f"not connected: {error or 'no answer in time'}") from error
        self._stands = True
        self._messages.put(Mark.CONNECTED)  # first: the gap is open until it is closed
        for frame in early:
            self._put(frame)

    async def _auth(self) -> None:
        keys = {"key_id": self._api_key, "secret_key": self._secret_key}
        socket = self._socket()
        await socket.send(json.dumps({"action": "authenticate", "data": keys}))
        answer = _control(await asyncio.wait_for(socket.recv(), _HANDSHAKE_SECONDS))
        status = answer.get("status") if answer else None
        if status == "unauthorized":  # the library would try the same keys for ever
            self._refused = True
            self._should_run = False
        if status != "authorized":
            raise WebSocketException(f"the keys were answered with {status!r}")

    async def _listened_to(self) -> list[str | bytes]:
        """Waits for the broker's word that updates are sent from now on, and returns those that
        came before it; raises when none will be sent. What was asked before that word may miss
        an update."""
        early: list[str | bytes] = []
        socket = self._socket()
        while True:
            frame = await socket.recv()
            answer = _control(frame)
            if answer is None:
                early.append(frame)
            elif _CHANNEL in (answer.get("streams") or ()):
                return early
            else:
                raise WebSocketException("the broker does not send us trade updates")

    async def _consume(self) -> None:
        socket = self._socket()
        while True:
            frame = await socket.recv()
            if _control(frame) is None:
                self._data_received = True
                self._put(frame)

    def _socket(self) -> Any:
        return self._ws  # the library leaves its attribute without a type

    def _put(self, frame: str | bytes) -> None:
        self._messages.put(Frame(frame, datetime.now(UTC)))

    async def _live(self) -> None:
        while True:
            if self._stands:
                self._messages.put(Mark.ALIVE)
            await asyncio.sleep(_ALIVE_EVERY)


def stream_url(url: str) -> str:
    """The stream's address, which follows from the trading host's."""
    scheme, rest = url.split("://", 1)
    return f"{'ws' if scheme == 'http' else 'wss'}://{rest}/stream"


def _control(frame: str | bytes) -> dict[str, Any] | None:
    """The data of an answer to a command of ours; None for all else, readable or not."""
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("stream") not in ("authorization", "listening"):
        return None
    data = message.get("data")
    return data if isinstance(data, dict) else {}
