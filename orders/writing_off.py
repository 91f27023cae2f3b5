"""Ends an order that the broker no longer knows, by a person's word: it would stay open for ever
and count towards every limit. Through the one door, as if the broker had said: canceled.
"""

from datetime import UTC, datetime

from orders import lifecycle
from orders.lifecycle import Origin, Source
from orders.models import Order
from ordinis.accounts.brokers import broker_for
from ordinis.broker.port import OrderReport


def is_unknown(order: Order) -> bool:
    """Whether the broker knows it neither by its own id nor by ours.

    Raises BrokerUnavailable or BrokerRefused. Never called in a transaction.
    """
    broker = broker_for(order.account)
    if order.broker_order_id and broker.order(order.broker_order_id) is not None:
        return False
    return broker.order_by_client_id(order.client_order_id) is None


def write_off(order: Order, *, actor: str, reason: str) -> Order:
    """Ends it as canceled, with what has filled of it; one that has ended stays as it is."""
    assert order.broker_order_id is not None, "the broker had acknowledged it"
    report = OrderReport(
        broker_order_id=order.broker_order_id,
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order.side,
        qty=order.qty,
        type=order.type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        status="canceled",
        filled_qty=order.filled_qty,
        average_fill_price=order.average_fill_price,
        updated_at=datetime.now(UTC),
        raw={"written_off_by": actor, "reason": reason},
    )
    words = f"The broker does not know it; written off: {reason}"
    return lifecycle.observe(order.pk, report, Origin(Source.OPERATOR, actor, words))
