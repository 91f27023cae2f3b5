"""What an order would bring about, without storing or sending it (SPEC K10). Judged exactly as an
order is: by the same figures, under the same lock, with the same checks.
"""

from dataclasses import dataclass
from decimal import Decimal

from orders import assets, exits, rates, terms
from orders.judgement import Judged, Question, judge
from orders.models import Order
from orders.requests import NewOrder
from orders.submission import OrderTypeNotEnabled, ask_for, intent_of, priced, worst_price
from orders.sync import ensure_open_book
from ordinis.accounts.models import BrokerAccount, Strategy
from risk.checks import Finding, adds, reduces
from risk.checks.percent import percent
from risk.exposure import Worth
from risk.limits import in_force

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Dollars, signed shares, and exposures in per cent of equity, working orders included."""

    order: Order
    qty: Decimal
    notional: Decimal
    buying_power_before: Decimal
    buying_power_after: Decimal
    position_before: Decimal
    position_after: Decimal
    position_exposure_after: Decimal
    exposure_before: Decimal
    exposure_after: Decimal
    sector: str
    sector_exposure_before: Decimal
    sector_exposure_after: Decimal
    trading_state: str
    violations: list[Finding]


def preview(strategy: Strategy, new: NewOrder) -> Preview:
    """Raises as `orders.submission.submit` does for an order that is wrong in itself, and
    BrokerUnavailable or BrokerRefused when fresh figures could not be had."""
    account = strategy.account
    limits = in_force(account.pk, strategy.pk)
    order = priced(strategy, new, limits)
    if new.type not in limits.allowed_order_types:
        raise OrderTypeNotEnabled(new.type)
    asset = assets.asset_of(account, new.symbol)
    for each in (terms.of(order), *exits.terms_of(exits.of(order, new))):
        terms.check(each, asset)
    ask = ask_for(order, limits)
    order.worst_price = worst_price(order, limits, ask)
    ensure_open_book(account)
    question = Question(
        account=account,
        intent=intent_of(order, ask),
        limits=limits,
        order_id=None,
        strategy_id=strategy.pk,
        asset=asset,
        rates=lambda: rates.of(strategy, reduce_only=new.reduce_only),
        reduce_only=new.reduce_only,
    )

    def conclude(_locked: BrokerAccount, judged: Judged) -> Preview:
        return _shown(order, judged, opens=adds(judged.intent, judged.context, limits))

    return judge(question, conclude)


def _shown(order: Order, judged: Judged, *, opens: bool) -> Preview:
    intent, context = judged.intent, judged.context
    equity = context.account.equity
    before = context.worth.get(intent.symbol, Worth())
    after = before.with_order(intent.side, intent.cost) if opens else before
    free = context.account.buying_power - context.committed.money
    sector = context.sectors[intent.symbol]
    gross = {symbol: worth.gross for symbol, worth in context.worth.items()}
    in_sector = sum(
        (value for symbol, value in gross.items() if context.sectors[symbol] == sector), _ZERO
    )
    signed = intent.qty if intent.side == "buy" else -intent.qty
    more = after.gross - before.gross
    if reduces(intent, context) and context.held_qty:
        # Once it has filled: until then the limits count the position as it is.
        more = -abs(intent.qty * before.held / context.held_qty)
    total = sum(gross.values(), _ZERO)
    return Preview(
        order=order,
        qty=intent.qty,
        notional=intent.qty * intent.worst_price,
        buying_power_before=free,
        buying_power_after=free - (intent.cost if opens else _ZERO),
        position_before=context.held_qty,
        position_after=context.held_qty + signed,
        position_exposure_after=percent(before.gross + more, equity),
        exposure_before=percent(total, equity),
        exposure_after=percent(total + more, equity),
        sector=sector,
        sector_exposure_before=percent(in_sector, equity),
        sector_exposure_after=percent(in_sector + more, equity),
        trading_state=context.trading.state,
        violations=judged.violations,
    )
