"""The listening socket: open, or shut for a while, as when a broker's host is down.

While shut the port stays taken but refuses connections; those that were open are cut. The control
address is behind the same doors and is away too.
"""

import asyncio
import contextlib
import socket

from aiohttp import web

HOST = "127.0.0.1"
_GRACE_SECONDS = 0.01  # for the answer to whoever asked for it


def bind(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes any free one. Raises OSError."""
    listener = _take(port)
    listener.listen(1024)
    return listener


def _take(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: a held-back packet would cost 40 ms an answer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    return listener


class Doors:
    """Lets connections in to one application."""

    def __init__(self, runner: web.AppRunner, listener: socket.socket) -> None:
        self._runner = runner
        self._port: int = listener.getsockname()[1]
        self._site = web.SockSite(runner, listener)
        self._shutting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._site.start()

    def shut(self, seconds: float) -> None:
        """Refuse all connections for a while, from now on."""
        if self._shutting is None or self._shutting.done():
            self._shutting = asyncio.create_task(self._shut(seconds))

    async def _shut(self, seconds: float) -> None:
        await asyncio.sleep(_GRACE_SECONDS)
        await self._site.stop()
        listener = _take(self._port)  # bound but not listening: the kernel refuses
        server = self._runner.server
        for connection in [] if server is None else server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(seconds)
        listener.listen(1024)
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()

    async def close(self) -> None:
        if self._shutting is not None:
            self._shutting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._shutting
        await self._runner.cleanup()
