"""What the simulator's tests do again and again: send an order, wait for its state."""

from collections.abc import Callable
from typing import Any, TypeVar

import requests

from tests.simulator_server import SimulatorServer
from tests.waiting import until

T = TypeVar("T")


def wait_for(look: Callable[[], T | None], *, within: float = 5.0) -> T:
    """The first true value of `look`; fails when there is none in time."""
    seen = until(look, seconds=within, every=0.002)
    assert seen
    return seen


def send(sim: SimulatorServer, **fields: Any) -> requests.Response:
    """POST an order: 10 TSLA at 260 to buy, unless told otherwise."""
    order: dict[str, Any] = {
        "symbol": "TSLA",
        "side": "buy",
        "type": "limit",
        "time_in_force": "day",
        **fields,
    }
    if "notional" not in order:
        order.setdefault("qty", "10")
    if order["type"] == "limit" and order.get("order_class") != "oco":
        order.setdefault("limit_price", "260")
    return sim.trading("POST", "/v2/orders", json=order)


def accepted(sim: SimulatorServer, **fields: Any) -> dict[str, Any]:
    """An order that the venue takes in."""
    response = send(sim, **fields)
    assert response.status_code == 200, response.text
    order: dict[str, Any] = response.json()
    return order


def order(sim: SimulatorServer, order_id: str) -> dict[str, Any]:
    response = sim.trading("GET", f"/v2/orders/{order_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def reaches(sim: SimulatorServer, order_id: str, status: str) -> dict[str, Any]:
    """Waits until the order has the status."""

    def look() -> dict[str, Any] | None:
        found = order(sim, order_id)
        return found if found["status"] == status else None

    return wait_for(look)


def resting(sim: SimulatorServer, **fields: Any) -> dict[str, Any]:
    """An order that the venue has acknowledged and that does not fill."""
    return reaches(sim, accepted(sim, **fields)["id"], "new")


def filled(sim: SimulatorServer, **fields: Any) -> dict[str, Any]:
    return reaches(sim, accepted(sim, **fields)["id"], "filled")


def position(sim: SimulatorServer, symbol: str) -> dict[str, Any]:
    response = sim.trading("GET", f"/v2/positions/{symbol}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def account(sim: SimulatorServer) -> dict[str, Any]:
    found: dict[str, Any] = sim.trading("GET", "/v2/account").json()
    return found


def refused(response: requests.Response) -> tuple[int, dict[str, Any]]:
    return response.status_code, response.json()
