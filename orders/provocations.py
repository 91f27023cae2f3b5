"""One synthetic order for each control that must stop it, for the self-test (`orders.selftest`).

Each is made from the account's real figures so that exactly its control must fire, and goes the
way of a real one: the same judgement, the same submission. What must be stored to provoke a
control is stored in the caller's transaction, which is always rolled back. Must never send: the
symbol is one that no exchange lists, and `submit` is only ever called for an account that no
broker of this process serves, inside a transaction, where nothing may ask the network.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from orders import judgement, lifecycle, statuses, submission
from orders.errors import OrderError
from orders.judgement import Question
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.rates import Rates
from orders.requests import NewOrder
from orders.working import WorkingOrders
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.broker.port import AssetReport, PositionReport
from ordinis.numbers import plain
from risk import breaker, exchange, trading
from risk.breaker import Outcome
from risk.checks import Context, Intent
from risk.figures import Figures, database_now
from risk.limits import Limits
from risk.models import ORDER_TYPES, SESSIONS, RiskLimits, TradingControl
from risk.states import HALTED, REDUCING

SYMBOL: Final = "SELFTEST"
_WHO: Final = "risk self-test"
_CENT: Final = Decimal("0.01")
_ONE, _TEN, _ZERO = Decimal(1), Decimal(10), Decimal(0)
# More than so many positions or outcomes are not made up: the account is locked meanwhile.
_MOST: Final = 1000


# How the sentence of a rate that is reached begins.
_STRATEGY, _ACCOUNT = "The strategy", "The account"


class Off(Exception):
    """The control is not in force; says why."""


@dataclass(frozen=True, slots=True)
class Came:
    """What was sent, in words, and the codes of what stopped it."""

    sent: str
    codes: tuple[str, ...]


@dataclass(slots=True)
class Bench:
    """The locked account with its figures and limits, and a strategy that is not there."""

    account: BrokerAccount
    figures: Figures
    limits: Limits

    def judge(self, intent: Intent, note: str = "", **question: Any) -> Came:
        """As an order is judged. With the violations' codes come those of the reasons for the
        trading state, where that is what stops it."""
        judged = self._judged(intent, **question)
        codes = [violation.code for violation in judged.violations]
        if judged.context.trading.reasons:
            codes += [reason.code for reason in judged.context.trading.reasons]
        return Came(_words(intent, note), tuple(codes))

    def around(self, intent: Intent) -> Context:
        return self._judged(intent).context

    def _judged(self, intent: Intent, **question: Any) -> judgement.Judged:
        asked = Question(
            account=self.account, intent=intent, limits=self.limits, order_id=None, **question
        )
        # What `judge` calls under the lock; the figures are made up for some controls, and the
        # same for all, so that an intent is exactly one step beyond its limit.
        orders = WorkingOrders.of(self.account.pk, self.figures.asked_at)
        return judgement._judged(asked, self.account, self.figures, orders)

    def submit(self, strategy: Strategy, new: NewOrder, note: str = "") -> Came:
        """As the API submits."""
        try:
            done = submission.submit(strategy, new, actor=_WHO, correlation_id=_WHO)
        except OrderError as error:
            whose = [each for each in (_STRATEGY, _ACCOUNT) if str(error).startswith(each)]
            codes: tuple[str, ...] = (error.code, *whose)
        else:
            codes = (done.order.status,)
        return Came(_words(submission.priced(strategy, new, self.limits), note), codes)

    def strategy(self) -> Strategy:
        """Made up, and of an account at no broker: what it submits can't reach one."""
        strategy = Strategy.objects.create(account=self.account, name=f"selftest-{uuid4().hex}")
        strategy.account = copy(self.account)
        strategy.account.broker = "none"
        return strategy

    def store(
        self, status: str = statuses.SUBMITTING, strategy: Strategy | None = None, **changes: Any
    ) -> Order:
        """An order that stands already."""
        order = Order(
            id=uuid4(),
            account=self.account,
            strategy=strategy or self.strategy(),
            client_order_id=f"selftest-{uuid4()}",
            fingerprint="",
            correlation_id=_WHO,
            **{**_ORDER, **changes},
        )
        lifecycle.record_intent(order, status, Origin(Source.OPERATOR, _WHO))
        return order

    def hold(self, qty: Decimal, symbol: str = SYMBOL) -> None:
        """A position of so many shares at a dollar."""
        self.figures = replace(
            self.figures, positions={**self.figures.positions, symbol: _position(symbol, qty)}
        )

    def told(self, **account: Any) -> None:
        """Other figures of the account."""
        self.figures = replace(self.figures, account=replace(self.figures.account, **account))


