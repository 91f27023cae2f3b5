"""Risk limits over HTTP: parses, calls one function, answers. Holds no rule."""

from typing import Any

from ninja import Router, Schema

from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from risk.limit_values import KEYS, as_text
from risk.limits import in_force

router = Router(tags=["risk"])


class LimitsOut(Schema):
    """The values in force for this token's strategy: counts, shares, dollars, seconds, per cent or
    basis points. Null: no limit; a list that is null allows everything."""

    max_positions: str
    max_position_pct: str
    max_exposure_pct: str
    max_net_exposure_pct: str | None
    max_sector_pct: str
    buying_power_buffer_pct: str
    max_order_qty: str | None
    max_order_notional: str | None
    max_orders_per_minute: str
    allowed_order_types: list[str]
    allowed_symbols: list[str] | None
    blocked_symbols: list[str]
    allowed_sessions: list[str]
    allow_short: bool
    duplicate_guard: bool
    breaker_error_rate_pct: str
    breaker_window_seconds: str
    breaker_min_orders: str
    breaker_consecutive_failures: str
    breaker_equity_drop_pct: str
    breaker_min_buying_power: str
    breaker_cooldown_seconds: str
    offset_mode: str
    buy_offset: str
    sell_offset: str
    max_slippage_pct: str
    loosening_needs_approval: bool
    dependents_activation: str
    reconcile_mode: str
    auto_correct_max_value: str
    auto_correct_max_qty: str
    drift_alert_value: str


@router.get("/risk/limits", auth=Scope("read"), response=LimitsOut, summary="Limits in force")
def get_limits(request: TokenRequest) -> dict[str, Any]:
    strategy = strategy_of(request)
    limits = in_force(strategy.account_id, strategy.pk)
    return {key: _shown(getattr(limits, key)) for key in KEYS}


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    return sorted(value) if isinstance(value, frozenset) else as_text(value)
