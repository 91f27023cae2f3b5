"""An end for answers whose headers only drip in.

A socket's timeout is renewed by every byte, so a broker that sends one header line a second would
hold the caller for ever. One thread closes sockets whose answer has not begun by its deadline.
Knows nothing of what is asked.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_EVERY = 0.25  # seconds between two looks

# Monotonic time by which the answer to the request under way must have begun.
answer_by: ContextVar[float | None] = ContextVar("answer_by", default=None)
_waiting: dict[int, tuple[float, socket.socket]] = {}
_guard = threading.Lock()
_watching: threading.Thread | None = None


class _Connection(HTTPConnection):
    """Plain HTTP, to this very machine."""

    def getresponse(self) -> Any:
        with _watched(self.sock):
            return super().getresponse()


class _SecureConnection(HTTPSConnection):
    """TLS, to Alpaca."""

    def getresponse(self) -> Any:
        with _watched(self.sock):
            return super().getresponse()


class Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


@contextlib.contextmanager
def _watched(connection: socket.socket | None) -> Iterator[None]:
    deadline = answer_by.get()
    if deadline is None or connection is None:
        yield
        return
    key = id(connection)
    with _guard:
        _waiting[key] = (deadline, connection)
    _ensure_watch()
    try:
        yield
    finally:
        with _guard:
            _waiting.pop(key, None)


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