_ORDER: Final = {
    "symbol": SYMBOL,
    "side": "buy",
    "qty": _ONE,
    "type": "limit",
    "time_in_force": "day",
    "limit_price": _TEN,
    "worst_price": _TEN,
}


def _position(symbol: str, qty: Decimal) -> PositionReport:
    return PositionReport(
        symbol=symbol,
        qty=qty,
        qty_available=qty,
        average_price=_ONE,
        market_value=qty,
        current_price=_ONE,
        raw={},
    )


def _asset(**changes: bool) -> AssetReport:
    can = {"tradable": True, "fractionable": True, "shortable": True, "marginable": True}
    return AssetReport(
        symbol=SYMBOL, asset_class="us_equity", status="active", raw={}, **{**can, **changes}
    )


def _buy(
    price: Decimal = _TEN,
    qty: Decimal = _ONE,
    *,
    symbol: str = SYMBOL,
    side: str = "buy",
    **changes: Any,
) -> Intent:
    return Intent(
        symbol=symbol, side=side, qty=qty, limit_price=price, worst_price=price, **changes
    )


def _sell(qty: Decimal = _ONE, price: Decimal = _TEN, **changes: Any) -> Intent:
    return _buy(price, qty, side="sell", **changes)


def _new(**changes: Any) -> NewOrder:
    values: dict[str, Any] = {"type": "limit", "limit_price": _TEN, "qty": _ONE, "side": "buy"}
    return NewOrder(client_order_id=None, symbol=SYMBOL, **{**values, **changes})


def _words(order: Intent | Order, note: str) -> str:
    price = "the market" if order.limit_price is None else plain(order.limit_price)
    said = f"{order.side} {plain(order.qty)} {order.symbol}, {order.type} at {price}"
    return f"{said}; {note}" if note else said


# --- what can't be used -----------------------------------------------------------------------


def ordinary(bench: Bench) -> Came:
    """An order that provokes nothing by itself."""
    return bench.judge(_buy())


def _broken_order(bench: Bench) -> Came:
    return bench.judge(_buy(qty=Decimal("NaN")))


def _broken_figures(bench: Bench) -> Came:
    bench.told(equity=Decimal("NaN"))
    return bench.judge(_buy(), "the broker's equity is no number")


def _blocked(bench: Bench) -> Came:
    bench.told(trading_blocked=True)
    return bench.judge(_buy(), "the broker says that trading is blocked")


def _suspended(bench: Bench) -> Came:
    bench.told(suspended=True)
    return bench.judge(_buy(), "the broker says suspend_trade")


def _cancelling(bench: Bench) -> Came:
    bench.account.cancelling_until = bench.account.database_time + timedelta(minutes=1)
    bench.account.cancelling_symbol = ""
    return bench.judge(_buy(), "while all orders are cancelled")


# --- money, shares, exposure ------------------------------------------------------------------


def _usable(bench: Bench, at_broker: Decimal, reserved: Decimal) -> Decimal:
    kept = max(at_broker * bench.limits.buying_power_buffer_pct / 100, _ZERO)
    return (at_broker - reserved - kept).quantize(_CENT, "ROUND_DOWN")


def _money(bench: Bench) -> Came:
    context = bench.around(_buy())
    usable = _usable(bench, context.account.buying_power, context.committed.money)
    return bench.judge(_buy(max(usable + _CENT, _CENT)), f"${usable:,.2f} is usable")


def _cash(bench: Bench) -> Came:
    asset, context = _asset(marginable=False), bench.around(_buy())
    told = context.account
    cash = told.cash if told.cash_buying_power is None else told.cash_buying_power
    usable = _usable(bench, min(told.buying_power, cash), context.committed.money)
    intent = _buy(max(usable + _CENT, _CENT))
    return bench.judge(intent, f"not marginable, ${usable:,.2f} of cash is usable", asset=asset)


def _reserved_money(bench: Bench) -> Came:
    context = bench.around(_buy())
    usable = _usable(bench, context.account.buying_power, context.committed.money)
    if usable >= _ONE:
        bench.store(limit_price=usable, worst_price=usable)
    return bench.judge(_buy(_ONE), f"an order on its way takes all of the usable ${usable:,.2f}")


