"""What the orders API takes and gives, as API.md has it. Values only: no rule, no question."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

from django.db.models import Q
from ninja import Field, Schema
from pydantic import AfterValidator, StrictBool, StringConstraints, model_validator

from orders import statuses
from orders.cancel_all import Outcome
from orders.chains import NEVER_WERE
from orders.models import Order
from orders.preview import Preview
from orders.requests import Exit, NewOrder
from orders.submission import violations_out
from ordinis.http import Amount, Body, InvalidOut, ProblemOut, moment
from ordinis.numbers import dollars, plain

PLAIN = r"^[A-Za-z0-9._:-]{1,64}$"

ClientOrderId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,48}$")]


# As exact as it is kept: what is sent again is the same to the letter.
Percent = Annotated[Amount, Field(decimal_places=4)]


def _equity(value: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9]{0,9}(\.[A-Z]{1,2})?", value):
        raise ValueError(
            "only US equities are traded here, by their symbol (TSLA, BRK.B): no options, no crypto"
        )
    return value


Symbol = Annotated[str, AfterValidator(_equity)]


class TakeProfitIn(Body):
    """A limit order on the other side, sent when this one has filled."""

    limit_price: Amount
    time_in_force: Literal["day", "gtc"] | None = None


class StopLossIn(Body):
    """A stop order on the other side, or with `limit_price` a stop-limit."""

    stop_price: Amount
    limit_price: Amount | None = None
    time_in_force: Literal["day", "gtc"] | None = None


class OrderIn(Body):
    """A new order. A limit order gives `limit_price`, or `reference_price` and lets the offset
    make it."""

    client_order_id: ClientOrderId | None = None
    symbol: Symbol
    side: Literal["buy", "sell"]
    qty: Amount
    type: Literal["limit", "market", "stop", "stop_limit", "trailing_stop"] = "limit"
    reference_price: Amount | None = None
    limit_price: Amount | None = None
    stop_price: Amount | None = None
    trail_price: Amount | None = None
    trail_percent: Percent | None = None
    time_in_force: Literal["day", "gtc", "ioc", "fok", "opg", "cls"] | None = None
    extended_hours: StrictBool = False
    take_profit: TakeProfitIn | None = None
    stop_loss: StopLossIn | None = None
    parent: UUID | None = None
    # Cut to what is free of the position, if it is for more; denied where nothing is.
    reduce_only: StrictBool = False

    @model_validator(mode="after")
    def _is_one_order(self) -> "OrderIn":
        if self.parent is not None and (self.take_profit or self.stop_loss):
            raise ValueError("parent: a dependent order has no take_profit or stop_loss of its own")
        if self.reduce_only and (self.parent is not None or self.take_profit or self.stop_loss):
            raise ValueError("reduce_only: an order that only reduces has no exits and no parent")
        return self

    def parsed(self) -> NewOrder:
        """With all defaults filled in: a request that spells them out is the same request."""
        plain = self.model_dump(exclude={"take_profit", "stop_loss"})
        exits_for = "gtc" if self.qty % 1 == 0 else "day"  # the broker takes fractions for the day
        plain["time_in_force"] = self.time_in_force or (exits_for if self.parent else "day")
        return NewOrder(
            **plain,
            take_profit=_exit(self.take_profit, exits_for),
            stop_loss=_exit(self.stop_loss, exits_for),
        )


def _exit(wanted: TakeProfitIn | StopLossIn | None, time_in_force: str) -> Exit | None:
    if wanted is None:
        return None
    return Exit(**{**wanted.model_dump(), "time_in_force": wanted.time_in_force or time_in_force})


class ReplaceIn(Body):
    """What is to be different; `qty` is the new total, what has filled included."""

    client_order_id: ClientOrderId | None = None
    qty: Amount | None = None
    limit_price: Amount | None = None
    stop_price: Amount | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> "ReplaceIn":
        if self.qty is None and self.limit_price is None and self.stop_price is None:
            raise ValueError("give qty, limit_price or stop_price")
        return self


class CancelAllIn(Body):
    """Why all are cancelled, and of which symbol (left out: of all)."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    symbol: Symbol | None = None


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
    requested_qty: str | None
    reduce_only: bool
    type: str
    time_in_force: str
    extended_hours: bool
    reference_price: str | None
    limit_price: str | None
    stop_price: str | None
    trail_price: str | None
    trail_percent: str | None
    status: str
    state: str
    is_open: bool
    filled_qty: str
    average_fill_price: str | None
    pending_qty: str
    parent: UUID | None
    role: str
    replaces: UUID | None
    dependents: list[UUID]
    denial: dict[str, Any] | None
    cancel_requested_at: str | None
    created_at: str
    submitted_at: str | None
    updated_at: str
    correlation_id: str


class ConflictOut(ProblemOut):
    """`client_order_id_reused` or `open_order_exists`, with the standing order where it is this
    strategy's own."""

    order: OrderOut | None = None


