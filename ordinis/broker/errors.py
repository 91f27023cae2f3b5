"""What can go wrong at the broker's edge, what each failure proves, and what to do next.

A call to the broker ends in one of four outcomes: confirmed (it returns), definitely refused,
denied locally (nothing left this machine), or unresolved. Never let a timeout pass for a refusal:
only `OrderRefused` and `NotSent` say that no order exists.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, ClassVar


class Outcome(StrEnum):
    """What is proved about a call that did not return a report."""

    REFUSED = "definitely_refused"
    DENIED_LOCALLY = "denied_locally"
    UNRESOLVED = "unresolved"


class BrokerError(Exception):
    """Base of all. `code`, `fields` and `status` (HTTP) are the broker's own, where it gave any;
    `retry_after` is how many seconds it asked us to wait."""

    outcome: ClassVar[Outcome] = Outcome.UNRESOLVED
    retriable: ClassVar[bool] = True
    advice: ClassVar[str] = "Ask again in a moment."

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        fields: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.fields = dict(fields or {})
        self.retry_after = retry_after

    def amount(self, name: str) -> Decimal | None:
        """One of the broker's figures (`buying_power`, `cost_basis`, `available`,
        `held_for_orders`, `existing_qty`) as a number, where it gave it as one."""
        try:
            number = Decimal(str(self.fields[name]))
        except (KeyError, InvalidOperation):
            return None
        return number if number.is_finite() else None

    @property
    def related_orders(self) -> tuple[str, ...]:
        """The broker's ids of the orders that stand in the way."""
        related = self.fields.get("related_orders")
        return tuple(str(item) for item in related) if isinstance(related, list) else ()


class BrokerUnavailable(BrokerError):
    """A read got no usable answer. Nothing may be concluded."""


class BrokerRefused(BrokerError):
    """The broker refuses our keys or a permission. A person must act."""

    outcome = Outcome.REFUSED
    retriable = False
    advice = "Check APCA_API_KEY_ID, APCA_API_SECRET_KEY and APCA_API_BASE_URL."


class NotSent(BrokerUnavailable):
    """Nothing left this machine: the request budget is spent, or no connection could be made."""

    outcome = Outcome.DENIED_LOCALLY


class OrderRefused(BrokerError):
    """The broker refused the order or the change: it does not exist, and a new order's client id
    is not spent."""

    outcome = Outcome.REFUSED
    retriable = False
    advice = "Read the broker's reason; a corrected order is a new order with a new id."

    @property
    def for_funds(self) -> bool:
        """Whether it was refused for want of buying power. Recognised by its message: the code
        40310000 also means other things."""
        return "insufficient" in self.message and "buying power" in self.message


class DuplicateClientOrderId(BrokerError):
    """An order with this client id exists already. It is probably ours: look it up."""

    advice = "Look the order up by its client order id."


class OutcomeUnknown(BrokerError):
    """It was sent and the answer lost: it may have happened. Find out, never assume."""

    advice = "Look it up by its client order id; send it again only with the same id and body."
