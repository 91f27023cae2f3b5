"""Symbols: allowed by the desk. What takes off a position passes. (What the broker says of one,
tradable or fractionable, is checked with the order's terms, `orders.terms`.)
"""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import ZERO, Context, Finding, Intent, reduces
from risk.limits import Limits

CODE = "symbol_not_allowed"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if reduces(intent, context):
        return
    listed = limits.allowed_symbols is None or intent.symbol in limits.allowed_symbols
    ok = listed and intent.symbol not in limits.blocked_symbols
    key = "blocked_symbols" if listed else "allowed_symbols"
    yield Finding(
        code=CODE,
        ok=ok,
        limit=ZERO,
        actual=Decimal(not ok),
        message=""
        if ok
        else f"{intent.symbol} may not be traded here but to close a position: {key} says so. "
        "Choose another symbol.",
    )
