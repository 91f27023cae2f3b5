"""The terms of an order that was not placed by Ordinis, as the broker told them. Reads what is
stored; never asks the broker, and takes nothing that it said for granted.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from django.utils import timezone

from ordinis.console import text
from ordinis.logging import mask
from reconciliation.models import Break, Snapshot
from reconciliation.snapshots import evidence_of

_PLAIN = 100


def order_terms(row: Break) -> list[tuple[str, str]]:
    """By name; empty where the broker's answer is not kept any more or does not name it."""
    seen = Snapshot.objects.filter(account_id=row.account_id, complete=True)
    if row.ended_at is not None:  # later answers do not name it
        seen = seen.filter(asked_at__lte=row.last_seen)
    snapshot = seen.select_related("same_as").first()
    told = snapshot and evidence_of(snapshot)
    orders = told.get("orders") if told else None
    for order in orders if isinstance(orders, list) else ():
        if isinstance(order, dict) and str(order.get("id")) == row.broker_order_id:
            return [(name, value) for name, value in _terms(order) if value]
    return []


def _terms(order: Mapping[str, Any]) -> list[tuple[str, str]]:
    trails = _number(order.get("trail_percent"), text.shares)
    return [
        ("Side", _words(order.get("side"))),
        ("Shares", _number(order.get("qty"), text.shares)),
        ("Filled", _number(order.get("filled_qty"), text.shares)),
        ("Type", _words(order.get("type") or order.get("order_type"))),
        ("Limit price", _number(order.get("limit_price"), text.price)),
        ("Stop price", _number(order.get("stop_price"), text.price)),
        ("Trails by", _number(order.get("trail_price"), text.price) or (trails and f"{trails} %")),
        ("Time in force", _plain(order.get("time_in_force"))),
        ("Extended hours", "Yes" if order.get("extended_hours") is True else ""),
        ("Client order id", _plain(order.get("client_order_id"))),
        ("At the broker since", _moment(order.get("submitted_at") or order.get("created_at"))),
    ]


def _plain(value: Any) -> str:
    return "" if value is None else mask(str(value))[:_PLAIN]


def _words(value: Any) -> str:
    return _plain(value).replace("_", " ").capitalize()


def _number(value: Any, written: Any) -> str:
    if value is None:
        return ""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return _plain(value)
    return str(written(number)) if number.is_finite() else _plain(value)


def _moment(value: Any) -> str:
    try:
        at = datetime.fromisoformat(str(value or ""))
    except ValueError:
        return _plain(value)
    return _plain(value) if at.tzinfo is None else text.moment(at, now=timezone.now())
