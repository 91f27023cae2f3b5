"""What tests of dependent orders share: a parent, its fill at the broker, and the ways to look."""

from decimal import Decimal
from typing import Any

from orders import jobs, statuses, wake
from orders.models import Order
from tests.conftest import Api, quote, sent
from tests.simulator_server import SimulatorServer
from tests.waiting import until

PROFIT = {"take_profit": {"limit_price": "262.50"}}
LOSS = {"stop_loss": {"stop_price": "244.00"}}
PAIR = {**PROFIT, **LOSS}
PARENT = {"symbol": "TSLA", "side": "buy", "qty": "9", "limit_price": "250.00"}


def rest(sim: SimulatorServer, api: Api, **changes: Any) -> Order:
    """A buy of 9 TSLA at 250 that rests at the broker, with the exits that `changes` name."""
    quote(sim, "TSLA", "255")
    answer = api.post("/orders", {**PARENT, **changes})
    assert answer.status_code == 201, answer.content
    parent = Order.objects.get(pk=answer.json()["id"])
    until(lambda: at_broker(sim, parent)["status"] == "new")
    return parent


def bought(sim: SimulatorServer, api: Api, **changes: Any) -> Order:
    """The same, filled at the broker and read by the poll; its dependents have had their turn."""
    parent = rest(sim, api, **changes)
    fill(sim, parent)
    poll()
    return parent


def fill(sim: SimulatorServer, order: Order, qty: str | None = None, price: str = "250") -> None:
    """The broker executes it, or a part of it."""
    told = {"id": order.broker_order_id, "price": price}
    sim.post("/sim/fill", told if qty is None else {**told, "qty": qty})


def poll() -> None:
    """What the poll learns, and all that follows from it."""
    jobs.poll()
    idle()


def idle() -> None:
    until(wake.is_idle, seconds=30)


def again() -> None:
    """The next round of the job, whatever pause it would make."""
    Order.objects.filter(status=statuses.WAITING).update(retry_at=None)
    jobs.follow_up()
    idle()


def child(parent: Order, role: str) -> Order:
    return Order.objects.get(parent=parent, role=role, replaces=None)


def at_broker(sim: SimulatorServer, order: Order) -> dict[str, Any]:
    """The broker's order of this client id, or with this id of the broker's."""
    order.refresh_from_db()
    keys = (order.client_order_id, order.broker_order_id)
    for told in sim.get("/sim/state")["orders"]:
        if told["client_order_id"] in keys or told["id"] in keys:
            return dict(told)
    raise AssertionError(f"the broker has no order {order.client_order_id}")


def posts(sim: SimulatorServer, parent: Order) -> list[dict[str, Any]]:
    """The order POSTs after the parent's own."""
    others = (str(parent), "by-hand")
    return [it["body"] for it in sent(sim) if it["body"]["client_order_id"] not in others]


def shares(bodies: list[dict[str, Any]]) -> list[Decimal]:
    return [Decimal(str(body["qty"])) for body in bodies]
