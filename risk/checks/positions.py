"""SPEC K4: the most symbols that may be held or be on the way at once."""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import Context, Finding, Intent, adds
from risk.limits import Limits

CODE = "max_positions"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not adds(intent, context, limits):
        return
    taken = {symbol for symbol, worth in context.worth.items() if worth.gross > 0}
    after = len(taken | {intent.symbol})
    opens = after > len(taken)
    ok = after <= limits.max_positions or not opens
    yield Finding(
        code=CODE,
        ok=ok,
        on_figures=True,
        limit=Decimal(limits.max_positions),
        actual=Decimal(after),
        before=Decimal(len(taken)),
        message=""
        if ok
        else f"{len(taken)} symbols are held or on order; {intent.symbol} would be one more than "
        f"max_positions allows ({limits.max_positions}). Close a position first.",
    )
