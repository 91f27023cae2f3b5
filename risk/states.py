"""What an account's orders may do: active, reducing or halted, and why. Values only."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

ACTIVE: Final = "active"
REDUCING: Final = "reducing"
HALTED: Final = "halted"
# From the loosest to the strictest.
STRICTNESS: Final = (ACTIVE, REDUCING, HALTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason for a state other than active: a stable code, a sentence, and where it is a
    matter of figures the limit and the actual value."""

    code: str
    state: str
    message: str
    limit: Decimal | None = None
    actual: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradingState:
    """The effective state: the strictest of what a person set, the breaker and the books' age."""

    state: str = ACTIVE
    breaker: str = "closed"
    reasons: tuple[Reason, ...] = ()
    # When it may change by itself.
    until: datetime | None = None
    # Half-open, and the one order that may try has not been chosen: a new order may be it.
    may_probe: bool = False
    # The order that tries: it passes although the state is reducing.
    probe: UUID | None = None
