"""The rows of an order's history: what changed, from whom and why, with a hash over the one before.

Only the door (`orders.lifecycle`) makes steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from orders.models import Order, OrderHistory
from ordinis.broker.port import OrderReport

Source = OrderHistory.Source


@dataclass(frozen=True, slots=True)
class Origin:
    """Who brings a change: by which way it came, who acted, and why."""

    source: Source
    actor: str
    reason: str = ""


# What of an order a step changes beside its status.
HISTORY = ("history_length", "history_hash")


def append(
    order: Order, before: str, after: str, origin: Origin, report: OrderReport | None = None
) -> OrderHistory:
    row = make_step(order, before, after, origin, report)
    row.save(force_insert=True)
    return row


def make_step(
    order: Order, before: str, after: str, origin: Origin, report: OrderReport | None = None
) -> OrderHistory:
    now = datetime.now(UTC)
    row = OrderHistory(
        order=order,
        seq=order.history_length + 1,
        from_status=before,
        to_status=after,
        occurred_at=(report and report.updated_at) or now,
        received_at=now,
        source=origin.source,
        actor=origin.actor,
        reason=origin.reason,
        report=None if report is None else storable(report.raw),
    )
    row.hash = row.digest(order.history_hash)
    order.history_length, order.history_hash = row.seq, row.hash
    order.updated_at = now
    return row


def storable(value: Any) -> Any:
    """The report as the database gives it back to the letter: its JSON type rewrites floats and
    refuses NUL and half characters, and the hash must still match."""
    if isinstance(value, Mapping):
        return {_text(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "")
