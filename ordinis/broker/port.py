"""What a broker can tell us and what we can ask of it, in our own words.

Reports say what the broker says: exact decimals, its own statuses untouched, the raw body kept.
They never carry a decision of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

Raw = Mapping[str, Any]
Side = Literal["buy", "sell"]

# Alpaca's 18 (ALPACA.md 1.1). Anything else is stored and shown as it came.
BROKER_STATUSES = frozenset(
    {
        *("pending_new", "accepted", "new", "accepted_for_bidding", "held", "stopped"),
        *("suspended", "pending_review", "pending_cancel", "pending_replace"),
        *("done_for_day", "calculated", "partially_filled"),
        *("filled", "canceled", "expired", "replaced", "rejected"),
    }
)
# No further change of status is expected at the broker. Fills may still be corrected.
TERMINAL_STATUSES = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReport:
    """The account's figures, in dollars."""

    account_number: str
    status: str
    equity: Decimal
    cash: Decimal
    buying_power: Decimal
    trading_blocked: bool
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionReport:
    """A holding; `qty` is signed (a short is negative), as is `qty_available`."""

    symbol: str
    qty: Decimal
    qty_available: Decimal
    average_price: Decimal | None
    market_value: Decimal | None
    current_price: Decimal | None
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReport:
    """One execution of an order: shares and price of this execution alone."""

    execution_id: str
    qty: Decimal
    price: Decimal
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """An order as the broker describes it; `filled_qty` and `average_fill_price` are cumulative.

    `updated_at` is the broker's time of its latest change; never use `submitted_at`, it moves.
    """

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: str
    qty: Decimal | None
    type: str
    time_in_force: str
    limit_price: Decimal | None
    stop_price: Decimal | None
    status: str
    filled_qty: Decimal
    average_fill_price: Decimal | None
    updated_at: datetime | None
    execution: ExecutionReport | None = None
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """What is sent, to the letter: committed before the broker is contacted."""

    client_order_id: str
    symbol: str
    side: str
    qty: Decimal
    type: str
    time_in_force: str
    limit_price: Decimal | None
    extended_hours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """Orders and whether every page of them was read; nothing may be concluded from an
    absence in an incomplete list."""

    items: tuple[OrderReport, ...]
    complete: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Positions and whether the whole answer was read and understood."""

    items: tuple[PositionReport, ...]
    complete: bool
    reason: str = ""


class Broker(Protocol):
    """Every call the app makes. Each raises only what `ordinis.broker.errors` names."""

    def account(self) -> AccountReport:
        """The account's figures. Raises BrokerUnavailable, BrokerRefused."""

    def positions(self) -> Positions:
        """All positions. Raises BrokerUnavailable, BrokerRefused."""

    def position(self, symbol: str) -> PositionReport | None:
        """One position; None when the broker holds none. Raises as `positions`."""

    def open_orders(self) -> Orders:
        """All open orders, every page. Raises as `positions`."""

    def order(self, broker_order_id: str) -> OrderReport | None:
        """One order by the broker's id; None when it knows none."""

    def order_by_client_id(self, client_order_id: str) -> OrderReport | None:
        """One order by our id; None when the broker knows none (yet)."""

    def submit(self, request: OrderRequest) -> OrderReport:
        """Sends an order once. Raises OrderRefused (definite), DuplicateClientOrderId (an order
        of this id exists: look it up) or OutcomeUnknown (it may or may not exist)."""
