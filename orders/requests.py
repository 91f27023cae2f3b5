"""What a strategy asks for, parsed. Values only: nothing here judges, stores or sends."""

import hashlib
import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from ordinis.numbers import plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """A take-profit (`limit_price`) or stop-loss (`stop_price`, with `limit_price` a stop-limit)
    that is to wait for its order's fill."""

    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """What a strategy asks for, parsed: shares and dollars. A limit order gives `limit_price`, or
    `reference_price`, from which the configured offset makes it."""

    client_order_id: str | None
    symbol: str
    side: Literal["buy", "sell"]
    type: str
    qty: Decimal
    reference_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    time_in_force: str = "day"
    extended_hours: bool = False
    take_profit: Exit | None = None
    stop_loss: Exit | None = None
    parent: UUID | None = None
    reduce_only: bool = False

    @property
    def fingerprint(self) -> str:
        """Equal for equal orders, however their decimals were written."""
        return fingerprint_of(asdict(self))


def fingerprint_of(body: dict[str, Any]) -> str:
    """A digest of a parsed request, in which 50 and 50.0 are the same. What is not asked for is
    left out, so that a field added later changes no digest."""
    text = json.dumps(_asked(body), sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _asked(value) if isinstance(value, dict) else value
        for name, value in body.items()
        if value not in (None, False)
    }


def _plain(value: Any) -> str:
    return plain(value) if isinstance(value, Decimal) else str(value)
