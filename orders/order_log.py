"""Names the order in the lines that the broker's edge writes of each call (SPEC O12)."""

from collections.abc import Iterator
from contextlib import contextmanager

from orders.models import Order
from ordinis.broker import order_log
from ordinis.logging import correlation_id


@contextmanager
def about(order: Order) -> Iterator[None]:
    """What is asked of the broker inside is about this order, and part of what its request began:
    jobs have no correlation id of their own."""
    token = correlation_id.set(order.correlation_id)
    try:
        with order_log.about(
            order=str(order.pk),
            order_attempt=order.attempts,
            account=order.account.name,
            strategy=order.strategy.name,
            symbol=order.symbol,
            side=order.side,
            client_order_id=order.client_order_id,
        ):
            yield
    finally:
        correlation_id.reset(token)