def _oversell(bench: Bench) -> Came:
    symbol = _held(bench, 1)
    context = bench.around(_sell(symbol=symbol))
    held = min(context.free_qty, context.held_qty) - context.committed.sold(symbol)
    return bench.judge(_sell(max(held, _ZERO) + _ONE, symbol=symbol), f"{plain(held)} are free")


def _overcover(bench: Bench) -> Came:
    symbol = _held(bench, -1)
    context = bench.around(_buy(symbol=symbol))
    short = min(abs(context.free_qty), abs(context.held_qty)) - context.committed.bought(symbol)
    intent = _buy(qty=max(short, _ZERO) + _ONE, symbol=symbol)
    return bench.judge(intent, f"{plain(short)} are short and free")


def _reserved_shares(bench: Bench) -> Came:
    bench.hold(_TEN)
    bench.store(side="sell", qty=_TEN)
    return bench.judge(_sell(), "all 10 shares are in an order on its way")


def _nothing_to_reduce(bench: Bench) -> Came:
    return bench.judge(_sell(), "reduce_only, none is held", reduce_only=True)


def _held(bench: Bench, sign: int) -> str:
    """A symbol that is held long, or short; made up where there is none."""
    for symbol, position in bench.figures.positions.items():
        if position.qty * sign > 0:
            return symbol
    bench.hold(_TEN * sign)
    return SYMBOL


def _too_many_positions(bench: Bench) -> Came:
    worth = bench.around(_buy()).worth
    taken = sum(each.gross > 0 for each in worth.values())
    missing = bench.limits.max_positions - taken
    if missing > _MOST:
        raise Off(f"max_positions is {bench.limits.max_positions}: too many to be tried.")
    for number in range(missing):
        bench.hold(_ONE, f"{SYMBOL}{number}")
    return bench.judge(_buy(), f"{max(missing, 0) + taken} symbols are held or on order")


def _position_share(bench: Bench) -> Came:
    return _beyond(bench, bench.limits.max_position_pct, lambda _context: _ZERO)


def _gross(bench: Bench) -> Came:
    return _beyond(
        bench,
        bench.limits.max_exposure_pct,
        lambda context: sum((worth.gross for worth in context.worth.values()), _ZERO),
    )


def _net(bench: Bench) -> Came:
    limit = bench.limits.max_net_exposure_pct
    if limit is None:
        raise Off("max_net_exposure_pct is empty.")
    return _beyond(
        bench,
        limit,
        lambda context: sum((w.long + min(w.held, _ZERO) for w in context.worth.values()), _ZERO),
    )


def _sector(bench: Bench) -> Came:
    return _beyond(
        bench,
        bench.limits.max_sector_pct,
        lambda context: sum(
            (
                worth.gross
                for symbol, worth in context.worth.items()
                if context.sectors[symbol] == context.sectors[SYMBOL]
            ),
            _ZERO,
        ),
    )


def _beyond(bench: Bench, limit: Decimal, before: Callable[[Context], Decimal]) -> Came:
    """A buy that brings it one cent over so many per cent of equity."""
    context = bench.around(_buy())
    there, equity = before(context), context.account.equity
    room = (equity * limit / 100 - there).quantize(_CENT, "ROUND_DOWN")
    intent = _buy(max(room + _CENT, _CENT))
    return bench.judge(intent, f"there are ${there:,.2f}, with an equity of ${equity:,.2f}")


# --- one order by itself ----------------------------------------------------------------------


def _slippage(bench: Bench) -> Came:
    price = _TEN * (1 + bench.limits.max_slippage_pct / 100) + _CENT
    return bench.judge(_buy(price, reference_price=_TEN), "the reference is 10")


def _qty(bench: Bench) -> Came:
    if bench.limits.max_order_qty is None:
        raise Off("max_order_qty is empty.")
    return bench.judge(_buy(qty=bench.limits.max_order_qty + _ONE))


def _notional(bench: Bench) -> Came:
    if bench.limits.max_order_notional is None:
        raise Off("max_order_notional is empty.")
    return bench.judge(_buy(bench.limits.max_order_notional + _CENT))


def _small(bench: Bench) -> Came:
    return bench.judge(_buy(_ONE - _CENT))


