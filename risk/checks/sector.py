"""SPEC K4: the most of one sector, in per cent of equity, working orders included. `Unknown` is a
sector of its own.
"""

from collections.abc import Iterator

from positions.models import UNKNOWN_SECTOR
from risk.checks.percent import of_equity
from risk.checks.values import ZERO, Context, Finding, Intent, adds
from risk.exposure import Worth
from risk.limits import Limits

CODE = "max_sector_pct"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not adds(intent, context, limits):
        return
    sector = context.sectors.get(intent.symbol, UNKNOWN_SECTOR)
    before = sum(
        (
            worth.gross
            for symbol, worth in context.worth.items()
            if context.sectors.get(symbol, UNKNOWN_SECTOR) == sector
        ),
        ZERO,
    )
    own = context.worth.get(intent.symbol, Worth())
    after = own.with_order(intent.side, intent.cost)
    yield of_equity(
        code=CODE,
        what=f"The sector {sector} would come to",
        before=before,
        after=before - own.gross + after.gross,
        equity=context.account.equity,
        limit=limits.max_sector_pct,
    )
