"""How the console writes risk limits: names, units, bounds and values. Values in, text out."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, cast

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import Field
from django.utils.text import capfirst

from ordinis.console import text
from risk.limit_values import SETS, from_text
from risk.models import RiskLimits

# The form's groups: every key once, in this order.
GROUPS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (
        "Positions and exposure",
        (
            *("max_positions", "max_position_pct", "max_exposure_pct", "max_net_exposure_pct"),
            *("max_sector_pct", "buying_power_buffer_pct"),
        ),
    ),
    (
        "Orders",
        (
            *("max_order_qty", "max_order_notional", "max_orders_per_minute"),
            *("allowed_order_types", "allow_short", "duplicate_guard", "dependents_activation"),
        ),
    ),
    ("Symbols and sessions", ("allowed_symbols", "blocked_symbols", "allowed_sessions")),
    (
        "Circuit breaker",
        (
            *("breaker_error_rate_pct", "breaker_window_seconds", "breaker_min_orders"),
            *("breaker_consecutive_failures", "breaker_equity_drop_pct"),
            *("breaker_min_buying_power", "breaker_cooldown_seconds"),
        ),
    ),
    ("Prices", ("offset_mode", "buy_offset", "sell_offset", "max_slippage_pct")),
    (
        "Reconciliation",
        (
            "reconcile_mode",
            "auto_correct_max_value",
            "auto_correct_max_qty",
            "drift_alert_value",
        ),
    ),
    ("Second person", ("loosening_needs_approval",)),
)
_OFFSETS: Final = ("buy_offset", "sell_offset")
_DOLLARS: Final = (
    *("max_order_notional", "breaker_min_buying_power"),
    *("auto_correct_max_value", "drift_alert_value"),
)
_UNITS: Final = {
    "max_order_qty": "shares",
    "auto_correct_max_qty": "shares",
    "max_orders_per_minute": "a minute",
}


def label(key: str) -> str:
    """A limit's name in words; its unit stands with its value."""
    return capfirst(str(column(key).verbose_name).removesuffix(" pct").removesuffix(" seconds"))


def unit(key: str, offset_mode: str = "") -> str:
    """What a limit is measured in."""
    if key in _OFFSETS:
        return {"": "", "bps": "bps"}.get(offset_mode, "$")
    if key in _DOLLARS:
        return "$"
    if key.endswith("_pct"):
        return "%"
    return "s" if key.endswith("_seconds") else _UNITS.get(key, "")


def bounds(key: str) -> str:
    """Between what a limit may be set: "0 to 600"; empty where it is not a figure."""
    found: Sequence[Any] = column(key).validators
    most = [each.limit_value for each in found if isinstance(each, MaxValueValidator)]
    least = [each.limit_value for each in found if isinstance(each, MinValueValidator)]
    if not least:
        return ""
    if 0 < max(least) < 1:
        return "more than 0"
    low = text.shares(Decimal(max(least)))
    # A database column has a bound of its own, too large to be told.
    return f"{low} to {text.shares(Decimal(min(most)))}" if most else f"{low} or more"


def shown(key: str, value: Any, offset_mode: str = "", *, nothing: str = "not set") -> str:
    """A limit's value in words, with its unit."""
    if value is None or value == "":
        return nothing
    if choices := dict(column(key).flatchoices):
        return str(choices.get(value, value))
    if key in SETS:
        names = value.split(",") if isinstance(value, str) else value
        return ", ".join(sorted(names)) or "none"
    measure = unit(key, offset_mode)
    if measure == "$":
        return text.price(Decimal(value))
    return f"{text.shares(Decimal(value))} {measure}".strip()


def stored(key: str, value: str) -> str:
    """A value of the history, which is kept as text."""
    return shown(key, from_text(key, value))


def differences(row: RiskLimits) -> list[tuple[str, str, str]]:
    """Name, value before and value after, of what a version changes."""
    return [
        (label(key), stored(key, row.before.get(key, "")), shown(key, getattr(row, key)))
        for key in row.changed
    ]


def window(row: RiskLimits, now: datetime) -> str:
    """From when a version holds, and until when."""
    starts = text.moment(row.starts_at, now=now)
    waits = row.status == RiskLimits.Status.PROPOSED
    if waits and row.starts_at <= now:
        starts = "its approval"
    if row.ends_at is None:
        return f"from {starts} on"
    if waits and row.lasts is not None:
        return f"from {starts}, for {text.age(row.lasts)}"
    return f"from {starts} until {text.moment(row.ends_at, now=now)}"


def column(key: str) -> "Field[Any, Any]":
    """Where a limit is stored."""
    return cast("Field[Any, Any]", RiskLimits._meta.get_field(key))
