"""What the tests of cancels, replacements and duplicates share: orders that stand at the broker,
and what the broker heard of them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import F

from orders import jobs
from orders.models import Order
from positions.models import Position
from tests.conftest import Api, quote
from tests.simulator_server import SimulatorServer
from tests.waiting import until


def rest(sim: SimulatorServer, api: Api, body: dict[str, Any]) -> Order:
    """Sends an order that rests below the market; returns it as the broker works it."""
    quote(sim, body["symbol"], "260")
    answer = api.post("/orders", body)
    assert answer.status_code == 201, answer.content
    return polled(answer.json()["id"], "new")


def polled(order_id: UUID | str, *statuses: str) -> Order:
    """The order, once polls have brought it to one of the statuses."""

    def look() -> Order | None:
        jobs.poll()
        order = Order.objects.get(pk=order_id)
        return order if order.status in statuses else None

    found = until(look)
    assert found is not None
    return found


def reaches(order_id: UUID | str, *statuses: str) -> Order:
    """The order, once it has one of the statuses without anybody polling."""
    rows = Order.objects.filter(pk=order_id, status__in=statuses)
    found = until(rows.first)
    assert found is not None
    return found


def heard(sim: SimulatorServer, method: str) -> list[str]:
    """The paths of the order requests of this method that reached the broker."""
    log = sim.get("/sim/log", method=method)
    return [each["path"] for each in log if each["path"].startswith("/v2/orders")]


def at_broker(sim: SimulatorServer, client_order_id: str) -> list[dict[str, Any]]:
    orders = sim.get("/sim/state")["orders"]
    return [order for order in orders if order["client_order_id"] == client_order_id]


def age_cancel(order: Order, seconds: float) -> None:
    """Plays that the cancel was asked for, and sent, so much earlier."""
    earlier = timedelta(seconds=seconds)
    Order.objects.filter(pk=order.pk).update(
        cancel_requested_at=F("cancel_requested_at") - earlier,
        cancel_sent_at=F("cancel_sent_at") - earlier,
    )


def held(symbol: str = "TSLA") -> Any:
    """The shares that the book has."""
    position = Position.objects.filter(symbol=symbol).first()
    return position.qty if position else 0


def held_at_broker(sim: SimulatorServer, symbol: str = "TSLA") -> Any:
    positions = sim.trading("GET", "/v2/positions").json()
    return next((float(each["qty"]) for each in positions if each["symbol"] == symbol), 0)
