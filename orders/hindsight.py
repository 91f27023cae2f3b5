"""What tighter limits would have denied of the orders that were sent in the last 30 days (SPEC K9),
from the verdict that each was stored with. Reads only; asks nobody.

Each order is judged as it came then: that an earlier one would have been denied, and room left by
it, is not replayed. Nor are the exchange's sessions, the duplicate guard and the breaker, nor a
net exposure that nothing limited then.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from django.db.models import F, Func, JSONField, Value
from django.db.models.functions import Now

from orders.models import Order
from risk.checks.buying_power import CODE as BUYING_POWER
from risk.checks.buying_power import usable_buying_power
from risk.figures import database_now
from risk.limit_values import Limits
from risk.loosening import loosened

DAYS: Final = 30
_EXAMPLES: Final = 20
_RATE: Final = "max_orders_per_minute"
# Checks whose code is the key of the limit, and whose actual value is in that limit's own unit.
_AT_MOST: Final = (
    *("max_positions", "max_position_pct", "max_exposure_pct", "max_net_exposure_pct"),
    *("max_sector_pct", "max_order_qty", "max_order_notional", "max_slippage_pct"),
)
_SIZES: Final = ("max_order_qty", "max_order_notional")
_BUFFER: Final = "buying_power_buffer_pct"
_CODES: Final = {**{key: key for key in (*_AT_MOST, _RATE)}, _BUFFER: BUYING_POWER}
# Limits that the order itself answers for.
_PLAIN: Final = ("allowed_order_types", "allowed_symbols", "blocked_symbols", "allow_short")
_COLUMNS: Final = (
    *("pk", "strategy_id", "client_order_id", "symbol", "side", "type", "sells_short"),
    *("qty", "worst_price", "limit_price", "parent_id", "replaces_id", "created_at"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One order that would have been denied, and by which limits."""

    order_id: UUID
    client_order_id: str
    symbol: str
    created_at: datetime
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindsight:
    """Of `orders` that were sent since, `denied` would not have been; the newest as examples."""

    since: datetime
    orders: int
    denied: int
    by_key: Mapping[str, int]
    examples: tuple[Example, ...]


def would_have_denied(
    account_id: int, strategies: Mapping[int, tuple[Limits, Limits]]
) -> Hindsight:
    """What each strategy's second limits, in the place of the first, would have denied. Only the
    keys that the second tighten are looked at. One pass over the orders, of bounded memory."""
    tightened = {pk: _tightened(*pair) for pk, pair in strategies.items()}
    codes = sorted({_CODES[key] for keys in tightened.values() for key in keys if key in _CODES})
    since = database_now() - timedelta(days=DAYS)
    sent = Order.objects.filter(
        account_id=account_id,
        strategy_id__in=list(strategies),
        created_at__gte=since,
        created_at__lte=Now(),
        submitted_at__isnull=False,
    )
    if not any(tightened.values()):
        return Hindsight(since=since, orders=sent.count(), denied=0, by_key={}, examples=())
    orders = 0
    denied = 0
    by_key: Counter[str] = Counter()
    examples: list[Example] = []
    rows = sent.annotate(found=_findings(codes)).order_by("-created_at", "-pk")
    for row in rows.values(*_COLUMNS, "found").iterator(chunk_size=2000):
        orders += 1
        new = strategies[row["strategy_id"]][1]
        keys = [key for key in tightened[row["strategy_id"]] if _denies(key, row, new)]
        if not keys:
            continue
        denied += 1
        by_key.update(keys)
        if len(examples) < _EXAMPLES:
            examples.append(
                Example(
                    order_id=row["pk"],
                    client_order_id=row["client_order_id"],
                    symbol=row["symbol"],
                    created_at=row["created_at"],
                    keys=tuple(keys),
                )
            )
    return Hindsight(
        since=since,
        orders=orders,
        denied=denied,
        by_key=dict(by_key.most_common()),
        examples=tuple(examples),
    )


def _tightened(before: Limits, after: Limits) -> list[str]:
    keys = [key for key in loosened(after, before) if key in _CODES or key in _PLAIN]
    # A strategy may have a rate of its own that stays as it is, while the account's sinks.
    if _RATE not in keys and after.account_orders_per_minute < before.account_orders_per_minute:
        keys.append(_RATE)
    return keys


def _findings(codes: Sequence[str]) -> Func | Value:
    """Of the stored verdict only what is asked about: it is several times as long."""
    if not codes:
        return Value([], output_field=JSONField())
    wanted = " || ".join(f'@.code == "{code}"' for code in codes)
    return Func(
        F("verdict"),
        Value(f"$[*] ? ({wanted})"),
        function="jsonb_path_query_array",
        template="%(function)s(%(expressions)s::jsonpath)",
        output_field=JSONField(),
    )


def _denies(key: str, row: Mapping[str, Any], new: Limits) -> bool:
    if key in _PLAIN:
        return _denies_plainly(key, row, new)
    found = [finding for finding in row["found"] if finding.get("code") == _CODES[key]]
    if key == _BUFFER:
        return any(_exceeds_buying_power(finding, new.buying_power_buffer_pct) for finding in found)
    if key == _RATE:  # the strategy's own rate first, then the account's
        limits = (new.max_orders_per_minute, new.account_orders_per_minute)
        return any(_exceeds(*pair) for pair in zip(found, limits, strict=False))
    if not found:
        size = _size(key, row)  # no such limit stood then
        return size is not None and size > getattr(new, key)
    return any(_exceeds(finding, getattr(new, key)) for finding in found)


def _size(key: str, row: Mapping[str, Any]) -> Decimal | None:
    """What the order itself says of its size; exits are not held to it."""
    price = row["worst_price"] or row["limit_price"]
    if row["parent_id"] is not None or key not in _SIZES:
        return None
    if key == "max_order_qty":
        return Decimal(row["qty"])
    return None if price is None else Decimal(row["qty"] * price)


def _denies_plainly(key: str, row: Mapping[str, Any], new: Limits) -> bool:
    if key == "allow_short":
        return bool(row["sells_short"])
    if key == "allowed_order_types":
        # The types of exits need no enabling, and a replacement has its predecessor's.
        is_first = row["parent_id"] is None and row["replaces_id"] is None
        return is_first and row["type"] not in new.allowed_order_types
    if row["side"] != Order.Side.BUY and not row["sells_short"]:
        return False
    if key == "blocked_symbols":
        return row["symbol"] in new.blocked_symbols
    return new.allowed_symbols is not None and row["symbol"] not in new.allowed_symbols


def _exceeds(finding: Mapping[str, Any], limit: Decimal | int) -> bool:
    """What adds nothing passes, also where a limit is broken already."""
    actual, before = _number(finding.get("actual")), _number(finding.get("before"))
    return actual is not None and actual > limit and (before is None or actual > before)


def _exceeds_buying_power(finding: Mapping[str, Any], buffer_pct: Decimal) -> bool:
    inputs = finding.get("inputs") or {}
    cost = _number(finding.get("actual"))
    at_broker, reserved = _number(inputs.get("buying_power")), _number(inputs.get("reserved"))
    if cost is None or at_broker is None or reserved is None:
        return False
    return cost > usable_buying_power(at_broker, reserved, buffer_pct)


def _number(text: Any) -> Decimal | None:
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