def _blocked_symbol(bench: Bench) -> Came:
    if not bench.limits.blocked_symbols:
        raise Off("blocked_symbols is empty.")
    symbol = min(bench.limits.blocked_symbols)
    held = bench.figures.positions.get(symbol)
    qty = _ONE if held is None else abs(held.qty) + _ONE  # not one that closes a short position
    return bench.judge(_buy(qty=qty, symbol=symbol))


def _unlisted_symbol(bench: Bench) -> Came:
    if bench.limits.allowed_symbols is None:
        raise Off("allowed_symbols is empty: every symbol is allowed.")
    return bench.judge(_buy())


def _session(bench: Bench) -> Came:
    barred = [kind for kind in SESSIONS if kind not in bench.limits.allowed_sessions]
    if not barred:
        raise Off("allowed_sessions has all of them.")
    opens = exchange.next_open(bench.account.database_time)
    moments = {
        exchange.REGULAR: opens + timedelta(minutes=1),
        exchange.EXTENDED: opens - timedelta(hours=1),
        exchange.CLOSED: opens - timedelta(hours=8),
    }
    bench.account.database_time = moments[barred[0]]
    return bench.judge(_buy(), f"in the session {barred[0]}")


def _auction(bench: Bench) -> Came:
    if bench.account.mode == BrokerAccount.Mode.SIMULATED:
        raise Off("The simulator judges its own auctions.")
    bench.account.database_time = exchange.next_open(bench.account.database_time)
    return bench.judge(_buy(time_in_force="opg"), "opg, at the open")


def _unresolved(bench: Bench) -> Came:
    bench.store(statuses.UNRESOLVED)
    return bench.judge(_buy(), "an earlier order of the symbol is unresolved")


def _wash_trade(bench: Bench) -> Came:
    bench.hold(_TEN)
    bench.store(side="sell", qty=_TEN)
    return bench.judge(_buy(), "a sell at 10 is open")


def _opposite(bench: Bench) -> Came:
    bench.store(side="sell", sells_short=True)
    return bench.judge(_buy(_ONE), "a short sale at 10 is open")


# --- short sales ------------------------------------------------------------------------------


def _short(bench: Bench, qty: Decimal, reference: Decimal | None, note: str, **can: bool) -> Came:
    if not bench.limits.allow_short:
        raise Off("allow_short is no: insufficient_quantity stops every short sale.")
    return bench.judge(_sell(qty, reference_price=reference), note, asset=_asset(**can))


def _short_fraction(bench: Bench) -> Came:
    return _short(bench, Decimal("1.5"), _TEN, "none is held")


def _short_not_lent(bench: Bench) -> Came:
    return _short(bench, _ONE, _TEN, "none is held, and the broker lends none", shortable=False)


def _short_unpriced(bench: Bench) -> Came:
    return _short(bench, _ONE, None, "none is held, and no reference_price is given")


def _short_poor(bench: Bench) -> Came:
    bench.told(equity=Decimal("1999.99"))
    return _short(bench, _ONE, _TEN, "none is held, and the equity is $1,999.99")


# --- how often, what kind, what stands already ------------------------------------------------


def _rate_judged(bench: Bench) -> Came:
    limit = bench.limits.max_orders_per_minute
    return bench.judge(_buy(), f"the strategy has sent {limit}", rates=Rates(strategy=limit))


def _account_rate_judged(bench: Bench) -> Came:
    limit = bench.limits.account_orders_per_minute
    return bench.judge(_buy(), f"the account has sent {limit}", rates=Rates(account=limit))


def _rate_counted(bench: Bench) -> Came:
    strategy = bench.strategy()
    _allow_one_a_minute(bench, strategy)
    bench.store(strategy=strategy)
    return bench.submit(strategy, _new(limit_price=_ONE), "one a minute is allowed, and was sent")


def _account_rate_counted(bench: Bench) -> Came:
    _allow_one_a_minute(bench, None)
    bench.store()
    note = "one a minute is allowed in the account, and another strategy has sent it"
    return bench.submit(bench.strategy(), _new(limit_price=_ONE), note)


def _allow_one_a_minute(bench: Bench, strategy: Strategy | None) -> None:
    """A version of the limits that holds from this transaction's begin, and in it alone."""
    RiskLimits.objects.create(
        account=bench.account,
        strategy=strategy,
        version=2**31 - 1,
        changed=["max_orders_per_minute"],
        max_orders_per_minute=1,
        reason=_WHO,
        actor=_WHO,
    )


