"""What follows from a change of an order, begun at once in this process, after the commit.

The jobs find the same in the tables some seconds later: what is lost here with the process is only
time. Never runs inside a transaction, nor in the thread that brought the report.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

from django.db import connection, transaction
from django.utils.module_loading import import_string

from orders import statuses
from orders.models import Order

log = logging.getLogger("ordinis.orders")

_pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="wake")
_guard = threading.Lock()
_under_way: set[Future[None]] = set()


def after_commit(order: Order) -> None:
    """Called by the door for an order that changed."""
    if order.has_dependents:
        dependents_of(order.pk)
    wanted = order.cancel_requested_at is not None and order.cancel_sent_at is None
    if wanted and statuses.is_open(order.status):
        transaction.on_commit(lambda: _begin("orders.cancelling.pursue", order.pk))


def dependents_of(order_id: UUID) -> None:
    transaction.on_commit(lambda: _begin("orders.dependents.advance", order_id))


def _begin(function: str, order_id: UUID) -> None:
    with _guard:
        future = _pool.submit(_run, import_string(function), order_id)
        _under_way.add(future)
    future.add_done_callback(_ended)


def _ended(future: "Future[None]") -> None:
    with _guard:
        _under_way.discard(future)


def _run(work: Callable[[UUID], object], order_id: UUID) -> None:
    try:
        work(order_id)
    except Exception:  # the job does it again
        log.exception("not done at once", extra={"order": str(order_id)})
    finally:
        connection.close()


def is_idle() -> bool:
    """Whether all that was begun here has ended."""
    with _guard:
        return not _under_way
