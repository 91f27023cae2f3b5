"""SPEC K7: halted, nothing passes; reducing, only what truly takes off a position does.

Half-open, one order may try: whoever stores it claims the place (`may_probe`).
"""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import Context, Finding, Intent, reduces
from risk.limits import Limits
from risk.states import ACTIVE, HALTED, STRICTNESS

CODES = {"reducing": "trading_reducing", "halted": "trading_halted"}


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    trading = context.trading
    if trading.state == ACTIVE:
        return
    ok = trading.state != HALTED and (trading.may_probe or reduces(intent, context))
    why = " ".join(reason.message for reason in trading.reasons)
    passes = (
        "Only cancels pass; a person resumes on the console's Trading control page."
        if trading.state == HALTED
        else "Only orders that close no more than what is free of a position pass."
    )
    yield Finding(
        code=CODES[trading.state],
        ok=ok,
        limit=Decimal(0),
        actual=Decimal(STRICTNESS.index(trading.state)),
        message="" if ok else f"Trading is {trading.state}: {why} {passes}",
    )
