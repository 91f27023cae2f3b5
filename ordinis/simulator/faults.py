"""Faults on demand: the ways in which a broker's answers, lists and events go missing or wrong.

Decides which fault a request, an event or an order meets; what it then does is in `mangle`,
`stream` and `steps`. Apart from those of stage ORDER, a fault never touches what the exchange does;
it only decides what the client gets to see of it.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ordinis.simulator.badday import BadDay

BEFORE = "before"  # the request is lost, nothing happens
AFTER = "after"  # it takes full effect; the answer is lost, late or wrong
LIST = "list"  # the answer to a request for a list is wrong
LOOKUP = "lookup"
ORDER = "order"  # the venue itself does what one does not expect
EVENT = "event"  # what becomes of one event on its way to the listeners
NOW = "now"  # done at once, to all connections

_CURSOR = r"(^|&)(page_token|after_order_id|before_order_id|after|until)="
_LISTS = r"/v2/(orders|positions|assets|account/activities(/[^/]+)?)"


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault's stage and what it does unless told otherwise."""

    stage: str
    status: int = 0
    seconds: float = 0.0
    lasting: bool = False  # until it is taken away
    method: str | None = None
    path: str = ".*"
    query: str | None = None


KINDS: dict[str, Kind] = {
    "drop_before": Kind(BEFORE),
    "stall": Kind(BEFORE, seconds=30),
    "status_before": Kind(BEFORE, status=503),
    "html_before": Kind(BEFORE, status=502),
    "empty_before": Kind(BEFORE, status=200),
    "redirect_before": Kind(BEFORE, status=302),
    "rate_limited": Kind(BEFORE, status=429),
    "unauthorized": Kind(BEFORE, status=401),
    "no_funds": Kind(BEFORE, status=403, method="POST", path="/v2/orders"),
    "duplicate_id": Kind(BEFORE, status=422, method="POST", path="/v2/orders"),
    "second_page_fails": Kind(BEFORE, status=500, method="GET", query=_CURSOR),
    "drop_after": Kind(AFTER),
    "cut_after": Kind(AFTER),
    "truncated_after": Kind(AFTER),
    "status_after": Kind(AFTER, status=504),
    "html_after": Kind(AFTER, status=502),
    "empty_after": Kind(AFTER, status=200),
    "redirect_after": Kind(AFTER, status=302),
    "delay_after": Kind(AFTER, seconds=1),
    "drip_after": Kind(AFTER, seconds=5),
    "duplicate_id_after": Kind(AFTER, status=422, method="POST", path="/v2/orders"),
    "odd_after": Kind(AFTER),
    "list_lag": Kind(LIST, seconds=5, method="GET", path=_LISTS),
    "list_omit": Kind(LIST, method="GET", path=_LISTS),
    "list_empty": Kind(LIST, method="GET", path=_LISTS),
    "lookup_404": Kind(LOOKUP, seconds=1, lasting=True),
    "reject_later": Kind(ORDER),
    "cancel_rejected": Kind(ORDER),
    "fill_while_cancelling": Kind(ORDER),
    "part_fill_while_cancelling": Kind(ORDER),
    "late_fill": Kind(ORDER, seconds=0.05),
    "replace_rejected": Kind(ORDER),
    "bust_later": Kind(ORDER, seconds=0.05),
    "stream_mute": Kind(EVENT, lasting=True),
    "stream_duplicate": Kind(EVENT),
    "stream_swap": Kind(EVENT),
    "stream_delay": Kind(EVENT, seconds=1),
    "stream_unknown_event": Kind(EVENT),
    "stream_unknown_status": Kind(EVENT),
    "stream_garbage": Kind(EVENT),
    "sse_slow": Kind(EVENT),
    "stream_close": Kind(NOW),
    "stream_gap": Kind(NOW, seconds=1),
    "stream_freeze": Kind(NOW, seconds=30),
    "sse_close": Kind(NOW),
    "sse_error": Kind(NOW),
    "refuse": Kind(NOW, seconds=1),
}
_FIELDS = {
    *("kind", "method", "path", "query", "body", "count", "status", "seconds", "retry_after"),
    *("probability", "headers"),
}


