"""The trade_updates stream: Alpaca's websocket protocol, without replay.

What nobody listened to when it happened is gone, as at Alpaca. Clients send text, the server
answers in binary frames; each client has a queue of its own, so that a slow one holds up no other.
"""

import asyncio
import json
from typing import Any

from aiohttp import WSMsgType, web

from ordinis.simulator.faults import Faults
from ordinis.simulator.history import Told

_CHANNEL = "trade_updates"
_UNHEARD_OF = "pending_quantum"


class _Client:
    """One connection."""

    def __init__(self, request: web.Request) -> None:
        self.transport = request.transport
        self.socket = web.WebSocketResponse(compress=False)
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.authorized = False
        self.listening = False
        self._thawed = asyncio.Event()
        self._thawed.set()

    def send(self, message: dict[str, Any]) -> None:
        self.queue.put_nowait(json.dumps(message).encode())

    async def write(self) -> None:
        """Send what is queued, until the connection ends."""
        try:
            while True:
                message = await self.queue.get()
                await self._thawed.wait()
                await self.socket.send_bytes(message)
        except ConnectionError:
            return  # the reader notices too and cleans up

    def freeze(self) -> None:
        """Half open: nothing is read, not even a ping, and nothing is sent."""
        self._thawed.clear()
        if isinstance(self.transport, asyncio.Transport):
            self.transport.pause_reading()

    def thaw(self) -> None:
        if isinstance(self.transport, asyncio.Transport) and not self.transport.is_closing():
            self.transport.resume_reading()
        self._thawed.set()


class Stream:
    """Everybody who listens."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._clients: set[_Client] = set()
        self._kept_back: bytes | None = None
        self._shut_until = 0.0
        self.connection_limit = 0

    @property
    def listeners(self) -> int:
        return sum(client.listening for client in self._clients)

    def publish(self, events: list[Told]) -> None:
        """Hand events to every listener; a fault may swallow, repeat, delay or garble them."""
        for event in events:
            if self._faults.idle and self._kept_back is None:
                self._send(event.body)
            else:
                self._publish_faultily(event.body)

    def _publish_faultily(self, body: bytes) -> None:
        text, fault = body.decode(), self._faults.for_event
        if fault("stream_mute", text):
            return
        if fault("stream_unknown_event", text):
            body = json.dumps({**json.loads(body), "event": _UNHEARD_OF}).encode()
        if fault("stream_unknown_status", text):
            event = json.loads(body)
            event["order"]["status"] = _UNHEARD_OF
            body = json.dumps(event).encode()
        if fault("stream_garbage", text):
            body = body[: len(body) // 2]
        if delay := fault("stream_delay", text):
            asyncio.get_running_loop().call_later(delay.seconds, self._send, body)
            return
        times = 2 if fault("stream_duplicate", text) else 1
        if self._kept_back is None and fault("stream_swap", text):
            self._kept_back = body
            return
        late, self._kept_back = self._kept_back, None
        for _ in range(times):
            self._send(body)
        if late is not None:
            self._send(late)

    def _send(self, body: bytes) -> None:
        frame = b'{"stream":"%s","data":%s}' % (_CHANNEL.encode(), body)
        for client in self._clients:
            if client.listening:
                client.queue.put_nowait(frame)

    def abort(self) -> None:
        """Cut every connection without a farewell."""
        for client in list(self._clients):
            if client.transport is not None:
                client.transport.abort()

    def shut(self, seconds: float) -> None:
        """Cut every connection, and take no new one for a while."""
        self._shut_until = asyncio.get_running_loop().time() + seconds
        self.abort()

    def freeze(self, seconds: float) -> None:
        """Leave every connection half open for a while; new ones work."""
        frozen = list(self._clients)
        for client in frozen:
            client.freeze()

        def thaw() -> None:
            for client in frozen:
                client.thaw()

        asyncio.get_running_loop().call_later(seconds, thaw)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if asyncio.get_running_loop().time() < self._shut_until:
            return web.Response(status=503, text="service unavailable")
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
