"""What can go wrong at the broker's edge, and what each failure proves.

Never let a timeout pass for a refusal: only `OrderRefused` says that no order exists.
"""

from collections.abc import Mapping
from typing import Any


class BrokerError(Exception):
    """Base of all. `code` and `fields` are the broker's own, where it gave any."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status  # HTTP status, None when no answer came
        self.code = code
        self.fields = dict(fields or {})


class BrokerUnavailable(BrokerError):
    """A read got no usable answer. Nothing may be concluded; ask again."""


class BrokerRefused(BrokerError):
    """A read was refused for good (keys, permission). A person must act."""


class OrderRefused(BrokerError):
    """The broker refused the order: it does not exist, and its client id is not spent."""


class DuplicateClientOrderId(BrokerError):
    """An order with this client id exists already. It is probably ours: look it up."""


class OutcomeUnknown(BrokerError):
    """The order was sent and the answer lost: it may exist. Find out, never assume."""
