"""The HTTP API for strategies: puts the apps' routers together and turns every error into
problem+json. Never lets a stack trace or a secret out."""

import logging
from decimal import Decimal
from typing import Any

from django.db import DataError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from ninja import Router, Schema
from ninja.errors import HttpError, ValidationError

from orders.api import router as orders
from orders.events_api import router as events
from orders.halt_api import router as halting
from orders.judgement import reserved
from orders.state_api import router as states
from orders.sync import refresh
from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.http import Problem, ProblemOut, moment
from ordinis.numbers import dollars
from ordinis.openapi import DocumentedAPI
from positions.api import router as positions
from reconciliation.api import router as reconciliation
from risk import trading
from risk.api import router as risk

log = logging.getLogger("ordinis.api")

api = DocumentedAPI(
    title="Ordinis",
    version="1",
    description="Orders, positions and reconciliation. Quantities and prices are strings.",
    urls_namespace="api",
)
account_router = Router(tags=["account"])


class AccountOut(Schema):
    """The broker's figures as of `as_of`, in dollars; `reserved` is what our orders commit
    beyond them."""

    account: str
    mode: str
    equity: str
    cash: str
    buying_power: str
    reserved: str
    available_buying_power: str
    trading_state: str
    as_of: str


@account_router.get(
    "/account",
    auth=Scope("read"),
    response={200: AccountOut, 503: ProblemOut},
    summary="The account's figures; `fresh=true` asks the broker",
)
def get_account(request: TokenRequest, fresh: bool = False) -> dict[str, Any]:
    account = strategy_of(request).account
    if fresh or account.as_of is None:
        try:
            refresh(account)
        except (BrokerUnavailable, BrokerRefused) as error:
            raise Problem(
                503, "broker_unavailable", f"The broker could not be asked: {error.message}"
            ) from error
        account.refresh_from_db()
    figures = (account.equity, account.cash, account.buying_power, account.as_of)
    equity, cash, buying_power, as_of = figures
    assert equity is not None and cash is not None  # noqa: PT018
    assert buying_power is not None and as_of is not None  # noqa: PT018
    held = reserved(account.pk, as_of)
    return {
        "account": account.name,
        "mode": account.mode,
        "equity": dollars(equity),
        "cash": dollars(cash),
        "buying_power": dollars(buying_power),
        "reserved": dollars(held),
        "available_buying_power": dollars(max(buying_power - held, Decimal(0))),
        "trading_state": trading.current(account.pk).state,
        "as_of": moment(as_of),
    }


api.add_router("", account_router)
api.add_router("/orders", orders)
api.add_router("", events)
api.add_router("", positions)
api.add_router("", risk)
api.add_router("", states)
api.add_router("", halting)
api.add_router("/reconciliation", reconciliation)


def _answer(problem: Problem) -> HttpResponse:
    return JsonResponse(
        problem.body(),
        status=problem.status,
        headers=problem.headers,
        content_type="application/problem+json",
    )


@csrf_exempt
def no_such_address(request: HttpRequest) -> HttpResponse:
    """What no address above has taken, by any method."""
    detail = f"There is no {request.method} {request.path}. /api/v1/docs lists every address."
    return _answer(Problem(404, "address_not_found", detail))


@api.exception_handler(Problem)
def _problem(request: HttpRequest, error: Problem) -> HttpResponse:
    return _answer(error)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [
        {
            "field": ".".join(str(part) for part in item["loc"][1:] if part != "body"),
            "message": str(item["msg"]).removeprefix("Value error, "),
        }
        for item in error.errors
    ]
    detail = "; ".join(
        f"{item['field']}: {item['message']}" if item["field"] else item["message"]
        for item in errors
    )
    return _answer(Problem(422, "invalid_request", detail, errors=errors))


@api.exception_handler(HttpError)
def _http(request: HttpRequest, error: HttpError) -> HttpResponse:
    code = "malformed_json" if error.status_code == 400 else "http_error"
    return _answer(Problem(error.status_code, code, str(error)))


@api.exception_handler(OperationalError)
def _database(request: HttpRequest, error: OperationalError) -> HttpResponse:
    log.exception("database unavailable")
    return _answer(
        Problem(
            503,
            "database_unavailable",
            "The database did not answer in time. Ask for the order by its client_order_id "
            "before you send it again.",
            headers={"Retry-After": "2"},
        )
    )


@api.exception_handler(DataError)
def _unstorable(request: HttpRequest, error: DataError) -> HttpResponse:
    return _answer(Problem(422, "invalid_request", "A value can't be stored or looked for."))


@api.exception_handler(Exception)
def _unexpected(request: HttpRequest, error: Exception) -> HttpResponse:
    log.exception("unexpected error")
    return _answer(
        Problem(
            500,
            "internal_error",
            "Something went wrong here. Ask for the order by its client_order_id before you send "
            "it again; the correlation id is in X-Request-ID.",
        )
    )
