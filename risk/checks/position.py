"""SPEC K4: the most of one symbol, in per cent of equity, its working orders included."""

from collections.abc import Iterator

from risk.checks.percent import of_equity
from risk.checks.values import Context, Finding, Intent, adds
from risk.exposure import Worth
from risk.limits import Limits

CODE = "max_position_pct"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not adds(intent, context, limits):
        return
    before = context.worth.get(intent.symbol, Worth())
    after = before.with_order(intent.side, intent.cost)
    yield of_equity(
        code=CODE,
        what=f"{intent.symbol} would come to",
        before=before.gross,
        after=after.gross,
        equity=context.account.equity,
        limit=limits.max_position_pct,
    )
