"""Risk limits as values: the keys with their defaults, and how the account's own values and a
strategy's make what holds (SPEC K9). Pure: no clock, no query.

A version holds only the keys that it changes. Of the versions that hold at a moment the one with
the greatest (starts_at, version) says what a key is: so a temporary change returns by itself, and
neither it nor a scheduled one undoes what was changed meanwhile of other keys.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db.models import BooleanField

from ordinis.numbers import plain
from risk.models import SESSIONS, RiskLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The values in force; the defaults are API.md's."""

    max_positions: int = 20
    max_position_pct: Decimal = Decimal(5)
    max_exposure_pct: Decimal = Decimal(150)
    max_net_exposure_pct: Decimal | None = None
    max_sector_pct: Decimal = Decimal(30)
    buying_power_buffer_pct: Decimal = Decimal(1)
    max_order_qty: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_orders_per_minute: int = 60
    allowed_order_types: frozenset[str] = frozenset({"limit"})
    allowed_symbols: frozenset[str] | None = None
    blocked_symbols: frozenset[str] = frozenset()
    allowed_sessions: frozenset[str] = frozenset(SESSIONS)
    allow_short: bool = False
    duplicate_guard: bool = True
    breaker_error_rate_pct: Decimal = Decimal(10)
    breaker_window_seconds: int = 300
    breaker_min_orders: int = 10
    breaker_consecutive_failures: int = 5
    breaker_equity_drop_pct: Decimal = Decimal(5)
    breaker_min_buying_power: Decimal = Decimal(1000)
    breaker_cooldown_seconds: int = 300
    offset_mode: str = RiskLimits.OffsetMode.BPS
    buy_offset: Decimal = Decimal(15)
    sell_offset: Decimal = Decimal(10)
    max_slippage_pct: Decimal = Decimal("0.5")
    loosening_needs_approval: bool = False
    dependents_activation: str = RiskLimits.DependentsActivation.AT_END
    reconcile_mode: str = RiskLimits.ReconcileMode.MANUAL
    auto_correct_max_value: Decimal = Decimal(100)
    auto_correct_max_qty: Decimal = Decimal(1)
    drift_alert_value: Decimal = Decimal(100)
    # Not a key: the account's own value of max_orders_per_minute, which counts for all of its
    # strategies together.
    account_orders_per_minute: int = 60


_DEFAULTS: Final = Limits()
KEYS: Final = tuple(
    field.name for field in fields(Limits) if field.name != "account_orders_per_minute"
)
# Where account and strategy both set one of these, the tighter holds.
_TIGHTER: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "max_positions": min,
    "max_position_pct": min,
    "max_exposure_pct": min,
    "max_net_exposure_pct": min,
    "max_sector_pct": min,
    "buying_power_buffer_pct": max,
    "max_order_qty": min,
    "max_order_notional": min,
    "max_orders_per_minute": min,
    "allowed_order_types": operator.and_,
    "allowed_symbols": operator.and_,
    "blocked_symbols": operator.or_,
    "allowed_sessions": operator.and_,
    "allow_short": operator.and_,
    "duplicate_guard": operator.or_,
    "max_slippage_pct": min,
}
# Where the account says nothing of these, a strategy meets the account's default: its own value can
# only be tighter (SPEC K9). Prices and the buffer go with the offsets, which are a strategy's own.
_ACCOUNT_OPENS: Final = tuple(
    key
    for key in _TIGHTER
    if key not in ("max_slippage_pct", "buying_power_buffer_pct")
    and getattr(_DEFAULTS, key) is not None
)
SETS: Final = frozenset(
    {"allowed_order_types", "allowed_symbols", "blocked_symbols", "allowed_sessions"}
)
_YES_OR_NO: Final = frozenset(
    key for key in KEYS if isinstance(RiskLimits._meta.get_field(key), BooleanField)
)
ACCOUNT_ONLY: Final = frozenset(
    {
        "reconcile_mode",
        "auto_correct_max_value",
        "auto_correct_max_qty",
        "drift_alert_value",
        "dependents_activation",
        "loosening_needs_approval",
        *(key for key in KEYS if key.startswith("breaker_")),
    }
)


def standing(rows: Iterable[RiskLimits], moment: datetime) -> list[RiskLimits]:
    """The versions that hold at a moment, as the database's own clock would choose them."""
    return [
        row
        for row in rows
        if row.status == RiskLimits.Status.APPROVED
        and row.starts_at <= moment
        and (row.ends_at is None or row.ends_at > moment)
    ]


def own(rows: Iterable[RiskLimits], strategy_id: int | None) -> dict[str, Any]:
    """What an owner has set itself (the account: None), of versions that hold. A key that it left
    empty, or emptied again, is not in it."""
    values: dict[str, Any] = {}
    for row in sorted(rows, key=_rank):
        if row.strategy_id == strategy_id:
            values |= {key: value_of(row, key) for key in row.changed}
    return {key: value for key, value in values.items() if value is not None}


def resolve(account: Mapping[str, Any], strategy: Mapping[str, Any] | None = None) -> Limits:
    """What holds, of the account's own values and a strategy's."""
    values = {key: getattr(_DEFAULTS, key) for key in _ACCOUNT_OPENS} | dict(account)
    if "max_orders_per_minute" in account:
        values["account_orders_per_minute"] = account["max_orders_per_minute"]
    for key, value in (strategy or {}).items():
        if key not in ACCOUNT_ONLY:
            tighter = _TIGHTER.get(key) if key in values else None
            values[key] = tighter(values[key], value) if tighter else value
    return Limits(**values)


def spent(rows: Iterable[RiskLimits], now: datetime) -> list[RiskLimits]:
    """Versions in use that can never matter again: their end is past, or versions without an end
    that hold already have changed every one of their keys since."""
    rows = list(rows)
    settled: dict[tuple[int | None, str], tuple[datetime, int]] = {}
    for row in standing(rows, now):
        if row.ends_at is None:
            for key in row.changed:
                known = settled.get((row.strategy_id, key), _rank(row))
                settled[row.strategy_id, key] = max(known, _rank(row))
    return [row for row in rows if _is_over(row, now) or _is_replaced(row, settled)]


def _is_over(row: RiskLimits, now: datetime) -> bool:
    # While a change waits, an end that was given as a length has not begun to count.
    waits = row.status == RiskLimits.Status.PROPOSED and row.lasts is not None
    return row.ends_at is not None and row.ends_at <= now and not waits


def _is_replaced(
    row: RiskLimits, settled: Mapping[tuple[int | None, str], tuple[datetime, int]]
) -> bool:
    return row.status == RiskLimits.Status.APPROVED and all(
        settled.get((row.strategy_id, key), _rank(row)) > _rank(row) for key in row.changed
    )


def _rank(row: RiskLimits) -> tuple[datetime, int]:
    return row.starts_at, row.version


def value_of(row: RiskLimits, key: str) -> Any:
    """What a version sets a key to; None where it empties it."""
    value = getattr(row, key)
    if value in (None, ""):
        return None
    return frozenset(value.split(",")) if key in SETS else value


def as_text(value: Any) -> str:
    """A value as it can be given again; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Decimal):
        return plain(value)
    return ",".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def from_text(key: str, text: str) -> Any:
    """The value that a text gives, not yet checked; None where it empties the key."""
    text = text.strip()
    if key in _YES_OR_NO:
        return {"yes": True, "no": False}.get(text, text or None)
    return text or None
