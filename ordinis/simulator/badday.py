"""A bad day at the broker: every kind of fault there is, in a mixture that follows from a seed.

Draws what each request, event and order meets, in the order in which they come, and keeps a list of
what it did. It must never do to a request what the exchange could not survive: what takes effect
stays in effect, only the telling goes wrong.
"""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ordinis.simulator import moments
from ordinis.simulator.faults import AFTER, BEFORE, EVENT, KINDS, LIST, NOW, ORDER, Fault
from ordinis.simulator.moments import SECOND, Clock

_LOG_LIMIT = 10_000
# How often a kind comes beside the others of its stage; 2 unless it is listed here.
_WEIGHTS = {"drop_after": 6, "status_after": 4, "drop_before": 4, "unauthorized": 1, "refuse": 1}
# Of what the intensity says: how much falls on an event, an order, all connections.
_SHARES = {EVENT: 0.25, ORDER: 1.0, NOW: 0.1}
_LOOKUP_AGE = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `timeout` is what the client waits for an answer, in seconds."""

    seed: int
    intensity: float
    ends_at: int | None
    requests: int | None
    timeout: float


class BadDay:
    """One such day, from its first request to its end."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self.plan = plan
        self._clock = clock
        self._random = random.Random(plan.seed)
        self._started = clock()
        self._seen = 0
        self._counts: Counter[str] = Counter()
        self._log: list[dict[str, Any]] = []
        self._hidden: dict[str, bool] = {}

    @property
    def over(self) -> bool:
        plan = self.plan
        if plan.requests is not None and self._seen >= plan.requests:
            return True
        return plan.ends_at is not None and self._clock() >= plan.ends_at

    def for_request(self, method: str, path: str, query: str) -> Fault | None:
        if self.over:
            return None
        self._seen += 1
        if self._random.random() >= self.plan.intensity:
            return None
        candidates = [
            name
            for name, kind in KINDS.items()
            if kind.stage in {BEFORE, AFTER, LIST}
            and Fault.read({"kind": name}).matches(method, path, query, "")
        ]
        return self._make(self._pick(candidates), f"{method} {path}")

    def for_everybody(self) -> Fault | None:
        """Something that happens to all connections at once."""
        if self.over or self._random.random() >= self.plan.intensity * _SHARES[NOW]:
            return None
        names = [name for name, kind in KINDS.items() if kind.stage == NOW]
        return self._make(self._pick(names), "everybody")

    def for_happening(self, kind: str, what: str) -> Fault | None:
        """What becomes of an event or an order."""
        if self.over:
            return None
        stage = KINDS[kind].stage
        of_stage = [_WEIGHTS.get(name, 2) for name, it in KINDS.items() if it.stage == stage]
        part = _WEIGHTS.get(kind, 2) / sum(of_stage)
        if self._random.random() >= self.plan.intensity * _SHARES[stage] * part:
            return None
        return self._make(kind, what)

    def hides(self, client_order_id: str, age: float) -> bool:
        """Whether an order can't be looked up yet: decided once for an order, true for 2 s."""
        if self.over and client_order_id not in self._hidden:
            return False
        if client_order_id not in self._hidden:
            hidden = self._random.random() < self.plan.intensity
            self._hidden[client_order_id] = hidden
            if hidden:
                self._note("lookup_404", client_order_id)
        return self._hidden[client_order_id] and age < _LOOKUP_AGE

    def dump(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "seed": plan.seed,
            "intensity": plan.intensity,
            "timeout": plan.timeout,
            "started_at": moments.text(self._started),
            "ends_at": moments.optional_text(plan.ends_at),
            "requests": plan.requests,
            "requests_seen": self._seen,
            "over": self.over,
            "faults": dict(sorted(self._counts.items())),
            "log": self._log,
        }

    def _pick(self, names: list[str]) -> str:
        weights = [_WEIGHTS.get(name, 2) for name in names]
        return self._random.choices(names, weights)[0]

    def _make(self, name: str, what: str) -> Fault:
        fault = Fault.read({"kind": name})
        if name in {"stall", "delay_after", "drip_after"}:
            # As often within the client's patience as beyond it.
            fault.seconds = self.plan.timeout * self._random.choice((0.1, 0.5, 1.5))
        elif name in {"status_before", "status_after"}:
            fault.status = self._random.choice((500, 502, 503, 504))
        elif name == "rate_limited":
            fault.headers = self._random.random() < 0.5
            fault.retry_after = self._random.choice((None, 1))
        elif name in {"refuse", "stream_gap", "stream_freeze"}:
            fault.seconds = self._random.choice((0.2, 0.5, 1.0))
        self._note(name, what)
        return fault

    def _note(self, name: str, what: str) -> None:
        self._counts[name] += 1
        if len(self._log) < _LOG_LIMIT:
            self._log.append(
                {
                    "request": self._seen,
                    "time": moments.text(self._clock()),
                    "kind": name,
                    "what": what,
                }
            )


def read_plan(values: dict[str, Any], clock: Clock) -> Plan:
    """Raises ValueError."""
    if unknown := set(values) - {"seed", "intensity", "minutes", "requests", "timeout"}:
        raise ValueError(f"a bad day has no {', '.join(sorted(unknown))}")
    minutes, requests = values.get("minutes"), values.get("requests")
    if (minutes is None) == (requests is None):
        raise ValueError("a bad day lasts either so many minutes or so many requests")
    intensity, timeout = float(values.get("intensity", 0.2)), float(values.get("timeout", 2))
    if not 0 < intensity <= 1 or timeout <= 0:
        raise ValueError("intensity is above 0 and at most 1, timeout above 0")
    return Plan(
        seed=int(values.get("seed", 1)),
        intensity=intensity,
        ends_at=None if minutes is None else clock() + int(float(minutes) * 60 * SECOND),
        requests=None if requests is None else int(requests),
        timeout=timeout,
    )
