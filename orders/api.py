"""Orders over HTTP: parses, calls one function, answers. Holds no rule."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from ninja import Path, Query, Router, Status

from orders import statuses
from orders.cancel_all import cancel_all
from orders.cancelling import cancel
from orders.errors import OrderError
from orders.lifecycle import Origin, Source
from orders.models import BoundClientOrderId, Order
from orders.preview import preview
from orders.replacing import Change, replace
from orders.schemas import (
    PLAIN,
    CancelAllIn,
    CancelledAllOut,
    ConflictOut,
    FillOut,
    OrderIn,
    OrderOut,
    OrderPage,
    PreviewOut,
    RefusedOut,
    ReplaceIn,
    StepOut,
    order_out,
    preview_out,
    read_dependents,
    results_out,
)
from orders.submission import Submitted, submit
from ordinis.accounts.auth import Scope, TokenRequest, may_operate, strategy_of
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.http import (
    Problem,
    ProblemOut,
    decode_cursor,
    encode_cursor,
    moment,
)
from ordinis.logging import correlation_id
from ordinis.numbers import dollars, plain

router = Router(tags=["orders"])


_SENDING = {
    200: OrderOut,
    201: OrderOut,
    202: OrderOut,
    409: ConflictOut,
    422: RefusedOut,
    429: ProblemOut,
    501: ProblemOut,
}
_DUPLICATE: dict[str, Any] = {
    "headers": {
        "Ordinis-Duplicate": {
            "description": "An open order of the same content stood already: this is it.",
            "schema": {"const": "true"},
        }
    }
}
_SENDING_EXTRA = {"responses": {200: _DUPLICATE, 202: _DUPLICATE}}


@router.post(
    "",
    auth=Scope("trade"),
    response=_SENDING,
    openapi_extra=_SENDING_EXTRA,
    summary="Send an order",
)
def post_order(
    request: TokenRequest, body: OrderIn, response: HttpResponse
) -> Status[dict[str, Any]]:
    strategy = strategy_of(request)
    with _place(), _problems():
        result = submit(
            strategy, body.parsed(), actor=_actor(request), correlation_id=correlation_id.get()
        )
    return _sent(result, response)


@router.post(
    "/preview",
    auth=Scope("read"),
    response={200: PreviewOut, 422: RefusedOut, 501: ProblemOut, 503: ProblemOut},
    summary="What an order would bring about; nothing is stored or sent",
)
def post_preview(request: TokenRequest, body: OrderIn) -> dict[str, Any]:
    with _place(), _problems():
        return preview_out(preview(strategy_of(request), body.parsed()))


@router.post(
    "/cancel-all",
    auth=Scope("operate"),
    response=CancelledAllOut,
    summary="Cancel every open order of the account, also those placed elsewhere",
)
def post_cancel_all(request: TokenRequest, body: CancelAllIn) -> dict[str, Any]:
    origin = Origin(Source.API, _actor(request), f"All are cancelled: {body.reason}")
    with _problems():
        outcomes = cancel_all(strategy_of(request).account, origin, symbol=body.symbol or "")
    return {"results": results_out(outcomes)}


@router.post(
    "/{uuid:order_id}/cancel",
    auth=Scope("trade"),
    response={200: OrderOut, 202: OrderOut, 404: ProblemOut},
    summary="Cancel an order: on its way, it may still fill",
)
def post_cancel(request: TokenRequest, order_id: UUID) -> Status[dict[str, Any]]:
    standing = _one(request, pk=order_id)
    if standing.is_open:
        with _problems():
            cancel(standing, Origin(Source.API, _actor(request), "Its cancel was asked for."))
        standing = _one(request, pk=order_id)
    return Status(202 if standing.status in statuses.UNPROVED else 200, order_out(standing))


@router.post(
    "/{uuid:order_id}/replace",
    auth=Scope("trade"),
    response={**_SENDING, 404: ProblemOut},
    summary="Replace an order's quantity or limit price",
)
def post_replace(
    request: TokenRequest, order_id: UUID, body: ReplaceIn, response: HttpResponse
) -> Status[dict[str, Any]]:
    old = _one(request, pk=order_id)
    with _place(), _problems():
        result = replace(
            old.strategy,
            order_id,
            Change(**body.model_dump()),
            actor=_actor(request),
            correlation_id=correlation_id.get(),
        )
    return _sent(result, response)


def _actor(request: TokenRequest) -> str:
    return f"strategy {strategy_of(request).name}"


# What is not 422.
_STATUS = {
    "client_order_id_reused": 409,
    "open_order_exists": 409,
    "order_type_not_enabled": 501,
    "rate_limited": 429,
    "broker_unavailable": 503,
    "broker_refused": 503,
}


# Orders that wait for the broker may not take every thread of this process: sixteen are there at
# once, twelve more stand in line, and with the long polls (orders.events) some threads are left, so
# that a cancel of all is always heard.
_in_line = threading.BoundedSemaphore(28)
_at_the_broker = threading.BoundedSemaphore(16)


@contextmanager
def _place() -> Iterator[None]:
    busy = Problem(
        503,
        "busy",
        "Too many orders wait for the broker here; nothing was done. Send the same again.",
        headers={"Retry-After": "1"},
    )
    if not _in_line.acquire(blocking=False):
        raise busy
    try:
        if not _at_the_broker.acquire(timeout=settings.BROKER_TIMEOUT):
            raise busy
        try:
            yield
        finally:
            _at_the_broker.release()
    finally:
        _in_line.release()


@contextmanager
def _problems() -> Iterator[None]:
    """Every way in which an order is not taken, as its problem."""
    try:
        yield
    except OrderError as error:
        standing = getattr(error, "order", None)
        own = {} if standing is None else {"order": order_out(standing)}
        waits = getattr(error, "retry_after", None)
        raise Problem(
            _STATUS.get(error.code, 422),
            error.code,
            str(error),
            headers={} if waits is None else {"Retry-After": str(waits)},
            **own,
        ) from error
    except (BrokerUnavailable, BrokerRefused) as error:
        raise Problem(
            503,
            "broker_unavailable",
            f"Fresh broker data could not be had, so nothing was sent: {error.message} Try again.",
            headers={"Retry-After": "2"},
        ) from error


def _sent(result: Submitted, response: HttpResponse) -> Status[dict[str, Any]]:
    """API.md's answer to an order or a replacement, by what became of it."""
    order = result.order
    undecided = order.status in statuses.UNPROVED
    if result.duplicate:
        response["Ordinis-Duplicate"] = "true"
    if result.repeated or result.duplicate or undecided:
        return Status(202 if undecided else 200, order_out(order))
    if order.status == statuses.DENIED:
        raise Problem(
            422,
            "order_denied",
            " ".join(violation["message"] for violation in order.violations),
            violations=order.violations,
            order=order_out(order),
        )
    if order.status == statuses.REJECTED:
        refused = order.rejection or {}
        raise Problem(
            422,
            "broker_rejected",
            f"The broker refused the order: {refused.get('message', 'no reason given')}",
            broker_code=refused.get("code", ""),
            broker_message=refused.get("message", ""),
            order=order_out(order),
        )
    return Status(201, order_out(order))


