"""An end for answers that only drip in, headers or body.

A socket's timeout is renewed by every byte, so a broker that sends one a second would hold the
caller for ever. One thread closes the sockets whose answer is not whole by its deadline. Knows
nothing of what is asked.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_EVERY = 0.25  # seconds between two looks

_under_way = threading.local()  # `.deadline` and `.key` of this thread's request
_waiting: dict[int | None, tuple[float, socket.socket]] = {}
_guard = threading.Lock()
_watching: threading.Thread | None = None


class _Connection(HTTPConnection):
    """Plain HTTP, to this very machine."""

    def getresponse(self) -> Any:
        _watch_over(self.sock)
        return super().getresponse()


class _SecureConnection(HTTPSConnection):
    """TLS, to Alpaca."""

    def getresponse(self) -> Any:
        _watch_over(self.sock)
        return super().getresponse()


class Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


@contextlib.contextmanager
def whole_by(deadline: float) -> Iterator[None]:
    """What is asked inside must be answered to the last byte by `deadline` (monotonic time)."""
    _under_way.deadline, _under_way.key = deadline, None
    try:
        yield
    finally:
        _under_way.deadline = None
        with _guard:
            _waiting.pop(_under_way.key, None)


def _watch_over(connection: socket.socket | None) -> None:
    deadline = getattr(_under_way, "deadline", None)
    if deadline is None or connection is None:
        return
    _under_way.key = id(connection)
    with _guard:
        _waiting[_under_way.key] = (deadline, connection)
    _ensure_watch()


def _ensure_watch() -> None:
    """Starts the thread where it does not run: at first, and in a fork."""
    global _watching
    if _watching is not None and _watching.is_alive():
        return
    with _guard:
        if _watching is None or not _watching.is_alive():
            _watching = threading.Thread(target=_watch, name="answer-deadlines", daemon=True)
            _watching.start()


def _watch() -> None:
    while True:
        time.sleep(_EVERY)
        now = time.monotonic()
        with _guard:
            late = [connection for deadline, connection in _waiting.values() if now > deadline]
        for connection in late:
            # Whoever reads from it gets an end of file at once.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
