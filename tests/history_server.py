"""A broker's history of order events (server-sent events), as a test wants it to be."""

import asyncio
import contextlib
import json
import socket
import threading
from typing import Any

from aiohttp import web


def event(body: dict[str, Any]) -> bytes:
    """One event on the wire."""
    return f"id: {body['event_id']}\ndata: {json.dumps(body)}\n\n".encode()


class HistoryServer:
    """A server of one address, `/v2/events/trades`, in a thread of its own."""

    def __init__(self, *pieces: bytes, status: int = 200, stays: bool = True) -> None:
        self.asked: list[str] = []
        self._pieces = pieces
        self._status = status
        self._stays = stays
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> "HistoryServer":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(5)
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/v2/events/trades", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        await self._stopped.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.query.get("since_id", ""))
        kind = "text/event-stream" if self._status == 200 else "application/json"
        response = web.StreamResponse(status=self._status, headers={"Content-Type": kind})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # it was read as far as was wanted
            for piece in self._pieces:
                await response.write(piece)
                await asyncio.sleep(0.01)
        if self._stays and self._status == 200:
            await self._stopped.wait()
        return response