def _type(kind: str) -> Callable[[Bench], Came]:
    def provoke(bench: Bench) -> Came:
        if kind in bench.limits.allowed_order_types:
            raise Off(f"allowed_order_types has {kind}.")
        return bench.submit(bench.strategy(), _new(type=kind, limit_price=None))

    return provoke


def _id_reused(bench: Bench) -> Came:
    order = bench.store()
    new = replace(_new(), client_order_id=order.client_order_id)
    return bench.submit(order.strategy, new, "its client_order_id is that of another order")


def _duplicate(bench: Bench) -> Came:
    return _twice(bench, _ONE)


def _duplicate_of_other_qty(bench: Bench) -> Came:
    return _twice(bench, _TEN)


def _twice(bench: Bench, qty: Decimal) -> Came:
    if not bench.limits.duplicate_guard:
        raise Off("duplicate_guard is no.")
    strategy, new = bench.strategy(), _new(qty=qty)
    bench.store(strategy=strategy)
    order = submission.priced(strategy, new, bench.limits)
    try:
        # The look that counts: `submit` takes it under the lock, after the broker's figures.
        found = submission._standing(strategy, new, order, [], bench.limits)
    except OrderError as error:
        codes: tuple[str, ...] = (error.code,)
    else:
        codes = ("duplicate",) if found is not None and found.duplicate else ()
    return Came(_words(order, "buy 1 on the same terms is open"), codes)


# --- trading states and breaker ---------------------------------------------------------------


def _state(state: str) -> Callable[[Bench], Came]:
    def provoke(bench: Bench) -> Came:
        trading.set_state(bench.account.pk, state, reason=_WHO, actor=_WHO)
        return bench.judge(_buy(), f"trading is {state}")

    return provoke


def _old_books(bench: Bench) -> Came:
    if bench.limits.reconcile_mode == RiskLimits.ReconcileMode.OFF:
        raise Off("reconcile_mode is off.")
    _without_states(bench)
    bench.account.books_as_of = bench.account.database_time - timedelta(days=1)
    return bench.judge(_buy(), "the books were compared a day ago")


def _error_rate(bench: Bench) -> Came:
    share, count = bench.limits.breaker_error_rate_pct, bench.limits.breaker_min_orders
    if share >= 100:
        raise Off("breaker_error_rate_pct is 100: no share of failures is above it.")
    failed = int(count * share / 100) + 1
    outcomes = [number < failed for number in range(count)]
    return _outcomes(bench, outcomes, f"{failed} of {count} orders have failed")


def _in_a_row(bench: Bench) -> Came:
    count = bench.limits.breaker_consecutive_failures
    return _outcomes(bench, [True] * count, f"{count} orders in a row have failed")


def _funds(bench: Bench) -> Came:
    return _outcomes(
        bench, [True], "one was refused for funds", message="insufficient buying power"
    )


def _outcomes(bench: Bench, failed: list[bool], note: str, message: str = "halted") -> Came:
    """The oldest first."""
    if len(failed) > _MOST:
        raise Off(f"It takes {len(failed)} orders: too many to be tried.")
    _closed_breaker(bench)
    now = database_now()
    outcomes = [
        Outcome(
            at=now - timedelta(milliseconds=len(failed) - number),
            failed=each,
            order_id=uuid4(),
            funds=each and breaker.is_for_funds(message),
            message=message if each else "",
        )
        for number, each in enumerate(failed)
    ]
    trading.note_outcomes(bench.account.pk, outcomes, bench.limits)
    return bench.judge(_buy(), note)


def _equity_drop(bench: Bench) -> Came:
    _closed_breaker(bench)
    equity = bench.figures.account.equity
    trading.under_lock(bench.account, bench.figures, bench.limits)  # the session begins with it
    drop = bench.limits.breaker_equity_drop_pct
    bench.told(equity=equity - abs(equity) * drop / 100 - _CENT)
    return bench.judge(_buy(), f"equity is {plain(drop)} % and a cent lower than at first")


def _low_buying_power(bench: Bench) -> Came:
    _closed_breaker(bench)
    bench.told(buying_power=bench.limits.breaker_min_buying_power - _CENT)
    return bench.judge(_buy(), "buying power is a cent under breaker_min_buying_power")


def _closed_breaker(bench: Bench) -> None:
    control = TradingControl.objects.filter(account=bench.account).first()
    now = bench.account.database_time
    if control is not None and control.override_until and control.override_until > now:
        raise Off(f"{control.override_actor} overrides the breaker: {control.override_reason}")
    _without_states(bench)


