"""SPEC O3: no risk is added to a symbol while it is unknown whether an earlier order exists."""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import ZERO, Context, Finding, Intent, adds
from risk.limits import Limits

CODE = "symbol_unresolved"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not adds(intent, context, limits):
        return
    ok = intent.symbol not in context.unresolved_symbols
    yield Finding(
        code=CODE,
        ok=ok,
        limit=ZERO,
        actual=Decimal(not ok),
        message=""
        if ok
        else f"{intent.symbol}: the outcome of an earlier order is not known yet. Try again in "
        "some seconds; it is being looked up.",
    )
