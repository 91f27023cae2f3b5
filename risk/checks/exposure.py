"""SPEC K4: all positions together, in per cent of equity, working orders included: gross, and net
where that is limited.
"""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.inputs import FIGURES
from risk.checks.percent import of_equity
from risk.checks.values import ZERO, Context, Finding, Intent, adds
from risk.exposure import Worth
from risk.limits import Limits


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not adds(intent, context, limits):
        return
    for symbol in sorted(context.unpriced):
        yield Finding(
            code=FIGURES,
            ok=False,
            limit=ZERO,
            actual=Decimal(1),
            message=f"The broker gives no price for {symbol}, which is held: exposure can't be "
            "judged. Try again; if it stays, look at the position in the broker's own app.",
        )
    own = context.worth.get(intent.symbol, Worth())
    after = own.with_order(intent.side, intent.cost)
    gross = sum((worth.gross for worth in context.worth.values()), ZERO)
    yield of_equity(
        code="max_exposure_pct",
        what="All positions together would come to",
        before=gross,
        after=gross - own.gross + after.gross,
        equity=context.account.equity,
        limit=limits.max_exposure_pct,
    )
    if limits.max_net_exposure_pct is not None:
        net = _net(context, intent.side)
        yield of_equity(
            code="max_net_exposure_pct",
            what="Longs and shorts would differ by",
            before=max(net, ZERO),
            after=max(net + intent.cost, ZERO),
            equity=context.account.equity,
            limit=limits.max_net_exposure_pct,
        )


def _net(context: Context, side: str) -> Decimal:
    """How far the book may come to lean to that side: what works there counts, what works against
    it does not before it has filled."""
    if side == "buy":
        return sum((worth.long + min(worth.held, ZERO) for worth in context.worth.values()), ZERO)
    return sum((worth.short - max(worth.held, ZERO) for worth in context.worth.values()), ZERO)
