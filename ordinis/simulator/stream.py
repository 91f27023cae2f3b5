"""The trade_updates stream: Alpaca's websocket protocol, without replay.

What nobody listened to when it happened is gone, as at Alpaca. Clients send text, the server
answers in binary frames; each client has a queue of its own, so that a slow one holds up no other.
"""

import asyncio
import json
from typing import Any

from aiohttp import WSMsgType, web

from ordinis.simulator.faults import Faults

_CHANNEL = "trade_updates"


class _Client:
    """One connection."""

    def __init__(self, request: web.Request) -> None:
        self.transport = request.transport
        self.socket = web.WebSocketResponse(compress=False)
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.authorized = False
        self.listening = False

    def send(self, message: dict[str, Any]) -> None:
        self.queue.put_nowait(json.dumps(message).encode())

    async def write(self) -> None:
        """Send what is queued, until the connection ends."""
        try:
            while True:
                await self.socket.send_bytes(await self.queue.get())
        except ConnectionError:
            return  # the reader notices too and cleans up


class Stream:
    """Everybody who listens."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._clients: set[_Client] = set()
        self._kept_back: dict[str, Any] | None = None
        self.connection_limit = 0

    @property
    def listeners(self) -> int:
        return sum(client.listening for client in self._clients)

    def publish(self, events: list[dict[str, Any]]) -> None:
        """Hand events to every listener; a fault may swallow, repeat or reorder them."""
        for event in events:
            if self._faults.for_stream("stream_mute"):
                continue
            self._send(event)
            if self._faults.for_stream("stream_duplicate"):
                self._send(event)

    def _send(self, event: dict[str, Any]) -> None:
        if self._kept_back is None and self._faults.for_stream("stream_swap"):
            self._kept_back = event
            return
        late, self._kept_back = self._kept_back, None
        for body in (event, late):
            if body is not None:
                frame = json.dumps({"stream": _CHANNEL, "data": body}).encode()
                for client in self._clients:
                    if client.listening:
                        client.queue.put_nowait(frame)

    def abort(self) -> None:
        """Cut every connection without a farewell."""
        for client in list(self._clients):
            if client.transport is not None:
                client.transport.abort()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.connection_limit and len(self._clients) >= self.connection_limit:
            return web.Response(status=429, text="connection limit exceeded")
        client = _Client(request)
        await client.socket.prepare(request)
        self._clients.add(client)
        writer = asyncio.create_task(client.write())
        try:
            async for message in client.socket:
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    self._answer(client, message.data)
        finally:
            self._clients.discard(client)
            writer.cancel()
        return client.socket

    def _answer(self, client: _Client, text: str | bytes) -> None:
        try:
            message = json.loads(text)
            action, data = message["action"], message.get("data") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            client.send({"stream": "error", "data": {"error": "invalid message"}})
            return
        if action == "authenticate":
            client.authorized = bool(data.get("key_id") and data.get("secret_key"))
            self._report(client, "authenticate")
        elif action == "listen" and not client.authorized:
            self._report(client, "listen")
        elif action == "listen":
            # A set, not an addition: an empty list ends the listening.
            client.listening = _CHANNEL in (data.get("streams") or [])
            streams = [_CHANNEL] if client.listening else []
            client.send({"stream": "listening", "data": {"streams": streams}})

    def _report(self, client: _Client, action: str) -> None:
        status = "authorized" if client.authorized else "unauthorized"
        client.send({"stream": "authorization", "data": {"status": status, "action": action}})
