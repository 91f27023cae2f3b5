"""The order log: one line for each attempt to submit, replace, cancel or query orders (SPEC O12).

Made where requests leave, so that every answer of the broker is kept: also one that was unusable,
or came when no attempt was left. Must never make a request, raise, or change what a call proves.
Knows no order of ours: who calls adds what the broker is not told, with `about`.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict, Unpack
from urllib.parse import unquote

import requests

from ordinis.broker.errors import BrokerError, Outcome
from ordinis.logging import mask

log = logging.getLogger("ordinis.broker.calls")

LONGEST_ANSWER = 16_384  # characters
_LONGEST_WORD = 500  # characters of an error message, an id, a status
_ASKED = (
    *("client_order_id", "symbol", "side", "qty", "type", "order_class", "time_in_force"),
    *("limit_price", "stop_price", "trail_price", "trail_percent"),
)
_FIGURES = ("equity", "cash", "buying_power")

Action = Literal["submit", "replace", "cancel", "cancel_all", "query"]
Classification = Literal["ok", "retriable", "fatal"]
"""Whether the same request may succeed in a moment. Who may repeat it is another question."""
_ACTIONS: Mapping[str, Action] = {"POST": "submit", "PATCH": "replace"}


class About(TypedDict, total=False):
    """What callers may add to the lines. What the request itself says goes first."""

    order: str
    """Our own id of the order."""
    order_attempt: int
    """Which sending of the order this is; `attempt` counts within one call."""
    account: str
    strategy: str
    symbol: str
    side: str
    client_order_id: str


_about: ContextVar[About] = ContextVar("order_log_about")


@contextlib.contextmanager
def about(**fields: Unpack[About]) -> Iterator[None]:
    """Adds these fields to every line made inside, in this thread."""
    token = _about.set({**_about.get({}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attempt: what is asked, and since when."""

    method: str
    path: str
    data: Mapping[str, Any]
    """Body or query."""
    attempt: int
    started: float = field(default_factory=time.monotonic)

    @property
    def action(self) -> Action | None:
        """None when it is not about orders."""
        if not self.path.startswith("/orders"):
            return None
        if self.method == "DELETE":
            return "cancel_all" if self.path == "/orders" else "cancel"
        return _ACTIONS.get(self.method, "query")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended; `response` is whatever came, its body perhaps only in part."""

    answer: Any = None
    """The readable answer, parsed."""
    error: BaseException | None = None
    classification: Classification = "ok"
    response: requests.Response | None = None


def figures(account: Any) -> dict[str, Any]:
    """What is kept of an account's answer, for the lines of failures to come."""
    if not isinstance(account, dict):
        return {}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {**{name: account.get(name) for name in _FIGURES}, "as_of": now}


def write(call: Call, ending: Ending, account: Mapping[str, Any]) -> None:
    """The line of one attempt. `account` is the latest `figures`; it stands beside failures."""
    action = call.action
    if action is None:
        return
    try:
        outcome = _outcome(action, ending)
        level = logging.DEBUG if action == "query" else logging.INFO
        detail = {"action": action, "outcome": outcome, **_detail(action, call, ending)}
        if ending.classification != "ok" and account:
            detail["account_figures"] = dict(account)
        extra = {**_fields(call, ending), "detail": detail}
        log.log(level, "%s %s", action, outcome, extra=extra)
    except Exception:  # whatever is wrong with the log, what the broker said stands
        with contextlib.suppress(Exception):
            logging.getLogger("ordinis.broker").exception("A line of the order log is lost.")


def _outcome(action: Action, ending: Ending) -> str:
    if ending.error is None:
        return "answered"
    if ending.classification == "ok":
        return "absent"  # the broker's own word that there is no such order
    outcome = getattr(ending.error, "outcome", Outcome.UNRESOLVED)
    if action == "query" and outcome is Outcome.UNRESOLVED:
        return "unavailable"
    return str(outcome)


def _fields(call: Call, ending: Ending) -> dict[str, Any]:
    """What the console shows too."""
    # The two exits of an OCO pair hold the prices; the order itself is the take-profit.
    asked = {**call.data.get("stop_loss", {}), **call.data.get("take_profit", {}), **call.data}
    told = ending.answer if isinstance(ending.answer, dict) else {}
    _, _, broker_order_id = call.path.partition("/orders/")
    error = ending.error
    fields: dict[str, Any] = {
        **_about.get({}),
        **{name: asked[name] for name in _ASKED if name in asked},
        "broker_order_id": unquote(broker_order_id) or _word(told.get("id")),
        "status": _word(told.get("status")),
        "attempt": call.attempt,
        "latency_ms": round((time.monotonic() - call.started) * 1000, 1),
        "http_status": None if ending.response is None else ending.response.status_code,
        "classification": ending.classification,
    }
    if isinstance(error, BrokerError):
        fields["error"] = _word(error.message)
        fields["broker_code"] = _word(error.code)
        # A header of a thousand digits would be Infinity, which is no JSON.
        fields["retry_after"] = None if error.retry_after is None else min(error.retry_after, 1e9)
    elif error is not None:
        fields["error"] = type(error).__name__
    return {name: value for name, value in fields.items() if value not in (None, "")}


def _detail(action: Action, call: Call, ending: Ending) -> dict[str, Any]:
    """What only the file gets. Lists that were read whole are large, and have no answer there."""
    detail: dict[str, Any] = {}
    if action == "query":
        detail["query"] = dict(call.data)
    if ending.response is not None:
        detail["broker_request_id"] = _word(ending.response.headers.get("X-Request-ID"))
        body = ending.response._content or b""
        detail["answer_size"] = len(body)
        if isinstance(ending.answer, list):
            detail["count"] = len(ending.answer)
        if action != "query" or not isinstance(ending.answer, list):
            # Masked before it is cut: half a secret would not be found.
            detail["answer"] = mask(body.decode("utf-8", "replace"))[:LONGEST_ANSWER]
    return detail


def _word(value: object) -> str | None:
    return None if value is None else mask(str(value))[:_LONGEST_WORD]
