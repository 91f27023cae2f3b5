"""Puts the simulator together and runs it on loopback, where nobody else can reach it."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from ordinis.simulator import snapshot
from ordinis.simulator.control import Control
from ordinis.simulator.doors import HOST, Doors, bind
from ordinis.simulator.gate import Gate
from ordinis.simulator.reports import Reports
from ordinis.simulator.rest import Trading
from ordinis.simulator.runtime import Runtime

_RUNTIME = web.AppKey("runtime", Runtime)
_SHUTDOWN_SECONDS = 0.1  # requests that a fault holds up are not waited for


def build_app(
    *, seed: int = 1, state_path: Path | None = None, snapshot_path: Path | None = None
) -> web.Application:
    """The whole exchange as one application; without a state path it forgets when it ends.

    Begins as the snapshot has it, if there is one. Raises UnusableState.
    """
    runtime = Runtime(seed=seed, state_path=state_path)
    if snapshot_path is not None:
        runtime.load(snapshot.read(snapshot_path))
    app = web.Application(middlewares=[Gate(runtime).guard])
    app.add_routes(Trading(runtime).routes())
    app.add_routes(Reports(runtime).routes())
    app.add_routes(Control(runtime).routes())
    app.add_routes(runtime.sources.routes())
    app.router.add_get("/stream", runtime.stream.handle)
    app[_RUNTIME] = runtime

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        await runtime.start()
        yield
        await runtime.stop()

    async def part(_app: web.Application) -> None:
        runtime.part()

    app.cleanup_ctx.append(lifetime)
    app.on_shutdown.append(part)
    return app


@contextlib.asynccontextmanager
async def serving(listener: socket.socket, app: web.Application) -> AsyncIterator[None]:
    """Answers on the socket for as long as the context lasts."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    doors = app[_RUNTIME].doors = Doors(runner, listener)
    try:
        await doors.open()
        yield
    finally:
        await doors.close()


def run(
    port: int,
    seed: int,
    state_path: Path | None,
    *,
    snapshot_path: Path | None = None,
    on_listening: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError where the port is taken, or UnusableState."""
    listener = bind(port)
    url = f"http://{HOST}:{listener.getsockname()[1]}"

    async def serve() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        app = build_app(seed=seed, state_path=state_path, snapshot_path=snapshot_path)
        async with serving(listener, app):
            on_listening(url)
            await stopped.wait()

    asyncio.run(serve())
