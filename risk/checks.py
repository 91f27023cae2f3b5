"""Judges an order against fresh broker figures. Pure: no clock, no query, no network.

Every check runs and all violations come back, each with its limit and the actual value.
"""

from dataclasses import dataclass, field
from decimal import Decimal

from ordinis.broker.port import AccountReport
from ordinis.numbers import plain
from risk.commitments import Committed
from risk.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """The order to be judged: shares, and dollars a share that it may cost at most. A replacement
    is judged by what it needs beyond what its predecessor still holds."""

    symbol: str
    side: str
    qty: Decimal
    limit_price: Decimal
    replaced_qty: Decimal = Decimal(0)
    replaced_cost: Decimal = Decimal(0)

    @property
    def cost(self) -> Decimal:
        return max(self.qty * self.limit_price - self.replaced_cost, Decimal(0))

    @property
    def needs(self) -> Decimal:
        """Shares that must be free."""
        return max(self.qty - self.replaced_qty, Decimal(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What it is judged against. `free_qty` is the broker's available shares of the symbol."""

    account: AccountReport
    free_qty: Decimal
    committed: Committed
    unresolved_symbols: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken limit; `code` is stable, the message says what to do."""

    code: str
    message: str
    limit: Decimal
    actual: Decimal


def evaluate(intent: Intent, context: Context, limits: Limits) -> list[Violation]:
    """All reasons why this order must not be sent; empty when it may be."""
    return [
        *_account_blocked(context),
        *_unresolved(intent, context),
        *(_buying_power(intent, context, limits) if intent.side == "buy" else []),
        *(_free_shares(intent, context) if intent.side == "sell" else []),
    ]


def usable_buying_power(context: Context, limits: Limits) -> Decimal:
    """The broker's buying power less what our orders commit and less the buffer."""
    free = context.account.buying_power - context.committed.money
    buffer = context.account.buying_power * limits.buying_power_buffer_pct / 100
    return free - max(buffer, Decimal(0))


def _buying_power(intent: Intent, context: Context, limits: Limits) -> list[Violation]:
    """SPEC K2: two orders can never spend the same money."""
    usable = usable_buying_power(context, limits)
    if intent.cost <= usable or not intent.cost:
        return []
    has = context.account.buying_power - context.committed.money
    return [
        Violation(
            code="insufficient_buying_power",
            message=(
                f"Buying power: needs ${intent.cost:,.2f}, has ${has:,.2f} "
                f"(${context.account.buying_power:,.2f} at the broker, "
                f"${context.committed.money:,.2f} reserved by orders on their way; "
                f"{plain(limits.buying_power_buffer_pct)} % is kept as a buffer). "
                "Lower the quantity or free buying power."
            ),
            limit=usable,
            actual=intent.cost,
        )
    ]


def _free_shares(intent: Intent, context: Context) -> list[Violation]:
    """SPEC K3: the broker turns an oversell into a short without a word, so it is never sent."""
    reserved = context.committed.shares.get(intent.symbol, Decimal(0))
    free = max(context.free_qty - reserved, Decimal(0))
    if intent.needs <= free:
        return []
    return [
        Violation(
            code="insufficient_quantity",
            message=(
                f"{intent.symbol}: selling {plain(intent.needs)}, but only "
                f"{plain(free)} are free ({plain(context.free_qty)} available at "
                f"the broker, {plain(reserved)} in orders on their way). "
                "Short selling is not enabled; lower the quantity."
            ),
            limit=free,
            actual=intent.needs,
        )
    ]


def _unresolved(intent: Intent, context: Context) -> list[Violation]:
    """No risk is added to a symbol while it is unknown whether an earlier order exists."""
    adds = intent.side == "buy" and intent.cost > 0
    if not adds or intent.symbol not in context.unresolved_symbols:
        return []
    return [
        Violation(
            code="symbol_unresolved",
            message=(
                f"{intent.symbol}: the outcome of an earlier order is not known yet. Try again "
                "in some seconds; it is being looked up."
            ),
            limit=Decimal(0),
            actual=Decimal(1),
        )
    ]


def _account_blocked(context: Context) -> list[Violation]:
    if not context.account.trading_blocked:
        return []
    return [
        Violation(
            code="account_blocked",
            message="The broker has blocked trading in this account. Ask the broker why.",
            limit=Decimal(0),
            actual=Decimal(1),
        )
    ]
