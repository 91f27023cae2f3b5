"""One synthetic order for each control that depends on what went before it: rates, types, what
stands already, trading states and the breaker (`orders.selftest`). What must be stored to provoke
one is stored in a transaction that is always rolled back.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

from orders import submission
from orders.errors import OrderError
from orders.rates import Rates
from orders.selftest_bench import (
    CENT,
    MOST,
    ONE,
    TEN,
    WHO,
    Bench,
    Came,
    Off,
    buy,
    new_order,
    words,
)
from ordinis.accounts.models import Strategy
from ordinis.numbers import plain
from risk import breaker, trading
from risk.breaker import Outcome
from risk.figures import database_now
from risk.models import RiskLimits, TradingControl

# --- how often, what kind, what stands already ------------------------------------------------


def rate_judged(bench: Bench) -> Came:
    limit = bench.limits.max_orders_per_minute
    return bench.judge(buy(), f"the strategy has sent {limit}", rates=lambda: Rates(strategy=limit))


def account_rate_judged(bench: Bench) -> Came:
    limit = bench.limits.account_orders_per_minute
    return bench.judge(buy(), f"the account has sent {limit}", rates=lambda: Rates(account=limit))


def rate_counted(bench: Bench) -> Came:
    strategy = bench.strategy()
    _allow_one_a_minute(bench, strategy)
    bench.store(strategy=strategy)
    return bench.submit(
        strategy, new_order(limit_price=ONE), "one a minute is allowed, and was sent"
    )


def account_rate_counted(bench: Bench) -> Came:
    _allow_one_a_minute(bench, None)
    bench.store()
    note = "one a minute is allowed in the account, and another strategy has sent it"
    return bench.submit(bench.strategy(), new_order(limit_price=ONE), note)


def _allow_one_a_minute(bench: Bench, strategy: Strategy | None) -> None:
    """A version of the limits that holds from this transaction's begin, and in it alone."""
    RiskLimits.objects.create(
        account=bench.account,
        strategy=strategy,
        version=2**31 - 1,
        changed=["max_orders_per_minute"],
        max_orders_per_minute=1,
        reason=WHO,
        actor=WHO,
    )


def type(kind: str) -> Callable[[Bench], Came]:
    def provoke(bench: Bench) -> Came:
        if kind in bench.limits.allowed_order_types:
            raise Off(f"allowed_order_types has {kind}.")
        return bench.submit(bench.strategy(), new_order(type=kind, limit_price=None))

    return provoke


def id_reused(bench: Bench) -> Came:
    order = bench.store()
    new = replace(new_order(), client_order_id=order.client_order_id)
    return bench.submit(order.strategy, new, "its client_order_id is that of another order")


def duplicate(bench: Bench) -> Came:
    return _twice(bench, ONE)


def duplicate_of_other_qty(bench: Bench) -> Came:
    return _twice(bench, TEN)


def _twice(bench: Bench, qty: Decimal) -> Came:
    if not bench.limits.duplicate_guard:
        raise Off("duplicate_guard is no.")
    strategy, new = bench.strategy(), new_order(qty=qty)
    bench.store(strategy=strategy)
    order = submission.priced(strategy, new, bench.limits)
    try:
        # The look that counts: `submit` takes it under the lock, after the broker's figures.
        found = submission.standing_like(strategy, new, order, [], bench.limits)
    except OrderError as error:
        codes: tuple[str, ...] = (error.code,)
    else:
        codes = ("duplicate",) if found is not None and found.duplicate else ()
    return Came(words(order, "buy 1 on the same terms is open"), codes)


# --- trading states and breaker ---------------------------------------------------------------


def state(state: str) -> Callable[[Bench], Came]:
    def provoke(bench: Bench) -> Came:
        trading.set_state(bench.account.pk, state, reason=WHO, actor=WHO)
        return bench.judge(buy(), f"trading is {state}")

    return provoke


def old_books(bench: Bench) -> Came:
    if bench.limits.reconcile_mode == RiskLimits.ReconcileMode.OFF:
        raise Off("reconcile_mode is off.")
    _without_states(bench)
    bench.account.books_as_of = bench.account.database_time - timedelta(days=1)
    return bench.judge(buy(), "the books were compared a day ago")


def error_rate(bench: Bench) -> Came:
    share, count = bench.limits.breaker_error_rate_pct, bench.limits.breaker_min_orders
    if share >= 100:
        raise Off("breaker_error_rate_pct is 100: no share of failures is above it.")
    failed = int(count * share / 100) + 1
    outcomes = [number < failed for number in range(count)]
    return _outcomes(bench, outcomes, f"{failed} of {count} orders have failed")


def in_a_row(bench: Bench) -> Came:
    count = bench.limits.breaker_consecutive_failures
    return _outcomes(bench, [True] * count, f"{count} orders in a row have failed")


def funds(bench: Bench) -> Came:
    return _outcomes(
        bench, [True], "one was refused for funds", message="insufficient buying power"
    )


def _outcomes(bench: Bench, failed: list[bool], note: str, message: str = "halted") -> Came:
    """The oldest first."""
    if len(failed) > MOST:
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
    return bench.judge(buy(), note)


def equity_drop(bench: Bench) -> Came:
    _closed_breaker(bench)
    equity = bench.figures.account.equity
    trading.under_lock(bench.account, bench.figures, bench.limits)  # the session begins with it
    drop = bench.limits.breaker_equity_drop_pct
    bench.told(equity=equity - abs(equity) * drop / 100 - CENT)
    return bench.judge(buy(), f"equity is {plain(drop)} % and a cent lower than at first")


def low_buying_power(bench: Bench) -> Came:
    _closed_breaker(bench)
    bench.told(buying_power=bench.limits.breaker_min_buying_power - CENT)
    return bench.judge(buy(), "buying power is a cent under breaker_min_buying_power")


def _closed_breaker(bench: Bench) -> None:
    control = TradingControl.objects.filter(account=bench.account).first()
    now = bench.account.database_time
    if control is not None and control.override_until and control.override_until > now:
        raise Off(f"{control.override_actor} overrides the breaker: {control.override_reason}")
    _without_states(bench)


def _without_states(bench: Bench) -> None:
    """As if no person had set one and nothing had opened the breaker: those would fire, too."""
    TradingControl.objects.filter(account=bench.account).delete()
