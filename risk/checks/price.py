"""SPEC O5, K1: a price of the strategy's own lies no further from its reference than the slippage
guard allows. (A price that the offset made is guarded where it is made, `orders.pricing`.)
"""

from collections.abc import Iterator

from ordinis.numbers import plain
from risk.checks.values import Context, Finding, Intent
from risk.limits import Limits

CODE = "max_slippage_pct"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    price, reference = intent.limit_price, intent.reference_price
    if price is None or reference is None:
        return
    slippage = abs(price - reference) / reference * 100
    ok = slippage <= limits.max_slippage_pct
    yield Finding(
        code=CODE,
        ok=ok,
        limit=limits.max_slippage_pct,
        actual=slippage,
        message=""
        if ok
        else f"The limit price {plain(price)} is {slippage:.2f} % from the reference "
        f"{plain(reference)}; max_slippage_pct allows {plain(limits.max_slippage_pct)} %. "
        "Give a price nearer to it.",
    )
