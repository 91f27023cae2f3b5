"""Every status an order can have, and which may follow which. Decides nothing else.

The broker's 18 statuses keep its names (API.md); ours are those it can't know.
"""

from typing import Final

from ordinis.broker.port import BROKER_STATUSES, TERMINAL_STATUSES

DENIED: Final = "denied"  # refused by our own risk checks; never sent
SUBMITTING: Final = "submitting"  # intent committed, about to be sent or being sent
UNRESOLVED: Final = "unresolved"  # sent, the answer lost: it may exist
FAILED: Final = "failed"  # proved never to have reached the broker
REJECTED: Final = "rejected"

OURS: Final = frozenset({DENIED, SUBMITTING, UNRESOLVED, FAILED})
CLOSED: Final = TERMINAL_STATUSES | {DENIED, FAILED}
WORKING: Final = BROKER_STATUSES - TERMINAL_STATUSES
# The broker's word is still awaited on whether these exist at all.
UNPROVED: Final = frozenset({SUBMITTING, UNRESOLVED})

# What may follow what. A status the broker invents counts as a working one.
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    # The answer may already be the end (an order filled at once), or be lost.
    SUBMITTING: WORKING | TERMINAL_STATUSES | {UNRESOLVED},
    # Found in whatever state it is by now; or sent once more with the same id; or proved absent.
    UNRESOLVED: WORKING | TERMINAL_STATUSES | {SUBMITTING, FAILED},
    # We were wrong: the request was on its way longer than anyone waited. Raises an incident.
    FAILED: WORKING | TERMINAL_STATUSES,
    DENIED: frozenset(),
    # Venues may skip any step and come back from any quiet one (a replace refused returns
    # pending_replace to new, a new trading day wakes done_for_day).
    **{status: WORKING - {status} | TERMINAL_STATUSES for status in sorted(WORKING)},
    "filled": frozenset(),
    # A fill can win the race against the cancel, the expiry or the replacement and be reported
    # after it. Raises an incident.
    "canceled": frozenset({"filled"}),
    "expired": frozenset({"filled"}),
    "replaced": frozenset({"filled"}),
    # The refusal reached us, but the order lives: the broker contradicts itself. Incident.
    REJECTED: WORKING | TERMINAL_STATUSES - {REJECTED},
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
    return status in BROKER_STATUSES or status in OURS


def check(before: str, after: str) -> None:
    """Raises InvalidTransition unless `after` may follow `before`."""
    if before == after:
        return
    allowed = TRANSITIONS.get(before, WORKING | TERMINAL_STATUSES)
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
    if status in ("canceled", "expired", "replaced"):
        return "cancelled"
    if status in (DENIED, REJECTED, FAILED):
        return "rejected"
    return "partially_filled" if filled or status == "partially_filled" else "queued"
