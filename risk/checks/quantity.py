"""SPEC K3: a sell is for no more than the free shares of its position, and a buy that covers a
short one for no more than is short. The broker turns an oversell into a short without a word, and
refuses what would go through zero.
"""

from collections.abc import Iterator

from ordinis.numbers import plain
from risk.checks.values import Context, Finding, Intent, sells_short
from risk.limits import Limits

CODE = "insufficient_quantity"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if sells_short(intent, context) and limits.allow_short:
        return  # short_sale judges it
    if intent.side == "sell":
        free, on_their_way = context.free_to_sell, context.committed.sold(intent.symbol)
        doing, enabled = "selling", "" if limits.allow_short else "Short selling is not enabled; "
    elif context.held_qty < 0:
        free, on_their_way = context.free_to_cover, context.committed.bought(intent.symbol)
        doing, enabled = "buying back", "An order can't go from short to long; "
    else:
        return
    ok = intent.needs <= free
    yield Finding(
        code=CODE,
        ok=ok,
        on_figures=True,
        limit=free,
        actual=intent.needs,
        message=""
        if ok
        else (
            f"{intent.symbol}: {doing} {plain(intent.needs)}, but only {plain(free)} are free "
            f"({plain(abs(context.free_qty))} available at the broker, {plain(on_their_way)} in "
            f"orders on their way). {enabled}{'l' if enabled else 'L'}ower the quantity."
        ),
    )
