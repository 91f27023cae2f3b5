"""One order as the venue keeps it, and the words for its states.

Holds facts only: what may happen to an order is decided in `exchange`, how it is written on the
wire in `wire`.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from decimal import ROUND_DOWN, Decimal
from typing import Any

# On the venue's book, matched against every quote. A cancel or replace under way can lose the race.
WORKING = frozenset({"new", "partially_filled", "pending_cancel", "pending_replace"})
# Everything else is open, an unheard-of status too.
TERMINAL = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})

NANO_SHARE = Decimal("0.000000001")
NONE = Decimal(0)


def is_open(status: str) -> bool:
    return status not in TERMINAL


def shares_for(dollars: Decimal, price: Decimal) -> Decimal:
    """How many shares a dollar order comes to."""
    return (dollars / price).quantize(NANO_SHARE, ROUND_DOWN)


@dataclass(slots=True)
class Order:
    """Moments are nanoseconds since 1970; prices dollars; quantities shares."""

    id: str
    client_order_id: str
    sequence: int  # position in the venue's order of acceptance: the cursor of list requests
    symbol: str
    asset_id: str
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    trail_price: Decimal | None
    trail_percent: Decimal | None
    extended_hours: bool
    order_class: str
    position_intent: str
    status: str
    created_at: int
    updated_at: int
    submitted_at: int
    expires_at: int | None
    filled_qty: Decimal = NONE
    filled_value: Decimal = NONE  # sum of quantity times price over the executions
    hwm: Decimal | None = None
    filled_at: int | None = None
    expired_at: int | None = None
    canceled_at: int | None = None
    cancel_requested_at: int | None = None
    failed_at: int | None = None
    replaced_at: int | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    parent: str | None = None  # the order whose leg this is
    legs: tuple[str, ...] = ()
    triggered: bool = False  # a stop that went off
    collar_price: Decimal | None = None  # what a buy stop that went off pays at most
    busted: tuple[str, ...] = ()  # executions that were taken back or corrected
    eligible_at: int = 0  # the venue does not match it before this moment
    estimate: Decimal = NONE  # shares that a dollar order will come to
    reserve_price: Decimal = NONE  # buying power that one open share ties up
    reserved: Decimal = NONE

    @property
    def shares(self) -> Decimal:
        """What it is for; an estimate for a dollar order until that is filled."""
        return self.estimate if self.qty is None else self.qty

    @property
    def remaining(self) -> Decimal:
        return max(self.shares - self.filled_qty, NONE)

    @property
    def is_open(self) -> bool:
        return is_open(self.status)

    @property
    def opens(self) -> bool:
        """Whether it adds to a position, long or short."""
        return self.position_intent.endswith("_open")

    @property
    def filled_avg_price(self) -> Decimal | None:
        if not self.filled_qty:
            return None
        return (self.filled_value / self.filled_qty).quantize(NANO_SHARE)

    def to_row(self) -> str:
        """Without what is as it was at first, for half the size and time."""
        values = {}
        for name, initial in _INITIAL:
            value = getattr(self, name)
            if value is not initial:
                values[name] = value
        return json.dumps(values, default=str)

    @classmethod
    def from_values(cls, row: Mapping[str, Any]) -> "Order":
        """From a row once it is read; what is not in it is as it was at first."""
        values: dict[str, Any] = dict.fromkeys(_NEEDED) | dict(row)
        for name in _DECIMALS & values.keys():
            if values[name] is not None:
                values[name] = Decimal(values[name])
        for name in _TUPLES & values.keys():
            values[name] = tuple(values[name])
        return cls(**values)


_NEEDED = tuple(field.name for field in fields(Order) if field.default is MISSING)
_INITIAL = tuple(
    (field.name, None if field.default is MISSING else field.default) for field in fields(Order)
)
_DECIMALS = {field.name for field in fields(Order) if "Decimal" in str(field.type)}
_TUPLES = {field.name for field in fields(Order) if "tuple" in str(field.type)}