@router.get("", auth=Scope("read"), response=OrderPage, summary="List orders, newest first")
def list_orders(
    request: TokenRequest,
    status: Literal["open", "closed", "all"] = "all",
    symbol: Annotated[str | None, Query(pattern=PLAIN)] = None,
    strategy: Annotated[str | None, Query(pattern=PLAIN)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    rows = _visible(request)
    if status != "all":
        closed = Q(status__in=sorted(statuses.CLOSED))
        rows = rows.filter(closed if status == "closed" else ~closed)
    if symbol:
        rows = rows.filter(symbol=symbol.upper())
    if strategy:
        rows = rows.filter(strategy__name=strategy)
    if cursor:
        created_at, key = decode_cursor(cursor)
        try:
            before = Q(created_at=created_at, id__lt=UUID(key))
        except ValueError as error:
            raise Problem(422, "invalid_cursor", "Pass back `next` unchanged.") from error
        rows = rows.filter(Q(created_at__lt=created_at) | before)
    page = list(rows.order_by("-created_at", "-id")[: limit + 1])
    more = len(page) > limit
    page = page[:limit]
    read_dependents(page)
    return {
        "items": [order_out(order) for order in page],
        "next": encode_cursor(page[-1].created_at, page[-1].pk) if more else None,
    }


@router.get(
    "/by-client-id/{client_order_id}",
    auth=Scope("read"),
    response={200: OrderOut, 404: ProblemOut},
    summary="One order by its client order id",
)
def get_order_by_client_id(
    request: TokenRequest, client_order_id: Annotated[str, Path(pattern=PLAIN)]
) -> dict[str, Any]:
    account_id = strategy_of(request).account_id
    bound = BoundClientOrderId.objects.filter(
        account_id=account_id, client_order_id=client_order_id
    ).first()
    key = {"pk": bound.order_id} if bound else {"client_order_id": client_order_id}
    return order_out(_one(request, **key))


@router.get(
    "/{uuid:order_id}",
    auth=Scope("read"),
    response={200: OrderOut, 404: ProblemOut},
    summary="One order",
)
def get_order(request: TokenRequest, order_id: UUID) -> dict[str, Any]:
    return order_out(_one(request, pk=order_id))


@router.get(
    "/{uuid:order_id}/history",
    auth=Scope("read"),
    response={200: list[StepOut], 404: ProblemOut},
    by_alias=True,
    summary="Every step of an order, oldest first",
)
def get_history(request: TokenRequest, order_id: UUID) -> list[dict[str, Any]]:
    return [
        {
            "seq": row.seq,
            "from_": row.from_status or None,
            "to": row.to_status,
            "occurred_at": moment(row.occurred_at),
            "received_at": moment(row.received_at),
            "source": row.source,
            "actor": row.actor,
            "reason": row.reason,
            "report": row.report,
        }
        for row in _one(request, pk=order_id).history.order_by("seq")
    ]


@router.get(
    "/{uuid:order_id}/fills",
    auth=Scope("read"),
    response={200: list[FillOut], 404: ProblemOut},
    summary="An order's fills",
)
def get_fills(request: TokenRequest, order_id: UUID) -> list[dict[str, Any]]:
    return [
        {
            "execution_id": fill.execution_id,
            "qty": plain(fill.qty),
            "price": dollars(fill.price),
            "occurred_at": moment(fill.occurred_at),
            "inferred": fill.inferred,
        }
        for fill in _one(request, pk=order_id).fills.all()
    ]


def _visible(request: TokenRequest) -> QuerySet[Order]:
    """A token sees its strategy's orders; with `operate`, the account's."""
    strategy = strategy_of(request)
    rows = Order.objects.select_related("account", "strategy")
    if may_operate(request):
        return rows.filter(account_id=strategy.account_id)
    return rows.filter(strategy=strategy)


def _one(request: TokenRequest, **key: Any) -> Order:
    order = _visible(request).filter(**key).first()
    if order is None:
        raise Problem(404, "order_not_found", "This token's strategy has no such order.")
    return order