@dataclass(slots=True)
class Fault:
    """One rule. `left` counts down with each use; None is for good."""

    kind: str
    method: str | None = None
    path: re.Pattern[str] = field(default_factory=lambda: re.compile(".*"))
    query: re.Pattern[str] | None = None
    body: re.Pattern[str] | None = None
    left: int | None = 1
    status: int = 0
    seconds: float = 0.0
    retry_after: int | None = None
    probability: float = 1.0
    headers: bool = True  # whether a 429 tells how many requests are left

    @property
    def stage(self) -> str:
        return KINDS[self.kind].stage

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Fault":
        """Raises ValueError."""
        name = str(values.get("kind"))
        kind = KINDS.get(name)
        if kind is None:
            raise ValueError(f"kind is one of {', '.join(KINDS)}")
        if unknown := set(values) - _FIELDS:
            raise ValueError(f"no fault has {', '.join(sorted(unknown))}")
        method = values.get("method") or kind.method
        query, body = values.get("query") or kind.query, values.get("body")
        left = values.get("count", None if kind.lasting else 1)
        try:
            made = cls(
                kind=name,
                method=str(method).upper() if method else None,
                path=re.compile(str(values.get("path") or kind.path)),
                query=re.compile(str(query)) if query else None,
                body=re.compile(str(body)) if body else None,
                left=None if left is None else int(left),
                status=int(values.get("status") or kind.status),
                seconds=float(values.get("seconds", kind.seconds)),
                retry_after=values.get("retry_after"),
                probability=float(values.get("probability", 1)),
                headers=values.get("headers", True) is True,
            )
        except (TypeError, re.error) as problem:
            raise ValueError(str(problem)) from None
        if not 0 < made.probability <= 1 or made.seconds < 0:
            raise ValueError("probability is above 0 and at most 1; seconds are 0 or more")
        return made

    def matches(self, method: str, path: str, query: str, body: str) -> bool:
        return (
            (self.method is None or self.method == method)
            and self.path.fullmatch(path) is not None
            and (self.query is None or self.query.search(query) is not None)
            and self.concerns(body)
        )

    def concerns(self, text: str) -> bool:
        return self.body is None or self.body.search(text) is not None

    def dump(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "method": self.method,
            "path": self.path.pattern,
            "query": self.query.pattern if self.query else None,
            "body": self.body.pattern if self.body else None,
            "count": self.left,
            "status": self.status or None,
            "seconds": self.seconds,
            "retry_after": self.retry_after,
            "probability": self.probability,
            "headers": self.headers,
        }


class Faults:
    """The rules in force, oldest first; and the bad day, if there is one."""

    def __init__(self, seed: int) -> None:
        self._rules: list[Fault] = []
        self._random = random.Random(seed)
        self.bad_day: BadDay | None = None

    def add(self, fault: Fault) -> None:
        self._rules.append(fault)

    def clear(self) -> None:
        self._rules.clear()

    def dump(self) -> list[dict[str, Any]]:
        return [rule.dump() for rule in self._rules]

    @property
    def idle(self) -> bool:
        return not self._rules and self.bad_day is None

    def for_request(self, method: str, path: str, query: str, body: bytes) -> Fault | None:
        """The fault that this request meets, used up by one."""
        if self.idle:
            return None
        text = body.decode("utf-8", "replace")
        for rule in self._rules:
            concerned = rule.stage in {BEFORE, AFTER, LIST}
            if concerned and rule.matches(method, path, query, text) and self._strikes(rule):
                return rule
        if self.bad_day is not None:
            return self.bad_day.for_request(method, path, query)
        return None

    def for_event(self, kind: str, text: str) -> Fault | None:
        """The fault of this kind that the next event meets; `text` is what names the event."""
        return self._of_kind(kind, text)

    def for_order(self, kind: str, text: str) -> Fault | None:
        """The fault of this kind that the venue commits on an order."""
        return self._of_kind(kind, text)

    def hides(self, client_order_id: str, age: float) -> bool:
        """Whether a look-up by client id must not find an order of this age in seconds yet."""
        for rule in self._rules:
            concerned = rule.kind == "lookup_404" and age < rule.seconds
            if concerned and rule.concerns(client_order_id) and self._strikes(rule):
                return True
        return self.bad_day is not None and self.bad_day.hides(client_order_id, age)

    def _of_kind(self, kind: str, text: str) -> Fault | None:
        if self.idle:
            return None
        for rule in self._rules:
            if rule.kind == kind and rule.concerns(text) and self._strikes(rule):
                return rule
        return None if self.bad_day is None else self.bad_day.for_happening(kind, text)

    def _strikes(self, rule: Fault) -> bool:
        """Draw for a rule that applies; used up by one if it does strike."""
        if rule.probability < 1 and self._random.random() >= rule.probability:
            return False
        if rule.left is not None:
            rule.left -= 1
            if rule.left <= 0:
                self._rules.remove(rule)
        return True
