"""The broker's request limit, shared out by importance.

Alpaca counts requests per account, whoever sends them. Each answer says what is left of the
current window; `Budget` keeps the latest word, counts what is under way, and holds back what can
wait: polls first, then reads, then submits. A last reserve is for cancels alone. Without such
headers nothing is held back. Never sleeps: it allows or refuses.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol

from ordinis.broker.errors import NotSent


class Priority(IntEnum):
    """Who gives way to whom: the lower the number, the later it is held back."""

    CANCEL = 0
    SUBMIT = 1
    READ = 2
    POLL = 3


# The share of the window that must be left for a request of this priority to be made.
_RESERVED = {Priority.CANCEL: 0.0, Priority.SUBMIT: 0.05, Priority.READ: 0.15, Priority.POLL: 0.35}
_LONGEST_WINDOW = 120.0  # seconds; Alpaca's is a minute
_priority: ContextVar[Priority] = ContextVar("broker_priority", default=Priority.READ)


@contextmanager
def priority(value: Priority) -> Iterator[None]:
    """What is asked of the broker inside has this priority."""
    token = _priority.set(value)
    try:
        yield
    finally:
        _priority.reset(token)


def current_priority() -> Priority:
    return _priority.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The broker's latest word: requests allowed and left, and when it starts anew (Unix time)."""

    limit: int
    remaining: int
    reset_at: float

    def leaves_room_for(self, value: Priority) -> bool:
        return self.remaining > self.limit * _RESERVED[value]


class Store(Protocol):
    """Where processes share the latest word."""

    def load(self) -> Window | None:
        """The newest window any process was told of."""

    def save(self, window: Window) -> None:
        """Tells the others; an older word must not replace a newer one."""

    def held_back(self, value: Priority) -> None:
        """Notes that a request was held back, for metrics and console."""


class NoStore:
    """For one process on its own."""

    def load(self) -> Window | None:
        return None

    def save(self, window: Window) -> None:
        return None

    def held_back(self, value: Priority) -> None:
        return None


class Budget:
    """One account's budget as one process sees it. Safe between threads."""

    # Below this share of the window the word is shared, and looked up, at every request.
    PRESSURE = 0.5
    SHARED_EVERY = 1.0  # seconds between two looks at the shared word without pressure

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._window: Window | None = None
        self._looked_at = 0.0

    def take(self) -> None:
        """Counts one request of the current priority. Raises NotSent when it must wait."""
        value = current_priority()
        self._look_around()
        with self._lock:
            window = self._window
            if window is None or time.time() >= window.reset_at:
                return  # nothing known of the window that runs now
            if window.leaves_room_for(value):
                self._window = replace(window, remaining=window.remaining - 1)
                return
            seconds = window.reset_at - time.time()
        self._store.held_back(value)
        raise NotSent(
            f"The broker's request limit ({window.limit} a minute) is nearly used up; what is "
            f"left is kept for more urgent requests. It starts anew in {seconds:.0f} s.",
            retry_after=max(seconds, 0.1),
        )

    def note(self, headers: Mapping[str, str]) -> None:
        """Takes over what an answer's headers say."""
        try:
            told = Window(
                limit=int(headers["X-RateLimit-Limit"]),
                remaining=int(headers["X-RateLimit-Remaining"]),
                reset_at=float(headers["X-RateLimit-Reset"]),
            )
        except (KeyError, ValueError, OverflowError):
            return
        if told.limit <= 0 or not 0 <= told.reset_at - time.time() + 1 <= _LONGEST_WINDOW:
            return  # a window that ends in hours is no window: it would bar even cancels
        with self._lock:
            self._window = _newer(self._window, told)
            pressed = self._window.remaining < self._window.limit * self.PRESSURE
            window = self._window
        if pressed:
            self._store.save(window)

    def _look_around(self) -> None:
        """Takes over what another process was told, each time under pressure, else seldom."""
        now = time.monotonic()
        with self._lock:
            window = self._window
            pressed = window is not None and window.remaining < window.limit * self.PRESSURE
            if not pressed and now - self._looked_at < self.SHARED_EVERY:
                return
            self._looked_at = now
        shared = self._store.load()
        if shared is not None:
            with self._lock:
                self._window = _newer(self._window, shared)


def _newer(known: Window | None, told: Window) -> Window:
    """The later window; of the same one, the word that leaves less."""
    if known is None or told.reset_at > known.reset_at + 0.5:
        return told
    if told.reset_at < known.reset_at - 0.5:
        return known
    return told if told.remaining < known.remaining else known
