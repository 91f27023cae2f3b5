"""What is compared, as values: the book, the broker's facts, and what of them counts as different.
Pure data, without clock, query or network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from reconciliation.models import Kind

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BookPosition:
    """Ours: signed shares, average cost in dollars a share."""

    qty: Decimal
    average_price: Decimal | None = None
    ledger_version: int = 0
    # The broker's price when it last showed the position.
    last_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BookOrder:
    """An order of ours that is open, or that the broker lists as open."""

    id: UUID
    client_order_id: str
    broker_order_id: str | None
    symbol: str
    side: str
    qty: Decimal
    filled_qty: Decimal
    status: str
    is_open: bool
    # It moved while the broker's list was being read: what the list says of it may be older.
    moved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Figures from which later buying power follows; dollars. `gross` is the sum of positions,
    longs and shorts, `reserved` what open orders may cost."""

    buying_power: Decimal
    equity: Decimal
    gross: Decimal
    reserved: Decimal
    multiplier: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """Our side. Open orders and, besides, those that the broker lists."""

    positions: Mapping[str, BookPosition] = field(default_factory=dict)
    orders: Sequence[BookOrder] = ()
    cash: Decimal | None = None
    baseline: Baseline | None = None
    # Subjects whose difference stands as a break already: not new, so not a part of a mass.
    known: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPosition:
    """Theirs: signed shares, average cost and present price in dollars a share."""

    qty: Decimal
    average_price: Decimal | None = None
    price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOrder:
    """An order that the broker lists as open."""

    broker_order_id: str
    client_order_id: str
    symbol: str
    side: str
    qty: Decimal | None
    filled_qty: Decimal
    status: str
    price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideTrade:
    """A fill at the broker of an order that is not ours; `qty` is signed."""

    qty: Decimal
    price: Decimal
    occurred_at: datetime
    broker_order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorporateAction:
    """What the broker's activities say of a symbol's shares; `kind` is its own word (SPLIT …)."""

    kind: str
    qty: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The broker's side, from one complete reading; dollars and shares."""

    positions: Mapping[str, BrokerPosition] = field(default_factory=dict)
    orders: Sequence[BrokerOrder] = ()
    # Broker order ids of ours that were looked up one by one and are unknown there.
    missing: frozenset[str] = frozenset()
    cash: Decimal | None = None
    # Now, in the terms in which buying power is expected.
    standing: Baseline | None = None
    # By symbol, oldest first: the trades outside since the book last agreed.
    trades: Mapping[str, Sequence[OutsideTrade]] = field(default_factory=dict)
    actions: Mapping[str, Sequence[CorporateAction]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """What is not yet a difference, and what is too much of it. Shares have no tolerance."""

    # Of the average price: brokers round it, and keep lots in ways of their own.
    average_price_pct: Decimal = Decimal("0.5")
    average_price: Decimal = Decimal("0.01")
    cash: Decimal = Decimal(1)
    # Of buying power: dollars, share of (equity x multiplier), share of what has been turned over.
    buying_power: Decimal = Decimal(100)
    buying_power_pct: Decimal = Decimal(2)
    buying_power_turnover_pct: Decimal = Decimal(50)
    # So many differences at once, and more than this share of all that was compared, are not
    # single slips: another account, an account begun anew, a broker that lies.
    mass_least: int = 5
    mass_pct: Decimal = Decimal(50)


Explanation = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One difference. `local` and `broker` are in the unit of its kind (see `models.Difference`);
    `price` values it, `trade_price` is what trades outside were made at; dollars a share."""

    kind: Kind
    subject: str
    symbol: str = ""
    local: Decimal = ZERO
    broker: Decimal = ZERO
    order: UUID | None = None
    broker_order_id: str = ""
    local_status: str = ""
    broker_status: str = ""
    local_average_price: Decimal | None = None
    broker_average_price: Decimal | None = None
    ledger_version: int = 0
    price: Decimal | None = None
    trade_price: Decimal | None = None
    value: Decimal | None = None
    explanation: Explanation | None = None
    # Of `mass`: what it stands for.
    members: "tuple[Found, ...]" = ()

    @property
    def difference(self) -> Decimal:
        """The broker's figure less ours."""
        return self.broker - self.local
