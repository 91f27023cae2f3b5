"""SPEC K4: orders a minute, of the strategy and of the account as a whole. A strategy that loops is
stopped here. Exits that were taken with their order, and those of a parent, do not count.
"""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import Context, Finding, Intent
from risk.limits import Limits

CODE = "max_orders_per_minute"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if intent.is_dependent:
        return
    for whose, taken, limit in (
        ("The strategy", context.strategy_orders, limits.max_orders_per_minute),
        ("The account", context.account_orders, limits.account_orders_per_minute),
    ):
        ok = taken + 1 <= limit
        yield Finding(
            code=CODE,
            ok=ok,
            limit=Decimal(limit),
            actual=Decimal(taken + 1),
            before=Decimal(taken),
            message=""
            if ok
            else f"{whose} has sent {taken} orders within a minute; max_orders_per_minute allows "
            f"{limit}. Wait.",
        )
