"""The trading state over HTTP: parses, calls one function, answers. Holds no rule."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from ninja import Router, Schema

from orders.outcomes import distances_of
from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.http import moment
from ordinis.numbers import plain
from risk import trading
from risk.models import TradingChange
from risk.states import Reason

router = Router(tags=["risk"])


class ReasonOut(Schema):
    """Why the state is not active; figures where it is a matter of figures."""

    code: str
    state: str
    message: str
    limit: str | None
    actual: str | None


class DistanceOut(Schema):
    """One trigger of the breaker: its value now and its threshold."""

    code: str
    actual: str | None
    limit: str
    unit: str
    reached: bool


class StateOut(Schema):
    """What the account's orders may do now; `since` is the last change of state or breaker, `until`
    when it may change by itself."""

    trading_state: str
    breaker: str
    reasons: list[ReasonOut]
    since: str | None
    until: str | None
    distances: list[DistanceOut]


@router.get("/risk/state", auth=Scope("read"), response=StateOut, summary="Trading state")
def get_state(request: TokenRequest) -> dict[str, Any]:
    account_id = strategy_of(request).account_id
    state = trading.current(account_id)
    last = TradingChange.objects.filter(account_id=account_id).first()
    return {
        "trading_state": state.state,
        "breaker": state.breaker,
        "reasons": reasons_out(state.reasons),
        "since": moment(last.at if last else None),
        "until": moment(state.until),
        "distances": [
            {
                "code": distance.code,
                "actual": _number(distance.actual),
                "limit": _number(distance.limit),
                "unit": distance.unit,
                "reached": distance.reached,
            }
            for distance in distances_of(account_id)
        ],
    }


def reasons_out(reasons: Iterable[Reason]) -> list[dict[str, str | None]]:
    return [
        {
            "code": reason.code,
            "state": reason.state,
            "message": reason.message,
            "limit": _number(reason.limit),
            "actual": _number(reason.actual),
        }
        for reason in reasons
    ]


def _number(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)
