"""Every status an order can have, and which may follow which. Decides nothing else.

The broker's 18 statuses keep its names (API.md); ours are those it can't know.
"""

from typing import Final

from ordinis.broker.port import BROKER_STATUSES, TERMINAL_STATUSES

CREATED: Final = "created"  # known, not judged yet
DENIED: Final = "denied"  # refused by our own risk checks; never sent
WAITING: Final = "waiting"  # a dependent order whose parent is not confirmed filled
SUBMITTING: Final = "submitting"  # intent committed, about to be sent or being sent
UNRESOLVED: Final = "unresolved"  # sent, the answer lost: it may exist
FAILED: Final = "failed"  # proved never to have reached the broker
REJECTED: Final = "rejected"
CANCELED: Final = "canceled"
REPLACED: Final = "replaced"

OURS: Final = frozenset({CREATED, DENIED, WAITING, SUBMITTING, UNRESOLVED, FAILED})
CLOSED: Final = TERMINAL_STATUSES | {DENIED, FAILED}
WORKING: Final = BROKER_STATUSES - TERMINAL_STATUSES
# Nothing of it has left for the broker.
UNSENT: Final = frozenset({CREATED, WAITING})
# The broker's word is still awaited on whether these exist at all.
UNPROVED: Final = frozenset({SUBMITTING, UNRESOLVED})
# The broker refused it, or never said a word of it: what the circuit breaker counts as a failure.
UNSUCCESSFUL: Final = frozenset({REJECTED, FAILED, UNRESOLVED})

_ANY_REPORT: Final = WORKING | TERMINAL_STATUSES


def _moves_on(status: str) -> frozenset[str]:
    """From a working status the broker may go to any other: venues skip steps and come back."""
    return _ANY_REPORT - {status}


# What may follow what: all 24. A status that the broker invents counts as a working one.
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    # --- ours ---
    CREATED: frozenset({WAITING, SUBMITTING, DENIED, CANCELED}),
    # Cancelled with its parent or by request, without ever having been sent.
    WAITING: frozenset({SUBMITTING, CANCELED}),
    # The answer may already be the end (an order filled at once), or be lost. Back to waiting when
    # the broker's positions lag behind the parent's fill: such a refusal spends nothing.
    # Denied when trading was halted between its judgement and its sending: it never left.
    SUBMITTING: _ANY_REPORT | {UNRESOLVED, WAITING, DENIED},
    # Found in whatever state it is by now; or sent once more with the same id; or proved absent,
    # of which an exit that was refused for a lag waits on.
    UNRESOLVED: _ANY_REPORT | {SUBMITTING, FAILED, WAITING},
    # We were wrong: the request was on its way longer than anyone waited. Incident, and cancelled.
    FAILED: _ANY_REPORT,
    DENIED: frozenset(),
    # --- the broker's, working ---
    "accepted": _moves_on("accepted"),  # also rejected, after it was accepted
    "pending_new": _moves_on("pending_new"),
    "new": _moves_on("new"),
    "accepted_for_bidding": _moves_on("accepted_for_bidding"),
    "partially_filled": _moves_on("partially_filled"),  # the remainder may be rejected, too
    "held": _moves_on("held"),  # a stop-loss behind its take-profit; canceled when that one fills
    "stopped": _moves_on("stopped"),
    "suspended": _moves_on("suspended"),
    "pending_review": _moves_on("pending_review"),
    # A cancel loses the race against a fill, or is refused and the order lives on.
    "pending_cancel": _moves_on("pending_cancel"),
    # A replacement that is refused gives the order back as new.
    "pending_replace": _moves_on("pending_replace"),
    # Quiet, not over: the next trading day wakes a gtc order.
    "done_for_day": _moves_on("done_for_day"),
    "calculated": _moves_on("calculated"),
    # --- the broker's, ended ---
    # A trade taken back is a person's to decide; it moves no status.
    "filled": frozenset(),
    # With or without fills. A fill can win the race against the cancel, the expiry or the
    # replacement and be reported after it. Incident.
    CANCELED: frozenset({"filled"}),
    "expired": frozenset({"filled"}),
    REPLACED: frozenset({"filled"}),
    # The refusal reached us, but the order lives: the broker contradicts itself. Incident.
    REJECTED: _ANY_REPORT - {REJECTED},
}


class InvalidTransition(Exception):
    """A change of status that the table does not allow."""

    def __init__(self, before: str, after: str) -> None:
        super().__init__(f"An order that is {before} can't become {after}.")
        self.before = before
        self.after = after


def is_open(status: str) -> bool:
    """Whether more can happen to an order of this status; unknown ones count as open."""
    return status not in CLOSED


def is_known(status: str) -> bool:
    return status in TRANSITIONS


def check(before: str, after: str) -> None:
    """Raises InvalidTransition unless `after` may follow `before`."""
    if before == after:
        return
    allowed = TRANSITIONS.get(before, _ANY_REPORT)
    if after in allowed or (not is_known(after) and WORKING & allowed):
        return
    raise InvalidTransition(before, after)


def progress(status: str) -> int:
    """How far along a status is, for reports that carry no usable time."""
    if status in TERMINAL_STATUSES:
        return 4
    if status in ("partially_filled", "pending_cancel", "pending_replace"):
        return 3
    if status in ("accepted", "pending_new", "pending_review"):
        return 1
    return 0 if status in OURS else 2


def state(status: str, *, filled: bool) -> str:
    """The coarse state of API.md: queued, partially_filled, filled, cancelled, rejected."""
    if status == "filled":
        return "filled"
    if status in (CANCELED, "expired", REPLACED):
        return "cancelled"
    if status in (DENIED, REJECTED, FAILED):
        return "rejected"
    return "partially_filled" if filled or status == "partially_filled" else "queued"
