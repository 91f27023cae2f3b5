"""The kill switch over HTTP: parses, calls one function, answers. Holds no rule. There is no way to
resume here: a person resumes, in the console."""

from typing import Annotated, Any

from ninja import Router, Schema
from pydantic import StrictBool, StringConstraints

from orders.halting import halt
from orders.lifecycle import Source
from orders.schemas import CancelledOut, results_out
from orders.state_api import ReasonOut, reasons_out
from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.http import Body, moment

router = Router(tags=["risk"])


class HaltIn(Body):
    """Why, and what else is to be done beside halting."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    cancel_open_orders: StrictBool = True
    suspend_at_broker: StrictBool = False


class HaltedOut(Schema):
    """The account is halted, whatever else could not be confirmed. `results` is how each order
    ended, as cancel-all tells it; `unconfirmed` says in sentences what is not certain;
    `suspended_at_broker` is null where that was not asked for or could not be read."""

    trading_state: str
    breaker: str
    reasons: list[ReasonOut]
    until: str | None
    results: list[CancelledOut]
    confirmed: bool
    unconfirmed: list[str]
    suspended_at_broker: bool | None


@router.post(
    "/risk/halt",
    auth=Scope("operate"),
    response=HaltedOut,
    summary="Halt the account and cancel its open orders; only a person resumes, in the console",
)
def post_halt(request: TokenRequest, body: HaltIn) -> dict[str, Any]:
    strategy = strategy_of(request)
    done = halt(
        strategy.account,
        reason=body.reason,
        actor=f"strategy {strategy.name}",
        cancel_open_orders=body.cancel_open_orders,
        suspend_at_broker=body.suspend_at_broker,
        source=Source.API,
    )
    return {
        "trading_state": done.state.state,
        "breaker": done.state.breaker,
        "reasons": reasons_out(done.state.reasons),
        "until": moment(done.state.until),
        "results": results_out(done.outcomes),
        "confirmed": done.confirmed,
        "unconfirmed": done.unconfirmed,
        "suspended_at_broker": done.suspended_at_broker,
    }
