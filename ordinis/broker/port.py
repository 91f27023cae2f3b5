"""What a broker can tell us and what we can ask of it, in our own words.

Reports say what the broker says: exact decimals, its own statuses untouched, the raw body kept.
They never carry a decision of ours. Every list says whether it is complete.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Generic, Literal, Protocol, TypeVar

Raw = Mapping[str, Any]
Side = Literal["buy", "sell"]
T_co = TypeVar("T_co", covariant=True)

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
class Listing(Generic[T_co]):
    """Items, and whether all of them were read and understood; `reason` says why not. Nothing may
    be concluded from an absence in an incomplete list. `cut_off`: all that it lacks comes after its
    last item."""

    items: tuple[T_co, ...]
    complete: bool
    reason: str = ""
    cut_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReport:
    """The account's figures, in dollars."""

    account_number: str
    status: str
    equity: Decimal
    cash: Decimal
    buying_power: Decimal
    trading_blocked: bool
    # The account's own setting suspend_trade: no new orders.
    suspended: bool = False
    # Whether it may sell short at all; True where the broker does not say.
    may_short: bool = True
    # For what can't be bought on margin; None where the broker does not say.
    cash_buying_power: Decimal | None = None
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
    created_at: datetime | None = None
    updated_at: datetime | None
    replaces: str | None = None
    replaced_by: str | None = None
    execution: ExecutionReport | None = None
    bust: "BustReport | None" = None
    legs: "tuple[OrderReport, ...]" = ()
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BustReport:
    """A trade that the broker takes back (`trade_bust`) or corrects (`trade_correct`): shares and
    price are the broker's words on it, `previous_execution_id` names the trade."""

    kind: str
    execution_id: str
    previous_execution_id: str
    qty: Decimal | None
    price: Decimal | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StopLoss:
    """The second exit of an OCO pair; it holds no shares of its own."""

    stop_price: Decimal
    limit_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRequest:
    """What is sent, to the letter: committed before the broker is contacted. With `stop_loss` it
    is an OCO pair: the order itself is the take-profit."""

    client_order_id: str
    symbol: str
    side: str
    qty: Decimal
    type: str
    time_in_force: str
    limit_price: Decimal | None
    extended_hours: bool
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    stop_loss: StopLoss | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceRequest:
    """A change of a standing order. `qty` is the new total, what has filled included; the
    successor gets `client_order_id`."""

    client_order_id: str
    qty: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelReport:
    """What the broker said to one order's cancel in a cancel of all: accepted is not canceled."""

    broker_order_id: str
    accepted: bool
    status: int
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReport:
    """The exchange's time, and when it opens and closes next."""

    timestamp: datetime
    is_open: bool
    next_open: datetime
    next_close: datetime
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDay:
    """A day on which the exchange trades; `open` and `close` are Eastern Time, HH:MM."""

    day: date
    open: str
    close: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetReport:
    """What the broker says may be done with a symbol."""

    symbol: str
    asset_class: str
    status: str
    tradable: bool
    fractionable: bool
    shortable: bool
    marginable: bool
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteReport:
    """The best bid and ask, in dollars, as they came: 0 where a side has none. `occurred_at` is
    when the quote was made, which may be long ago."""

    symbol: str
    bid: Decimal
    ask: Decimal
    occurred_at: datetime | None
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityReport:
    """A line of the account's activities: a fill (`order_id`, `side`, `cum_qty`) or something
    else that moved money or shares (`net_amount`)."""

    activity_id: str
    activity_type: str
    occurred_at: datetime | None
    symbol: str | None
    side: str | None
    qty: Decimal | None
    price: Decimal | None
    cum_qty: Decimal | None
    net_amount: Decimal | None
    order_id: str | None
    raw: Raw = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReport:
    """The account's settings that bear on trading."""

    suspend_trade: bool
    no_shorting: bool
    fractional_trading: bool
    raw: Raw = field(repr=False)


class Broker(Protocol):
    """Every call the app makes. Each raises only what `ordinis.broker.errors` names.

    Reads raise BrokerUnavailable (nothing may be concluded) or BrokerRefused (keys, permission).
    """

    def account(self) -> AccountReport:
        """The account's figures."""

    def positions(self) -> Listing[PositionReport]:
        """All positions."""

    def position(self, symbol: str) -> PositionReport | None:
        """One position; None when the broker holds none."""

    def open_orders(self) -> Listing[OrderReport]:
        """All open orders, every page."""

    def orders_since(self, after: datetime) -> Listing[OrderReport]:
        """All orders submitted after a moment, open and closed, every page."""

    def order(self, broker_order_id: str) -> OrderReport | None:
        """One order by the broker's id, with its legs; None when it knows none."""

    def order_by_client_id(self, client_order_id: str) -> OrderReport | None:
        """One order by our id; None when the broker knows none (yet)."""

    def submit(self, request: OrderRequest) -> OrderReport:
        """Sends an order once. Raises OrderRefused or NotSent (it does not exist),
        DuplicateClientOrderId (one of this id does: look it up), or OutcomeUnknown."""

    def replace(self, broker_order_id: str, request: ReplaceRequest) -> OrderReport:
        """Asks for a change, once; the report is of the successor, which may still be refused.
        Raises as `submit`."""

    def cancel(self, broker_order_id: str) -> bool:
        """Asks for a cancel: True when the broker takes it up, which is not yet canceled; False
        when it knows no such order. Raises OrderRefused (it can't be canceled any more)."""

    def cancel_all(self) -> tuple[CancelReport, ...]:
        """Asks for a cancel of every open order, also those not placed here."""

    def clock(self) -> ClockReport:
        """The exchange's clock."""

    def calendar(self, start: date, end: date) -> Listing[CalendarDay]:
        """The trading days of a span, both ends included."""

    def asset(self, symbol: str) -> AssetReport | None:
        """One asset; None when the broker knows none."""

    def assets(self) -> Listing[AssetReport]:
        """All active US equities."""

    def quote(self, symbol: str) -> QuoteReport | None:
        """The latest quote; None when the broker tells us none: it knows no such symbol, has no
        market data, or keeps them from us, which says nothing of the trading keys. Asked once and
        briefly, beside the request limit. Raises BrokerUnavailable alone."""

    def fills_since(self, after: datetime) -> Listing[ActivityReport]:
        """All fill activities after a moment, every page, oldest first."""

    def activities(self, day: date) -> Listing[ActivityReport]:
        """All activities of a day other than fills, every page."""

    def configuration(self) -> ConfigurationReport:
        """The account's settings."""

    def suspend_trade(self, suspended: bool) -> ConfigurationReport:
        """Bars (or allows) new orders at the broker itself."""
