"""Puts the simulator together and runs it on loopback, where nobody else can reach it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from ordinis.simulator.control import Control
from ordinis.simulator.gate import Gate
from ordinis.simulator.reports import Reports
from ordinis.simulator.rest import Trading
from ordinis.simulator.runtime import Runtime

HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 0.1  # requests that a fault holds up are not waited for


def build_app(*, seed: int = 1, state_path: Path | None = None) -> web.Application:
    """The whole exchange as one application; without a state path it forgets when it ends."""
    runtime = Runtime(seed=seed, state_path=state_path)
    app = web.Application(middlewares=[Gate(runtime).guard])
    app.add_routes(Trading(runtime).routes())
    app.add_routes(Reports(runtime).routes())
    app.add_routes(Control(runtime).routes())
    app.router.add_get("/stream", runtime.stream.handle)

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        await runtime.start()
        yield
        await runtime.stop()

    async def part(_app: web.Application) -> None:
        runtime.stream.abort()

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(part)
    return app


def bind(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes any free one. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: a held-back packet would cost 40 ms an answer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((HOST, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.asynccontextmanager
async def serving(listener: socket.socket, app: web.Application) -> AsyncIterator[None]:
    """Answers on the socket for as long as the context lasts."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def run(
    port: int, seed: int, state_path: Path | None, *, on_listening: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError where the port is taken."""
    listener = bind(port)
    url = f"http://{HOST}:{listener.getsockname()[1]}"

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        async with serving(listener, build_app(seed=seed, state_path=state_path)):
            on_listening(url)
            await stopped.wait()

    asyncio.run(serve())
