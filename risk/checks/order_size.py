"""SPEC K4: the most shares and dollars of one order, and the broker's own least of one dollar for
what opens a position.
"""

from collections.abc import Iterator
from decimal import Decimal

from ordinis.numbers import plain
from risk.checks.values import Context, Finding, Intent, adds, reduces
from risk.limits import Limits

_LEAST = Decimal(1)  # dollars (ALPACA.md section 3)


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    notional = intent.qty * intent.worst_price
    # What only takes off a position must not be held up, also where it was made under other limits.
    limited = not reduces(intent, context)
    if limits.max_order_qty is not None and limited:
        ok = intent.qty <= limits.max_order_qty
        yield Finding(
            code="max_order_qty",
            ok=ok,
            limit=limits.max_order_qty,
            actual=intent.qty,
            message=""
            if ok
            else f"The order is for {plain(intent.qty)} shares; max_order_qty allows "
            f"{plain(limits.max_order_qty)}. Lower qty.",
        )
    if limits.max_order_notional is not None and limited:
        ok = notional <= limits.max_order_notional and intent.worst_price > 0
        yield Finding(
            code="max_order_notional",
            ok=ok,
            limit=limits.max_order_notional,
            actual=notional,
            message=""
            if ok
            else f"The order may come to ${notional:,.2f}; max_order_notional allows "
            f"${limits.max_order_notional:,.2f}. Lower qty."
            if intent.worst_price > 0
            else "What the order may come to is not known, and max_order_notional limits it. Give "
            "a reference_price.",
        )
    if adds(intent, context, limits) and not intent.replaced_qty:
        ok = notional >= _LEAST
        yield Finding(
            code="order_too_small",
            ok=ok,
            limit=_LEAST,
            actual=notional,
            message=""
            if ok
            else f"The order costs ${notional:,.4f}; the broker takes none below ${_LEAST}. "
            "Raise qty.",
        )
