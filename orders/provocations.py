"""One synthetic order for each control that judges an order by itself or by the figures, for the
self-test (`orders.selftest`).

Each is made from the account's real figures so that exactly its control must fire, and goes the
way of a real one: the same judgement, the same submission.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from orders import provocations_over_time as after
from orders import statuses
from orders.selftest_bench import (
    ACCOUNT,
    CENT,
    MOST,
    ONE,
    STRATEGY,
    SYMBOL,
    TEN,
    ZERO,
    Bench,
    Came,
    Off,
    asset_like,
    buy,
    sell,
)
from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain
from risk import breaker, exchange
from risk.checks import Context
from risk.models import ORDER_TYPES, SESSIONS
from risk.states import HALTED, REDUCING

# --- what can't be used -----------------------------------------------------------------------


def ordinary(bench: Bench) -> Came:
    """An order that provokes nothing by itself."""
    return bench.judge(buy())


def _broken_order(bench: Bench) -> Came:
    return bench.judge(buy(qty=Decimal("NaN")))


def _broken_figures(bench: Bench) -> Came:
    bench.told(equity=Decimal("NaN"))
    return bench.judge(buy(), "the broker's equity is no number")


def _blocked(bench: Bench) -> Came:
    bench.told(trading_blocked=True)
    return bench.judge(buy(), "the broker says that trading is blocked")


def _suspended(bench: Bench) -> Came:
    bench.told(suspended=True)
    return bench.judge(buy(), "the broker says suspend_trade")


def _cancelling(bench: Bench) -> Came:
    bench.account.cancelling_until = bench.account.database_time + timedelta(minutes=1)
    bench.account.cancelling_symbol = ""
    return bench.judge(buy(), "while all orders are cancelled")


# --- money, shares, exposure ------------------------------------------------------------------


def _usable(bench: Bench, at_broker: Decimal, reserved: Decimal) -> Decimal:
    kept = max(at_broker * bench.limits.buying_power_buffer_pct / 100, ZERO)
    return (at_broker - reserved - kept).quantize(CENT, "ROUND_DOWN")


def _money(bench: Bench) -> Came:
    context = bench.around(buy())
    usable = _usable(bench, context.account.buying_power, context.committed.money)
    return bench.judge(buy(max(usable + CENT, CENT)), f"${usable:,.2f} is usable")


def _cash(bench: Bench) -> Came:
    asset, context = asset_like(marginable=False), bench.around(buy())
    told = context.account
    cash = told.cash if told.cash_buying_power is None else told.cash_buying_power
    usable = _usable(bench, min(told.buying_power, cash), context.committed.money)
    intent = buy(max(usable + CENT, CENT))
    return bench.judge(intent, f"not marginable, ${usable:,.2f} of cash is usable", asset=asset)


def _reserved_money(bench: Bench) -> Came:
    context = bench.around(buy())
    usable = _usable(bench, context.account.buying_power, context.committed.money)
    if usable >= ONE:
        bench.store(limit_price=usable, worst_price=usable)
    return bench.judge(buy(ONE), f"an order on its way takes all of the usable ${usable:,.2f}")


def _oversell(bench: Bench) -> Came:
    symbol = _held(bench, 1)
    context = bench.around(sell(symbol=symbol))
    held = min(context.free_qty, context.held_qty) - context.committed.sold(symbol)
    return bench.judge(sell(max(held, ZERO) + ONE, symbol=symbol), f"{plain(held)} are free")


def _overcover(bench: Bench) -> Came:
    symbol = _held(bench, -1)
    context = bench.around(buy(symbol=symbol))
    short = min(abs(context.free_qty), abs(context.held_qty)) - context.committed.bought(symbol)
    intent = buy(qty=max(short, ZERO) + ONE, symbol=symbol)
    return bench.judge(intent, f"{plain(short)} are short and free")


def _reserved_shares(bench: Bench) -> Came:
    bench.hold(TEN)
    bench.store(side="sell", qty=TEN)
    return bench.judge(sell(), "all 10 shares are in an order on its way")


def _nothing_to_reduce(bench: Bench) -> Came:
    return bench.judge(sell(), "reduce_only, none is held", reduce_only=True)


def _held(bench: Bench, sign: int) -> str:
    """A symbol that is held long, or short; made up where there is none."""
    for symbol, position in bench.figures.positions.items():
        if position.qty * sign > 0:
            return symbol
    bench.hold(TEN * sign)
    return SYMBOL


def _too_many_positions(bench: Bench) -> Came:
    worth = bench.around(buy()).worth
    taken = sum(each.gross > 0 for each in worth.values())
    missing = bench.limits.max_positions - taken
    if missing > MOST:
        raise Off(f"max_positions is {bench.limits.max_positions}: too many to be tried.")
    for number in range(missing):
        bench.hold(ONE, f"{SYMBOL}{number}")
    return bench.judge(buy(), f"{max(missing, 0) + taken} symbols are held or on order")


def _position_share(bench: Bench) -> Came:
    return _beyond(bench, bench.limits.max_position_pct, lambda _context: ZERO)


def _gross(bench: Bench) -> Came:
    return _beyond(
        bench,
        bench.limits.max_exposure_pct,
        lambda context: sum((worth.gross for worth in context.worth.values()), ZERO),
    )


def _net(bench: Bench) -> Came:
    limit = bench.limits.max_net_exposure_pct
    if limit is None:
        raise Off("max_net_exposure_pct is empty.")
    return _beyond(
        bench,
        limit,
        lambda context: sum((w.long + min(w.held, ZERO) for w in context.worth.values()), ZERO),
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
            ZERO,
        ),
    )


def _beyond(bench: Bench, limit: Decimal, before: Callable[[Context], Decimal]) -> Came:
    """A buy that brings it one cent over so many per cent of equity."""
    context = bench.around(buy())
    there, equity = before(context), context.account.equity
    room = (equity * limit / 100 - there).quantize(CENT, "ROUND_DOWN")
    intent = buy(max(room + CENT, CENT))
    return bench.judge(intent, f"there are ${there:,.2f}, with an equity of ${equity:,.2f}")


# --- one order by itself ----------------------------------------------------------------------


def _slippage(bench: Bench) -> Came:
    price = TEN * (1 + bench.limits.max_slippage_pct / 100) + CENT
    return bench.judge(buy(price, reference_price=TEN), "the reference is 10")


def _qty(bench: Bench) -> Came:
    if bench.limits.max_order_qty is None:
        raise Off("max_order_qty is empty.")
    return bench.judge(buy(qty=bench.limits.max_order_qty + ONE))


def _notional(bench: Bench) -> Came:
    if bench.limits.max_order_notional is None:
        raise Off("max_order_notional is empty.")
    return bench.judge(buy(bench.limits.max_order_notional + CENT))


def _small(bench: Bench) -> Came:
    return bench.judge(buy(ONE - CENT))


def _blocked_symbol(bench: Bench) -> Came:
    if not bench.limits.blocked_symbols:
        raise Off("blocked_symbols is empty.")
    symbol = min(bench.limits.blocked_symbols)
    held = bench.figures.positions.get(symbol)
    qty = ONE if held is None else abs(held.qty) + ONE  # not one that closes a short position
    return bench.judge(buy(qty=qty, symbol=symbol))


def _unlisted_symbol(bench: Bench) -> Came:
    if bench.limits.allowed_symbols is None:
        raise Off("allowed_symbols is empty: every symbol is allowed.")
    return bench.judge(buy())


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
    return bench.judge(buy(), f"in the session {barred[0]}")


def _auction(bench: Bench) -> Came:
    if bench.account.mode == BrokerAccount.Mode.SIMULATED:
        raise Off("The simulator judges its own auctions.")
    bench.account.database_time = exchange.next_open(bench.account.database_time)
    return bench.judge(buy(time_in_force="opg"), "opg, at the open")


def _unresolved(bench: Bench) -> Came:
    bench.store(statuses.UNRESOLVED)
    return bench.judge(buy(), "an earlier order of the symbol is unresolved")


def _wash_trade(bench: Bench) -> Came:
    bench.hold(TEN)
    bench.store(side="sell", qty=TEN)
    return bench.judge(buy(), "a sell at 10 is open")


def _opposite(bench: Bench) -> Came:
    bench.store(side="sell", sells_short=True)
    return bench.judge(buy(ONE), "a short sale at 10 is open")


# --- short sales ------------------------------------------------------------------------------


def _short(bench: Bench, qty: Decimal, reference: Decimal | None, note: str, **can: bool) -> Came:
    if not bench.limits.allow_short:
        raise Off("allow_short is no: insufficient_quantity stops every short sale.")
    return bench.judge(sell(qty, ask=reference), note, asset=asset_like(**can))


def _short_fraction(bench: Bench) -> Came:
    return _short(bench, Decimal("1.5"), TEN, "none is held")


def _short_not_lent(bench: Bench) -> Came:
    return _short(bench, ONE, TEN, "none is held, and the broker lends none", shortable=False)


def _short_unpriced(bench: Bench) -> Came:
    return _short(bench, ONE, None, "none is held, and no reference_price is given")


def _short_poor(bench: Bench) -> Came:
    bench.told(equity=Decimal("1999.99"))
    return _short(bench, ONE, TEN, "none is held, and the equity is $1,999.99")


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
    Control("max_orders_per_minute", ("max_orders_per_minute",), after.rate_judged),
    Control(
        "max_orders_per_minute, account", ("max_orders_per_minute",), after.account_rate_judged
    ),
    Control("rate counted", ("rate_limited", STRATEGY), after.rate_counted),
    Control("rate counted, account", ("rate_limited", ACCOUNT), after.account_rate_counted),
    *(
        Control(f"allowed_order_types: {kind}", ("order_type_not_enabled",), after.type(kind))
        for kind in ORDER_TYPES
        if kind != "limit"
    ),
    Control("client_order_id", ("client_order_id_reused",), after.id_reused),
    Control("duplicate_guard", ("duplicate",), after.duplicate),
    Control("duplicate_guard: quantity", ("open_order_exists",), after.duplicate_of_other_qty),
    Control("trading: reducing", ("trading_reducing", "set_by_person"), after.state(REDUCING)),
    Control("trading: halted", ("trading_halted", "set_by_person"), after.state(HALTED)),
    Control("trading: old books", ("trading_reducing", "books_old"), after.old_books),
    _tripped(breaker.ERROR_RATE, after.error_rate),
    _tripped(breaker.CONSECUTIVE_FAILURES, after.in_a_row),
    _tripped(breaker.REFUSED_FOR_FUNDS, after.funds),
    _tripped(breaker.EQUITY_DROP, after.equity_drop),
    _tripped(breaker.BUYING_POWER_LOW, after.low_buying_power),
)
