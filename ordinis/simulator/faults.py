"""Faults on demand: the ways in which a broker's answers go missing or wrong.

A fault never touches what the exchange does; it only decides what the client gets to see of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Before: the request is lost, nothing happens. After: it takes full effect, the answer is lost.
BEFORE = ("drop_before", "status_before", "stall")
AFTER = ("drop_after", "status_after", "delay_after", "html_after")
LOOKUP = "lookup_404"
STREAM = ("stream_close", "stream_mute", "stream_duplicate", "stream_swap")
KINDS = (*BEFORE, *AFTER, LOOKUP, *STREAM)
_DEFAULT_STATUS = {"status_before": 503, "status_after": 504, "html_after": 502}
_DEFAULT_SECONDS = {"stall": 30.0, "delay_after": 1.0, LOOKUP: 1.0}
_FIELDS = {"kind", "method", "path", "body", "count", "status", "seconds", "retry_after"}


@dataclass(slots=True)
class Fault:
    """One rule. `left` counts down with each use; None is for good."""

    kind: str
    method: str | None = None
    path: re.Pattern[str] = field(default_factory=lambda: re.compile(".*"))
    body: re.Pattern[str] | None = None
    left: int | None = 1
    status: int = 0
    seconds: float = 0.0
    retry_after: int | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Fault":
        """Raises ValueError."""
        kind = values.get("kind")
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}")
        if unknown := set(values) - _FIELDS:
            raise ValueError(f"no fault has {', '.join(sorted(unknown))}")
        method, body = values.get("method"), values.get("body")
        # What goes on until it is taken away, unless a count says otherwise.
        lasting = kind in {LOOKUP, "stream_mute"}
        left = values.get("count", None if lasting else 1)
        try:
            return cls(
                kind=str(kind),
                method=str(method).upper() if method else None,
                path=re.compile(str(values.get("path") or ".*")),
                body=re.compile(str(body)) if body else None,
                left=None if left is None else int(left),
                status=int(values.get("status") or _DEFAULT_STATUS.get(str(kind), 0)),
                seconds=float(values.get("seconds", _DEFAULT_SECONDS.get(str(kind), 0.0))),
                retry_after=values.get("retry_after"),
            )
        except (TypeError, re.error) as problem:
            raise ValueError(str(problem)) from None

    def matches(self, method: str, path: str, body: str) -> bool:
        return (
            (self.method is None or self.method == method)
            and self.path.fullmatch(path) is not None
            and (self.body is None or self.body.search(body) is not None)
        )

    def dump(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "method": self.method,
            "path": self.path.pattern,
            "body": self.body.pattern if self.body else None,
            "count": self.left,
            "status": self.status or None,
            "seconds": self.seconds,
            "retry_after": self.retry_after,
        }


class Faults:
    """The rules in force, oldest first."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._rules.append(fault)

    def clear(self) -> None:
        self._rules.clear()

    def dump(self) -> list[dict[str, Any]]:
        return [rule.dump() for rule in self._rules]

    def for_request(self, method: str, path: str, body: bytes) -> Fault | None:
        """The fault that this request meets, used up by one."""
        if not self._rules:
            return None
        text = body.decode("utf-8", "replace")
        for rule in self._rules:
            if rule.kind in BEFORE + AFTER and rule.matches(method, path, text):
                return self._use(rule)
        return None

    def for_stream(self, kind: str) -> bool:
        """Whether a fault of this kind applies to the next event; uses it up by one."""
        for rule in self._rules:
            if rule.kind == kind:
                self._use(rule)
                return True
        return False

    def hides(self, client_order_id: str, age: float) -> bool:
        """Whether a look-up by client id must not find an order of this age in seconds yet."""
        for rule in self._rules:
            applies = rule.body is None or rule.body.search(client_order_id) is not None
            if rule.kind == LOOKUP and applies and age < rule.seconds:
                self._use(rule)
                return True
        return False

    def _use(self, rule: Fault) -> Fault:
        if rule.left is not None:
            rule.left -= 1
            if rule.left <= 0:
                self._rules.remove(rule)
        return rule
