"""SPEC K2: two orders can never spend the same money.

The broker's buying power, less what our orders commit beyond it and less the buffer, must cover the
order at its worst price. What only takes off a position costs nothing.
"""

from collections.abc import Iterator
from decimal import Decimal

from ordinis.numbers import plain
from risk.checks.values import Context, Finding, Intent, adds
from risk.limits import Limits

CODE = "insufficient_buying_power"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not adds(intent, context, limits):
        return
    at_broker, what = _buying_power(context)
    reserved = context.committed.money
    usable = usable_buying_power(at_broker, reserved, limits.buying_power_buffer_pct)
    ok = intent.cost <= usable
    yield Finding(
        code=CODE,
        ok=ok,
        on_figures=True,
        limit=usable,
        actual=intent.cost,
        inputs={"buying_power": at_broker, "reserved": reserved},
        message=""
        if ok
        else (
            f"{what}: needs ${intent.cost:,.2f}, has ${at_broker - reserved:,.2f} "
            f"(${at_broker:,.2f} at the broker, ${reserved:,.2f} reserved by orders on their way; "
            f"{plain(limits.buying_power_buffer_pct)} % is kept as a buffer). "
            "Lower the quantity or free buying power."
        ),
    )


def usable_buying_power(at_broker: Decimal, reserved: Decimal, buffer_pct: Decimal) -> Decimal:
    """Dollars that an order may use."""
    return at_broker - reserved - max(at_broker * buffer_pct / 100, Decimal(0))


def _buying_power(context: Context) -> tuple[Decimal, str]:
    """What is not marginable is bought with cash alone."""
    account = context.account
    if context.asset is None or context.asset.marginable:
        return account.buying_power, "Buying power"
    cash = account.cash if account.cash_buying_power is None else account.cash_buying_power
    return min(account.buying_power, cash), f"{context.symbol} can't be bought on margin. Cash"