def _without_states(bench: Bench) -> None:
    """As if no person had set one and nothing had opened the breaker: those would fire, too."""
    TradingControl.objects.filter(account=bench.account).delete()


@dataclass(frozen=True, slots=True)
class Control:
    """A control by name, the codes that must all come when it is provoked, and how it is."""

    name: str
    expected: tuple[str, ...]
    provoke: Callable[[Bench], Came]


def _tripped(code: str, provoke: Callable[[Bench], Came]) -> Control:
    return Control(f"breaker: {code}", ("trading_reducing", code), provoke)


CONTROLS: Final = (
    Control("order unusable", ("order_unusable",), _broken_order),
    Control("figures unusable", ("figures_unusable",), _broken_figures),
    Control("account blocked", ("account_blocked",), _blocked),
    Control("account suspended", ("account_suspended",), _suspended),
    Control("cancel of all", ("cancelling_all",), _cancelling),
    Control("buying power", ("insufficient_buying_power",), _money),
    Control("buying power: cash alone", ("insufficient_buying_power",), _cash),
    Control("buying power: reserved", ("insufficient_buying_power",), _reserved_money),
    Control("free shares", ("insufficient_quantity",), _oversell),
    Control("free shares: buying back", ("insufficient_quantity",), _overcover),
    Control("free shares: reserved", ("insufficient_quantity",), _reserved_shares),
    Control("reduce_only", ("nothing_to_reduce",), _nothing_to_reduce),
    Control("max_positions", ("max_positions",), _too_many_positions),
    Control("max_position_pct", ("max_position_pct",), _position_share),
    Control("max_exposure_pct", ("max_exposure_pct",), _gross),
    Control("max_net_exposure_pct", ("max_net_exposure_pct",), _net),
    Control("max_sector_pct", ("max_sector_pct",), _sector),
    Control("max_slippage_pct", ("max_slippage_pct",), _slippage),
    Control("max_order_qty", ("max_order_qty",), _qty),
    Control("max_order_notional", ("max_order_notional",), _notional),
    Control("smallest order", ("order_too_small",), _small),
    Control("blocked_symbols", ("symbol_not_allowed",), _blocked_symbol),
    Control("allowed_symbols", ("symbol_not_allowed",), _unlisted_symbol),
    Control("allowed_sessions", ("session_not_allowed",), _session),
    Control("auction hours", ("auction_closed",), _auction),
    Control("unresolved order", ("symbol_unresolved",), _unresolved),
    Control("wash trade", ("wash_trade",), _wash_trade),
    Control("opposite order", ("opposite_order_open",), _opposite),
    Control("short sale: whole shares", ("short_not_whole",), _short_fraction),
    Control("short sale: shares to lend", ("not_shortable",), _short_not_lent),
    Control("short sale: reference", ("reference_price_required",), _short_unpriced),
    Control("short sale: equity", ("equity_too_small_to_short",), _short_poor),
    Control("max_orders_per_minute", ("max_orders_per_minute",), _rate_judged),
    Control("max_orders_per_minute, account", ("max_orders_per_minute",), _account_rate_judged),
    Control("rate counted", ("rate_limited", _STRATEGY), _rate_counted),
    Control("rate counted, account", ("rate_limited", _ACCOUNT), _account_rate_counted),
    *(
        Control(f"allowed_order_types: {kind}", ("order_type_not_enabled",), _type(kind))
        for kind in ORDER_TYPES
        if kind != "limit"
    ),
    Control("client_order_id", ("client_order_id_reused",), _id_reused),
    Control("duplicate_guard", ("duplicate",), _duplicate),
    Control("duplicate_guard: quantity", ("open_order_exists",), _duplicate_of_other_qty),
    Control("trading: reducing", ("trading_reducing", "set_by_person"), _state(REDUCING)),
    Control("trading: halted", ("trading_halted", "set_by_person"), _state(HALTED)),
    Control("trading: old books", ("trading_reducing", "books_old"), _old_books),
    _tripped(breaker.ERROR_RATE, _error_rate),
    _tripped(breaker.CONSECUTIVE_FAILURES, _in_a_row),
    _tripped(breaker.REFUSED_FOR_FUNDS, _funds),
    _tripped(breaker.EQUITY_DROP, _equity_drop),
    _tripped(breaker.BUYING_POWER_LOW, _low_buying_power),
)
