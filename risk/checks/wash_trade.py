"""SPEC K3: no order that could trade against our own on the other side. The broker's table
(ALPACA.md section 3): a market or stop order never stands beside one on the other side, limits only
when they do not cross; pairs and trailing stops are exempt. Nor does the broker open a position
while an order that opens the other way stands.
"""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import ZERO, Context, Finding, Intent, Opposite
from risk.limits import Limits

_LIMITED = frozenset({"limit", "stop_limit"})


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    against = None if intent.is_pair else _first_against(intent, context)
    yield Finding(
        code="wash_trade",
        ok=against is None,
        limit=ZERO,
        actual=Decimal(against is not None),
        message=""
        if against is None
        else f"{intent.symbol}: the order could trade against the account's own open order "
        f"{against.client_order_id}. Cancel that one, or use a limit price that does not meet it.",
    )
    opening = next((order for order in context.opposite if order.opens), None)
    if opening is not None and context.held_qty == 0:
        yield Finding(
            code="opposite_order_open",
            ok=False,
            limit=ZERO,
            actual=Decimal(1),
            message=f"{intent.symbol}: the order {opening.client_order_id} opens a position the "
            "other way. The broker does not take both; cancel that one first.",
        )


def _first_against(intent: Intent, context: Context) -> Opposite | None:
    return next((order for order in context.opposite if _meets(intent, order)), None)


def _meets(intent: Intent, order: Opposite) -> bool:
    if order.is_pair or "trailing_stop" in (order.type, intent.type):
        return False
    if order.type not in _LIMITED or intent.type not in _LIMITED:
        return True
    ours, theirs = intent.limit_price, order.limit_price
    if ours is None or theirs is None:
        return True
    buy, sell = (ours, theirs) if intent.side == "buy" else (theirs, ours)
    return buy >= sell
