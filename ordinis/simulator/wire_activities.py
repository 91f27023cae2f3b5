"""JSON in the shapes of Alpaca's activities: as the list tells them and as the event stream does.

Only shapes: nothing is decided or changed here.
"""

from decimal import Decimal

from ordinis.simulator import moments
from ordinis.simulator.order import Order
from ordinis.simulator.refusals import plain
from ordinis.simulator.wire import Json


def fill(it: Order, *, moment: int, execution_id: str, qty: Decimal, price: Decimal) -> Json:
    return {
        "id": f"{moments.compact_text(moment)}::{execution_id}",
        "activity_type": "FILL",
        "transaction_time": moments.text(moment),
        "type": "fill" if it.status == "filled" else "partial_fill",
        "price": plain(price),
        "qty": plain(qty),
        "side": it.side,
        "symbol": it.symbol,
        "leaves_qty": plain(it.remaining),
        "order_id": it.id,
        "cum_qty": plain(it.filled_qty),
        "order_status": it.status,
    }


def trade_event(
    it: Order,
    kind: str,
    execution_id: str,
    qty: Decimal,
    price: Decimal,
    *,
    previous_id: str | None = None,
) -> Json:
    """`kind` is fill, trade_bust or trade_correct."""
    bought = qty if it.side == "buy" else -qty
    previous = {} if previous_id is None else {"previous_id": previous_id}
    return {
        "activity_type": "FILL",
        "status": "executed",
        "currency": "USD",
        "ref_id": execution_id,
        **previous,
        "price": plain(price),
        "qty": plain(qty),
        "net_amount": plain((-bought * price).quantize(Decimal("0.01"))),
        "details": {
            "order_id": it.id,
            "client_order_id": it.client_order_id,
            "side": it.side,
            "symbol": it.symbol,
            "asset_id": it.asset_id,
            "leaves_qty": plain(it.remaining),
            "cum_qty": plain(it.filled_qty),
            "order_status": it.status,
            "execution_type": kind,
        },
    }


def non_trade(
    *,
    kind: str,
    sub_kind: str,
    identity: str,
    group: str,
    moment: int,
    day: str,
    net_amount: Decimal,
    description: str,
    symbol: str | None = None,
    qty: Decimal | None = None,
    per_share: Decimal | None = None,
) -> Json:
    """What is not told of every type is left out where there is none."""
    row: Json = {
        "id": f"{moments.compact_text(moment)}::{identity}",
        "activity_type": kind,
        "activity_sub_type": sub_kind or None,
        "date": day,
        "created_at": moments.text(moment),
        "net_amount": plain(net_amount),
        "symbol": symbol,
        "qty": None if qty is None else plain(qty),
        "per_share_amount": None if per_share is None else plain(per_share),
        "description": description,
        "status": "executed",
        "currency": "USD",
        "group_id": group,
    }
    return {name: value for name, value in row.items() if value is not None}


def non_trade_event(row: Json, identity: str, details: Json) -> Json:
    """The same activity for the event stream."""
    told = {
        "activity_type": row["activity_type"],
        "activity_subtype": row.get("activity_sub_type"),
        "status": row["status"],
        "currency": row["currency"],
        "ref_id": identity,
        "qty": row.get("qty"),
        "net_amount": row["net_amount"],
        "details": {"system_date": row["date"], "group_id": row["group_id"], **details},
    }
    return {name: value for name, value in told.items() if value is not None}
