"""Each order that counts when the next one is judged, with what it counts for and why: for the page
and the command that show it. By the rules of `risk.commitments` and `risk.exposure`; reads only.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from orders.models import Order
from orders.working import MARGIN, WorkingOrders, commitment, open_qty, price_of
from ordinis.accounts.models import BrokerAccount
from risk.commitments import committed, counts

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """An order, the dollars and shares that it commits beyond the broker's figures, and the dollars
    that its open remainder may add to exposure."""

    order: Order
    money: Decimal
    shares: Decimal
    exposure: Decimal
    reason: str


def counted(account: BrokerAccount) -> list[Counted]:
    """Newest first, judged by the account's figures as they were last stored. Three queries."""
    if account.as_of is None:
        return []
    orders = WorkingOrders.of(account.pk, account.as_of)
    by_id = Order.objects.select_related("strategy").in_bulk([row["pk"] for row in orders.rows])
    found = [_counted(by_id[row["pk"]], row, account.as_of) for row in orders.rows]
    return sorted(found, key=lambda each: each.order.created_at, reverse=True)


def _counted(order: Order, row: dict[str, Any], asked_at: datetime) -> Counted:
    one = commitment(row)
    held = committed([one], asked_at, MARGIN)
    adds = order.side == Order.Side.BUY or order.sells_short
    remainder = open_qty(row["status"], row["qty"], row["filled_qty"]) * price_of(row)
    return Counted(
        order=order,
        money=held.money,
        shares=held.sold(order.symbol),
        exposure=remainder if adds else _ZERO,
        reason=_reason(order, asked_at) if counts(one, asked_at, MARGIN) else _CONTAINED,
    )


_CONTAINED = "The broker's figures contain it; what is open of it counts towards exposure."


def _reason(order: Order, asked_at: datetime) -> str:
    if order.acknowledged_at is None:
        return "The broker has not confirmed it yet: all of it counts."
    late = (order.acknowledged_at - asked_at).total_seconds()
    when = f"{late:.1f} s after" if late >= 0 else f"only {-late:.1f} s before"
    return (
        f"The broker confirmed it {when} its figures were asked for: they may lack it, so what has "
        "filled and what is open counts."
    )
