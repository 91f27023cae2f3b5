"""The event feed: what happened to a strategy's orders, in one increasing sequence (SPEC O13).

Events are written where they happen, in the door's transaction, and without a number: whoever
commits first must not wait for who began first. They are numbered when they are read, under a lock
that readers share, so that a number once shown is never followed by a smaller one.
"""

from collections.abc import Iterable
from datetime import datetime

from orders.models import Event, Fill, Order, OrderHistory


def record(order: Order, steps: Iterable[OrderHistory], fills: Iterable[Fill] = ()) -> None:
    """Stores the events of one change of an order, fills first, in the caller's transaction."""
    received_at = order.updated_at
    events = [
        _event(
            order,
            Event.Kind.FILL,
            received_at=received_at,
            status=order.status,
            execution_id=fill.execution_id,
            qty=fill.qty,
            price=fill.price,
            occurred_at=fill.occurred_at,
        )
        for fill in fills
    ] + [
        _event(
            order,
            Event.Kind.TRANSITION,
            received_at=step.received_at,
            status=step.to_status,
            from_status=step.from_status,
            occurred_at=step.occurred_at,
        )
        for step in steps
        if step.from_status != step.to_status
    ]
    if events:
        Event.objects.bulk_create(events)


def _event(order: Order, kind: Event.Kind, received_at: datetime, **values: object) -> Event:
    return Event(
        strategy_id=order.strategy_id,
        kind=kind,
        order_id=order.pk,
        filled_qty=order.filled_qty,
        average_fill_price=order.average_fill_price,
        received_at=received_at,
        **values,
    )
