"""SPEC O5, K1: a price lies no further from the strategy's reference than the slippage guard
allows: its own limit, or for an order without one the broker's ask. (A price that the offset made
is guarded where it is made, `orders.pricing`.)
"""

from collections.abc import Iterator
from decimal import Decimal

from ordinis.numbers import plain
from risk.checks.values import Context, Finding, Intent
from risk.limits import Limits

CODE = "max_slippage_pct"


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    is_limited = intent.limit_price is not None
    price = intent.limit_price if is_limited else intent.ask
    reference = intent.reference_price
    if price is None or reference is None or (intent.side == "sell" and not is_limited):
        return
    slippage = abs(price - reference) / reference * 100
    ok = slippage <= limits.max_slippage_pct
    yield Finding(
        code=CODE,
        ok=ok,
        limit=limits.max_slippage_pct,
        actual=slippage.quantize(Decimal("0.0001")),
        message=""
        if ok
        else (
            f"The {'limit price' if is_limited else 'ask'} {plain(price)} is {slippage:.2f} % from "
            f"the reference {plain(reference)}; max_slippage_pct allows "
            f"{plain(limits.max_slippage_pct)} %. "
            f"Give a {'price nearer to it' if is_limited else 'reference_price of today'}."
        ),
    )
