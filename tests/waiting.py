"""Waiting for a condition, with a bound: what tests use in the place of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], *, seconds: float = 10, every: float = 0.02) -> T:
    """The first true value of the condition; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds} s (last: {value!r})")
        time.sleep(every)
    return value


def for_a_fresh_minute() -> None:
    """Until the minute is not about to end: the broker's request limit starts anew with each."""
    until(lambda: time.time() % 60 < 45, seconds=20)
