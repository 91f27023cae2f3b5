"""SPEC K1: an account in which the broker, or its owner, has barred trading takes no order."""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import ZERO, Context, Finding, Intent
from risk.limits import Limits


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    blocked, suspended = context.account.trading_blocked, context.account.suspended
    yield Finding(
        code="account_blocked",
        ok=not blocked,
        limit=ZERO,
        actual=Decimal(blocked),
        message="The broker has blocked trading in this account. Ask the broker why."
        if blocked
        else "",
    )
    yield Finding(
        code="account_suspended",
        ok=not suspended,
        limit=ZERO,
        actual=Decimal(suspended),
        message="New orders are barred at the broker by its setting suspend_trade. Switch it off "
        "on the console's Trading control page, or in the broker's own app."
        if suspended
        else "",
    )
