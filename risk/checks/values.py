"""What an order is judged by: the order, the figures around it, and what a check found. Values
only; every amount is in shares, dollars or per cent, as its name says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from ordinis.broker.port import AccountReport, AssetReport
from risk.commitments import Committed
from risk.exchange import Session
from risk.exposure import Worth
from risk.limits import Limits
from risk.states import TradingState

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """The order to be judged: shares, and dollars a share that it may cost at most. A replacement
    is judged by what it needs beyond what its predecessor still holds."""

    symbol: str
    side: str
    qty: Decimal
    worst_price: Decimal
    type: str = "limit"
    time_in_force: str = "day"
    limit_price: Decimal | None = None
    reference_price: Decimal | None = None
    # What a share costs now: the broker's own quote, else what the strategy expects.
    ask: Decimal | None = None
    replaced_qty: Decimal = ZERO
    replaced_cost: Decimal = ZERO
    # An exit of a pair is exempt from the wash-trade table; what waits for a parent is from rates.
    is_pair: bool = False
    is_dependent: bool = False

    @property
    def cost(self) -> Decimal:
        return max(self.qty * self.worst_price - self.replaced_cost, ZERO)

    @property
    def needs(self) -> Decimal:
        """Shares that must be free."""
        return max(self.qty - self.replaced_qty, ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposite:
    """An open order of the account on the other side of the same symbol."""

    client_order_id: str
    type: str
    limit_price: Decimal | None
    opens: bool  # whether it opens or adds to a position
    is_pair: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What it is judged against: the broker's figures of one moment, and what our orders commit
    beyond them."""

    account: AccountReport
    symbol: str
    # Signed shares of the symbol at the broker, and those of them that no open order holds.
    held_qty: Decimal = ZERO
    free_qty: Decimal = ZERO
    committed: Committed = field(default_factory=Committed)
    # Dollars in each symbol, working orders included.
    worth: Mapping[str, Worth] = field(default_factory=dict)
    # Symbols that are held and have no usable price.
    unpriced: frozenset[str] = frozenset()
    sectors: Mapping[str, str] = field(default_factory=dict)
    unresolved_symbols: frozenset[str] = frozenset()
    opposite: tuple[Opposite, ...] = ()
    asset: AssetReport | None = None
    trading: TradingState = field(default_factory=TradingState)
    session: Session | None = None
    local_time: datetime | None = None  # the exchange's
    # Whether the exchange's hours for auction orders hold (an always open simulator has none).
    keeps_auction_hours: bool = True
    # Orders of the last minute: the strategy's, and all of the account.
    strategy_orders: int = 0
    account_orders: int = 0

    @property
    def free_to_sell(self) -> Decimal:
        """Shares of a long position that nothing else sells."""
        if self.held_qty <= 0:
            return ZERO
        return max(min(self.free_qty, self.held_qty) - self.committed.sold(self.symbol), ZERO)

    @property
    def free_to_cover(self) -> Decimal:
        """Shares of a short position that nothing else buys back."""
        if self.held_qty >= 0:
            return ZERO
        free = min(abs(self.free_qty), abs(self.held_qty))
        return max(free - self.committed.bought(self.symbol), ZERO)


def reduces(intent: Intent, context: Context) -> bool:
    """Whether the order can only take off a position (SPEC K7): it is for no more than what is free
    of it. From flat nothing reduces. A replacement that asks for nothing more adds nothing."""
    if not intent.needs and not intent.cost:
        return True
    if intent.side == "sell":
        return context.held_qty > 0 and intent.needs <= context.free_to_sell
    return context.held_qty < 0 and intent.needs <= context.free_to_cover


def adds(intent: Intent, context: Context, limits: Limits) -> bool:
    """Whether the order opens or adds to a position: what limits are for. A sell that is for more
    than is held, and a buy that is for more than is short, are denied for that alone."""
    if intent.side == "buy":
        return context.held_qty >= 0 and intent.cost > 0
    short = context.held_qty <= 0 and limits.allow_short
    return short and (intent.needs > 0 or intent.cost > 0)


def sells_short(intent: Intent, context: Context) -> bool:
    """Whether a sell adds to a short position, or opens one: none is held long."""
    return intent.side == "sell" and context.held_qty <= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. `actual` is what the order would bring about, `before` what there is
    without it, both in the limit's own unit; the message says what to do, and is empty when the
    check passed."""

    code: str
    ok: bool
    limit: Decimal
    actual: Decimal
    before: Decimal = ZERO
    message: str = ""
    # Whether it rests on the broker's figures, which may be a moment old.
    on_figures: bool = False
    # Figures that the limit was made from, for the record.
    inputs: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def is_thin(self) -> bool:
        """Whether the order takes more than half of what is left: then only figures asked for anew
        decide."""
        used = self.actual - self.before
        return self.on_figures and used > 0 and used * 2 > self.limit - self.before


# A check that was not passed.
Violation = Finding
