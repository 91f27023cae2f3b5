"""Which changes loosen a limit: those that let through what was stopped before, or let the breaker
trip later (SPEC K9). Pure. Where an account asks for it, a second person agrees to them first.
"""

from collections.abc import Callable
from typing import Any, Final

from risk.limit_values import KEYS, Limits
from risk.models import RiskLimits

_OFF: Final = RiskLimits.ReconcileMode.OFF
_AUTOMATIC: Final = RiskLimits.ReconcileMode.AUTOMATIC


def _higher(before: Any, after: Any) -> bool:
    """None is no limit at all."""
    return before is not None and (after is None or after > before)


def _lower(before: Any, after: Any) -> bool:
    return bool(after < before)


def _more(before: frozenset[str], after: frozenset[str]) -> bool:
    return bool(after - before)


def _fewer(before: frozenset[str], after: frozenset[str]) -> bool:
    return bool(before - after)


def _more_symbols(before: frozenset[str] | None, after: frozenset[str] | None) -> bool:
    """None is every symbol."""
    return before is not None and (after is None or _more(before, after))


def _on(before: bool, after: bool) -> bool:
    return after and not before


def _off(before: bool, after: bool) -> bool:
    return before and not after


def _differs(before: Any, after: Any) -> bool:
    return bool(before != after)


def _less_watched(before: str, after: str) -> bool:
    """Off sees nothing; automatic changes the book without a person."""
    return before != after and after in (_OFF, _AUTOMATIC)


LOOSENS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "max_positions": _higher,
    "max_position_pct": _higher,
    "max_exposure_pct": _higher,
    "max_net_exposure_pct": _higher,
    "max_sector_pct": _higher,
    "buying_power_buffer_pct": _lower,
    "max_order_qty": _higher,
    "max_order_notional": _higher,
    "max_orders_per_minute": _higher,
    "allowed_order_types": _more,
    "allowed_symbols": _more_symbols,
    "blocked_symbols": _fewer,
    "allowed_sessions": _more,
    "allow_short": _on,
    "duplicate_guard": _off,
    "breaker_error_rate_pct": _higher,
    # Longer dilutes a burst of failures, shorter forgets them and reaches the least number later.
    "breaker_window_seconds": _differs,
    "breaker_min_orders": _higher,
    "breaker_consecutive_failures": _higher,
    "breaker_equity_drop_pct": _higher,
    "breaker_min_buying_power": _lower,
    "breaker_cooldown_seconds": _lower,
    "max_slippage_pct": _higher,
    "loosening_needs_approval": _off,
    "reconcile_mode": _less_watched,
    "auto_correct_max_value": _higher,
    "auto_correct_max_qty": _higher,
    "drift_alert_value": _higher,
}
# What is a way to trade and no limit: neither side of it is the looser one.
NEITHER: Final = frozenset({"offset_mode", "buy_offset", "sell_offset", "dependents_activation"})


def loosened(before: Limits, after: Limits) -> list[str]:
    """The keys of which `after` lets through more than `before`."""
    return [
        key
        for key in KEYS
        if key in LOOSENS and LOOSENS[key](getattr(before, key), getattr(after, key))
    ]
