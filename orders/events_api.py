"""The event feed over HTTP: parses, calls one function, answers. Holds no rule."""

from typing import Annotated, Any, Literal
from uuid import UUID

from ninja import Field, Query, Router, Schema

from orders import events
from orders.models import Event
from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.http import moment
from ordinis.numbers import dollars, plain

router = Router(tags=["events"])


class EventOut(Schema):
    """One step of one order. `status`, `filled_qty` and `average_fill_price` are the order's once
    it had happened; `from` and `to` belong to transitions; `execution_id` (null: not known yet),
    `qty` and `price` to fills. What does not belong is null."""

    seq: int
    kind: Literal["transition", "fill"]
    order: UUID
    client_order_id: str
    status: str
    from_: str | None = Field(serialization_alias="from")
    to: str | None
    filled_qty: str
    average_fill_price: str | None
    execution_id: str | None
    qty: str | None
    price: str | None
    occurred_at: str
    received_at: str


class EventPage(Schema):
    """`next` is the `after` of the following call."""

    events: list[EventOut]
    next: int


@router.get(
    "/events",
    auth=Scope("read"),
    response=EventPage,
    by_alias=True,
    summary="What happened to this strategy's orders; with `wait`, as soon as something does",
)
def get_events(
    request: TokenRequest,
    after: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    wait: Annotated[float, Query(ge=0, le=30)] = 0,
) -> dict[str, Any]:
    found = events.wait(strategy_of(request).pk, after, seconds=wait)
    return {
        "events": [_event_out(event) for event in found],
        "next": found[-1].seq if found else after,
    }


def _event_out(event: Event) -> dict[str, Any]:
    moved = event.kind == Event.Kind.TRANSITION
    return {
        "seq": event.seq,
        "kind": event.kind,
        "order": event.order_id,
        "client_order_id": event.client_order_id,  # type: ignore[attr-defined]
        "status": event.status,
        "from_": event.from_status or None,
        "to": event.status if moved else None,
        "filled_qty": plain(event.filled_qty),
        "average_fill_price": dollars(event.average_fill_price),
        "execution_id": event.execution_id,
        "qty": None if event.qty is None else plain(event.qty),
        "price": dollars(event.price),
        "occurred_at": moment(event.occurred_at),
        "received_at": moment(event.received_at),
    }
