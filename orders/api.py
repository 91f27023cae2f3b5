"""Orders over HTTP: parses, calls one function, answers. Holds no rule."""

from dataclasses import fields
from typing import Annotated, Any, Literal
from uuid import UUID

from django.db.models import Q, QuerySet
from ninja import Field, Path, Query, Router, Schema, Status
from pydantic import StringConstraints, model_validator

from orders import pricing, statuses
from orders.models import Order
from orders.submission import ClientOrderIdReused, NewOrder, OrderTypeNotEnabled, submit
from ordinis.accounts.auth import Scope, TokenRequest, may_operate, strategy_of
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.http import (
    Amount,
    Body,
    Problem,
    ProblemOut,
    decode_cursor,
    encode_cursor,
    moment,
)
from ordinis.logging import correlation_id
from ordinis.numbers import dollars, plain

router = Router(tags=["orders"])
_PLAIN = r"^[A-Za-z0-9._:-]{1,64}$"

ClientOrderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,48}$")]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]{0,9}(\.[A-Z]{1,2})?$")]


class OrderIn(Body):
    """A new order. Give `limit_price`, or `reference_price` and let the offset make it."""

    client_order_id: ClientOrderId | None = None
    symbol: Symbol
    side: Literal["buy", "sell"]
    qty: Amount
    type: Literal["limit", "market", "stop", "stop_limit", "trailing_stop"] = "limit"
    reference_price: Amount | None = None
    limit_price: Amount | None = None
    time_in_force: Literal["day", "gtc"] = "day"
    extended_hours: bool = False
    # Of API.md, and only with the value that asks for nothing.
    stop_price: None = None
    take_profit: None = None
    stop_loss: None = None
    parent: None = None
    reduce_only: Literal[False] = False

    @model_validator(mode="after")
    def _has_a_price(self) -> "OrderIn":
        if self.type == "limit" and self.limit_price is None and self.reference_price is None:
            raise ValueError("give limit_price, or reference_price to have it made from")
        if self.qty % 1:
            raise ValueError("qty: only whole shares can be ordered")
        return self


class OrderOut(Schema):
    """An order. Quantities in shares and prices in dollars, both as strings."""

    id: UUID
    client_order_id: str
    broker_order_id: str | None
    account: str
    strategy: str
    mode: str
    symbol: str
    side: str
    qty: str
    type: str
    time_in_force: str
    extended_hours: bool
    reference_price: str | None
    limit_price: str | None
    stop_price: str | None
    status: str
    state: str
    is_open: bool
    filled_qty: str
    average_fill_price: str | None
    pending_qty: str
    parent: UUID | None
    dependents: list[UUID]
    denial: dict[str, Any] | None
    created_at: str
    submitted_at: str | None
    updated_at: str
    correlation_id: str


class OrderPage(Schema):
    items: list[OrderOut]
    next: str | None


class StepOut(Schema):
    """One row of an order's history."""

    seq: int
    from_: str | None = Field(serialization_alias="from")
    to: str
    occurred_at: str
    received_at: str
    source: str
    actor: str
    reason: str
    report: dict[str, Any] | None


class FillOut(Schema):
    execution_id: str | None
    qty: str
    price: str
    occurred_at: str
    inferred: bool


@router.post(
    "",
    auth=Scope("trade"),
    response={
        200: OrderOut,
        201: OrderOut,
        202: OrderOut,
        409: ProblemOut,
        422: ProblemOut,
        501: ProblemOut,
        503: ProblemOut,
    },
    summary="Send an order",
)
def post_order(request: TokenRequest, body: OrderIn) -> Status[dict[str, Any]]:
    new = NewOrder(**{field.name: getattr(body, field.name) for field in fields(NewOrder)})
    try:
        result = submit(
            strategy_of(request),
            new,
            actor=f"strategy {strategy_of(request).name}",
            correlation_id=correlation_id.get(),
        )
    except ClientOrderIdReused as error:
        own = {} if error.order is None else {"order": order_out(error.order)}
        raise Problem(409, "client_order_id_reused", str(error), **own) from error
    except OrderTypeNotEnabled as error:
        raise Problem(501, "order_type_not_enabled", str(error)) from error
    except pricing.Unpriceable as error:
        raise Problem(422, error.code, str(error)) from error
    except (BrokerUnavailable, BrokerRefused) as error:
        raise Problem(
            503,
            "broker_unavailable",
            f"Fresh broker data could not be had, so nothing was sent: {error.message} Try again.",
            headers={"Retry-After": "2"},
        ) from error
    order = result.order
    undecided = order.status in statuses.UNPROVED
    if result.repeated or undecided:
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
    symbol: Annotated[str | None, Query(pattern=_PLAIN)] = None,
    strategy: Annotated[str | None, Query(pattern=_PLAIN)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    rows = _visible(request)
    if status != "all":
        closed = Q(status__in=sorted(statuses.CLOSED))
        rows = rows.filter(closed if status == "closed" else ~closed)
    if symbol:
        rows = rows.filter(symbol=symbol)
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
    request: TokenRequest, client_order_id: Annotated[str, Path(pattern=_PLAIN)]
) -> dict[str, Any]:
    return order_out(_one(request, client_order_id=client_order_id))


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
    response=list[StepOut],
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
    response=list[FillOut],
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


def order_out(order: Order) -> dict[str, Any]:
    """The order of API.md."""
    denied = order.status == statuses.DENIED
    return {
        "id": str(order.pk),
        "client_order_id": order.client_order_id,
        "broker_order_id": order.broker_order_id,
        "account": order.account.name,
        "strategy": order.strategy.name,
        "mode": order.account.mode,
        "symbol": order.symbol,
        "side": order.side,
        "qty": plain(order.qty),
        "type": order.type,
        "time_in_force": order.time_in_force,
        "extended_hours": order.extended_hours,
        "reference_price": dollars(order.reference_price),
        "limit_price": dollars(order.limit_price),
        "stop_price": None,
        "status": order.status,
        "state": order.state,
        "is_open": order.is_open,
        "filled_qty": plain(order.filled_qty),
        "average_fill_price": dollars(order.average_fill_price),
        "pending_qty": plain(order.pending_qty),
        "parent": None,
        "dependents": [],
        "denial": {"violations": order.violations} if denied else None,
        "created_at": moment(order.created_at),
        "submitted_at": moment(order.submitted_at),
        "updated_at": moment(order.updated_at),
        "correlation_id": order.correlation_id,
    }


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
