"""What tests of dependent orders share: a parent, its fill at the broker, and the ways to look."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from orders import dependents, jobs, statuses, wake
from orders.lifecycle import Source
from orders.models import Order
from orders.sync import take_in
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.parsing import parse_trade_update
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


def exit_of(parent: Order, /, **changes: Any) -> dict[str, Any]:
    body = {**PARENT, "side": "sell", "limit_price": "262.50", "parent": str(parent.pk)}
    return {**body, **changes}


def claim(
    sim: SimulatorServer, account: BrokerAccount, order: Order, status: str, filled: str
) -> None:
    """A message on the stream that the broker's own answers do not bear out."""
    told = {**at_broker(sim, order), "status": status, "filled_qty": filled}
    told["filled_avg_price"] = "250" if filled != "0" else None
    told["updated_at"] = datetime.now(UTC).isoformat()
    message = {"stream": "trade_updates", "data": {"event": status, "order": told}}
    take_in(account, parse_trade_update(json.loads(json.dumps(message))), Source.STREAM)


def age(parent: Order, seconds: float) -> None:
    """Plays that the parent filled, and its dependents were made, so long ago."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    Order.objects.filter(chain=parent.chain).update(updated_at=moment, created_at=moment)
    Order.objects.filter(parent=parent).update(created_at=moment)


def sell_elsewhere(sim: SimulatorServer, qty: str) -> str:
    """An order in the broker's own app that holds shares; its id."""
    body = {"symbol": "TSLA", "side": "sell", "qty": qty, "type": "limit"}
    body |= {"time_in_force": "gtc", "limit_price": "400", "client_order_id": f"by-hand-{uuid4()}"}
    answer = sim.trading("POST", "/v2/orders", json=body)
    assert answer.status_code == 200, answer.text
    sim.delete("/sim/log")
    return str(answer.json()["id"])


def take_away(sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Once, between our look at the positions and our POST, somebody else takes the shares."""
    taken: list[str] = []

    def at(name: str) -> None:
        if name == "dependents.committed" and not taken:
            taken.append("")
            taken[0] = sell_elsewhere(sim, "4")

    monkeypatch.setattr(dependents, "failpoint", at)
    return taken


def replace_elsewhere(sim: SimulatorServer, order: Order, **changes: str) -> str:
    """Replaces an order in the broker's own app; the id of its successor there."""
    answer = sim.trading("PATCH", f"/v2/orders/{order.broker_order_id}", json=changes)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def status_at_broker(sim: SimulatorServer, broker_order_id: str) -> str:
    return str(sim.trading("GET", f"/v2/orders/{broker_order_id}").json()["status"])


def free(sim: SimulatorServer) -> str:
    return str(sim.trading("GET", "/v2/positions/TSLA").json()["qty_available"])