class ViolationOut(Schema):
    """One limit that the order would break; `limit` and `actual` are decimals."""

    code: str
    message: str
    limit: str
    actual: str


class RefusedOut(InvalidOut):
    """`order_denied` has `violations` and `order`; `broker_rejected` has the broker's own words and
    `order`; other codes say that the request itself is wrong, and nothing was stored."""

    order: OrderOut | None = None
    violations: list[ViolationOut] | None = None
    broker_code: str | None = None
    broker_message: str | None = None


class CancelledOut(Schema):
    """How one order ended: canceled, filled, partially_filled (canceled with fills), failed or
    pending. `order` is null for one that was not placed by Ordinis."""

    order: OrderOut | None
    broker_order_id: str | None
    outcome: Literal["canceled", "filled", "partially_filled", "failed", "pending"]
    filled_qty: str
    detail: str


class CancelledAllOut(Schema):
    results: list[CancelledOut]


class PreviewOut(Schema):
    """What an order would bring about: dollars, signed shares, and exposures in per cent of
    equity, working orders included."""

    symbol: str
    side: str
    qty: str
    requested_qty: str | None
    limit_price: str | None
    notional: str
    buying_power_before: str
    buying_power_after: str
    position_before: str
    position_after: str
    position_exposure_after: str
    exposure_before: str
    exposure_after: str
    sector: str
    sector_exposure_before: str
    sector_exposure_after: str
    trading_state: str
    violations: list[ViolationOut]


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


def read_dependents(orders: Sequence[Order]) -> None:
    """Reads the dependents of all these at once: those of an order's whole chain, each as it
    stands now, without the ones that it replaced or that never came to replace it."""
    chains = [order.chain for order in orders if order.has_dependents]
    rows = Order.objects.filter(parent__chain__in=chains).exclude(
        Q(status=statuses.REPLACED) | Q(replaces__isnull=False, status__in=sorted(NEVER_WERE))
    )
    found: dict[UUID, list[str]] = {}
    for pk, chain in rows.order_by("created_at", "role").values_list("pk", "parent__chain"):
        found.setdefault(chain, []).append(str(pk))
    for order in orders:
        order.dependent_ids = found.get(order.chain, [])


def _dependents(order: Order) -> list[str]:
    if not order.has_dependents:
        return []
    if not hasattr(order, "dependent_ids"):
        read_dependents([order])
    return order.dependent_ids


def results_out(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """How each order ended, as API.md tells it."""
    read_dependents([each.order for each in outcomes if each.order is not None])
    return [
        {
            "order": each.order and order_out(each.order),
            "broker_order_id": each.broker_order_id,
            "outcome": each.outcome,
            "filled_qty": plain(each.filled_qty),
            "detail": each.detail,
        }
        for each in outcomes
    ]


def preview_out(shown: Preview) -> dict[str, Any]:
    """The preview of API.md."""
    return {
        "symbol": shown.order.symbol,
        "side": shown.order.side,
        "qty": plain(shown.qty),
        "requested_qty": None if shown.qty == shown.order.qty else plain(shown.order.qty),
        "limit_price": dollars(shown.order.limit_price),
        "notional": dollars(shown.notional),
        "buying_power_before": dollars(shown.buying_power_before),
        "buying_power_after": dollars(shown.buying_power_after),
        "position_before": plain(shown.position_before),
        "position_after": plain(shown.position_after),
        "position_exposure_after": plain(shown.position_exposure_after),
        "exposure_before": plain(shown.exposure_before),
        "exposure_after": plain(shown.exposure_after),
        "sector": shown.sector,
        "sector_exposure_before": plain(shown.sector_exposure_before),
        "sector_exposure_after": plain(shown.sector_exposure_after),
        "trading_state": shown.trading_state,
        "violations": violations_out(shown.violations),
    }


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
        "requested_qty": None if order.requested_qty is None else plain(order.requested_qty),
        "reduce_only": order.reduce_only,
        "type": order.type,
        "time_in_force": order.time_in_force,
        "extended_hours": order.extended_hours,
        "reference_price": dollars(order.reference_price),
        "limit_price": dollars(order.limit_price),
        "stop_price": dollars(order.stop_price),
        "trail_price": dollars(order.trail_price),
        "trail_percent": None if order.trail_percent is None else plain(order.trail_percent),
        "status": order.status,
        "state": order.state,
        "is_open": order.is_open,
        "filled_qty": plain(order.filled_qty),
        "average_fill_price": dollars(order.average_fill_price),
        "pending_qty": plain(order.pending_qty),
        "parent": order.parent_id and str(order.parent_id),
        "role": order.role,
        "replaces": order.replaces_id and str(order.replaces_id),
        "dependents": _dependents(order),
        "denial": {"violations": order.violations} if denied else None,
        "cancel_requested_at": moment(order.cancel_requested_at),
        "created_at": moment(order.created_at),
        "submitted_at": moment(order.submitted_at),
        "updated_at": moment(order.updated_at),
        "correlation_id": order.correlation_id,
    }
