"""The event feed: what happened to a strategy's orders, in one increasing sequence (SPEC O13).

Events are written where they happen, in the door's transaction, and without a number: whoever
commits first must not wait for who began first. They are numbered when they are read, under a lock
that readers share, so that a number once shown is never followed by a smaller one. Must never
number an event that is not committed, nor take a number back: events are kept for ever.
"""

import threading
import time
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import F

from orders.models import Event, Fill, Order, OrderHistory

MOST: Final = 500  # events in one answer, and events numbered at a time
LONG_POLLS: Final = 8  # at once in this process: its other threads are for orders
_EVERY: Final = 0.1  # seconds between two looks of a long poll
_NUMBERING: Final = 0x0D16  # of PostgreSQL's advisory locks: "numbering", then the strategy's id

_long_polls = threading.BoundedSemaphore(LONG_POLLS)


def wait(strategy_id: int, after: int, *, seconds: float) -> list[Event]:
    """What `read` gives, at once when that is anything; else as soon as there is something, or
    nothing after `seconds`. Beyond LONG_POLLS callers at once nobody waits.

    Between two looks no transaction is open. The thread's connection stays: making one anew ten
    times a second would cost more than it keeps.
    """
    found = read(strategy_id, after)
    if found or not seconds or not _long_polls.acquire(blocking=False):
        return found
    try:
        ends = time.monotonic() + seconds
        while not found and (left := ends - time.monotonic()) > 0:
            time.sleep(min(_EVERY, left))
            found = read(strategy_id, after)
    finally:
        _long_polls.release()
    return found


def read(strategy_id: int, after: int) -> list[Event]:
    """A strategy's events with numbers above `after`, in their order, at most MOST of them, each
    with its `client_order_id`. Numbers what has none; one query when nothing is new."""
    found = _look(strategy_id, after)
    if found and found[-1].seq is None:
        _number(strategy_id)
        found = _look(strategy_id, after)
    return [event for event in found if event.seq is not None]


def _look(strategy_id: int, after: int) -> list[Event]:
    """The numbered events above `after`, and last one without a number when there is any."""
    events = Event.objects.filter(strategy_id=strategy_id).annotate(
        client_order_id=F("order__client_order_id")
    )
    numbered = events.filter(seq__gt=after).order_by("seq")[:MOST]
    fresh = events.filter(seq=None).order_by("id")[:1]
    # Each half by its own index; PostgreSQL sorts those without a number last.
    return list(numbered.union(fresh, all=True).order_by("seq"))


def _number(strategy_id: int) -> None:
    """Gives the oldest committed events without a number the next ones."""
    with transaction.atomic(), connection.cursor() as cursor:
        # A statement of its own: the next one sees what was committed before it began, and must
        # see all numbers of whoever held the lock before.
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_NUMBERING, strategy_id))
        cursor.execute(_NEXT_NUMBERS, {"strategy": strategy_id, "most": MOST})


# By id: those of one order are committed in the order of their ids, since its row is locked.
_NEXT_NUMBERS = """
WITH told AS (
    SELECT coalesce(max(seq), 0) AS last FROM orders_event WHERE strategy_id = %(strategy)s
), fresh AS (
    SELECT id, row_number() OVER (ORDER BY id) AS place FROM (
        SELECT id FROM orders_event
        WHERE strategy_id = %(strategy)s AND seq IS NULL ORDER BY id LIMIT %(most)s
    ) AS oldest
)
UPDATE orders_event SET seq = told.last + fresh.place FROM told, fresh
WHERE orders_event.id = fresh.id
"""


def record(order: Order, steps: Iterable[OrderHistory], fills: Iterable[Fill] = ()) -> None:
    """Stores the events of one change of an order, fills first, in the caller's transaction."""
    record_all([(order, steps, fills)])


def record_all(
    changes: Iterable[tuple[Order, Iterable[OrderHistory], Iterable[Fill]]],
) -> None:
    """As `record`, of many changes at once."""
    if events := [event for change in changes for event in _of(*change)]:
        Event.objects.bulk_create(events)


def _of(order: Order, steps: Iterable[OrderHistory], fills: Iterable[Fill]) -> list[Event]:
    received_at = order.updated_at
    return [
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
