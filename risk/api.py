"""Risk limits over HTTP: parses, calls one function, answers. Holds no rule."""

from dataclasses import asdict
from decimal import Decimal
from typing import Any

from ninja import Router, Schema

from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.numbers import plain
from risk.limits import in_force

router = Router(tags=["risk"])


class LimitsOut(Schema):
    """The values in force for this token's strategy: per cent, basis points or dollars."""

    buying_power_buffer_pct: str
    allowed_order_types: list[str]
    duplicate_guard: bool
    offset_mode: str
    buy_offset: str
    sell_offset: str
    max_slippage_pct: str
    dependents_activation: str
    reconcile_mode: str


@router.get("/risk/limits", auth=Scope("read"), response=LimitsOut, summary="Limits in force")
def get_limits(request: TokenRequest) -> dict[str, Any]:
    strategy = strategy_of(request)
    limits = in_force(strategy.account_id, strategy.pk)
    return {key: _shown(value) for key, value in asdict(limits).items()}


def _shown(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    return sorted(value) if isinstance(value, frozenset) else value
