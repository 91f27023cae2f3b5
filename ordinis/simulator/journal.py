"""Every request that reached the trading address, in order, so that a test can prove a silence.

Kept in memory only, and never with the keys that came with a request.
"""

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

from ordinis.simulator import moments


@dataclass(slots=True)
class Entry:
    """`status` is None while unanswered, and for good when the answer was cut off."""

    number: int
    moment: int
    method: str
    path: str
    query: str
    body: bytes
    status: int | None = None
    fault: str | None = None

    def dump(self) -> dict[str, Any]:
        text = self.body.decode("utf-8", "replace")
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        return {
            "number": self.number,
            "time": moments.text(self.moment),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "body": body,
            "status": self.status,
            "fault": self.fault,
        }


class Journal:
    """The last requests; older ones are forgotten beyond the limit."""

    def __init__(self, limit: int = 100_000) -> None:
        self._entries: deque[Entry] = deque(maxlen=limit)
        self._count = 0

    def add(self, moment: int, method: str, path: str, query: str, body: bytes) -> Entry:
        self._count += 1
        entry = Entry(self._count, moment, method, path, query, body)
        self._entries.append(entry)
        return entry

    def clear(self) -> None:
        self._entries.clear()

    def select(self, *, method: str | None, path: str | None) -> list[dict[str, Any]]:
        return [
            entry.dump()
            for entry in self._entries
            if (method is None or entry.method == method.upper())
            and (path is None or entry.path == path)
        ]
