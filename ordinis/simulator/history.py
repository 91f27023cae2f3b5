"""Every event there was, in the order of its ids, for those who ask what they missed.

The ids are those that the order stream sent. Keeps the newest `LIMIT` in memory; the state file
keeps all. Never changes what was told.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TRADES, ACTIVITIES = "trades", "activities"
LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, not yet told. `order_id` is empty for what concerns no order."""

    channel: str
    id: str
    moment: int
    order_id: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it goes out: `body` is its JSON."""

    channel: str
    id: str
    moment: int
    order_id: str
    body: bytes


class History:
    """The events of one channel, oldest first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._events: list[Told] = []

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Told]:
        return iter(self._events)

    def add(self, event: Told) -> None:
        self._events.append(event)
        if len(self._events) > self._limit * 1.1:
            del self._events[: -self._limit]

    def between(self, after: str, until: str | None) -> list[Told]:
        """Those with an id above `after`, up to and including `until`."""
        first = bisect_right(self._events, after, key=lambda event: event.id)
        end = len(self._events)
        if until is not None:
            end = bisect_right(self._events, until, key=lambda event: event.id)
        return self._events[first:end]

    def during(self, since: int, until: int | None) -> list[Told]:
        """Those from one moment to another, both included.

        A clock that was set back leaves the moments unsorted, so each is looked at.
        """
        return [
            event
            for event in self._events
            if event.moment >= since and (until is None or event.moment <= until)
        ]
