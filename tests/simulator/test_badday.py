"""A bad day: every kind of fault in a mixture that follows from its seed, and an end to it."""

import contextlib
import itertools
from decimal import Decimal
from typing import Any

import pytest
import requests

from ordinis.simulator.badday import BadDay, Plan
from ordinis.simulator.clock import VenueClock
from ordinis.simulator.faults import AFTER, BEFORE, KINDS, LIST, NOW, Fault
from tests.simulator.desk import send, wait_for
from tests.simulator_server import SimulatorServer

REQUESTS = (
    ("POST", "/v2/orders", ""),
    ("GET", "/v2/orders", "status=all"),
    ("GET", "/v2/account/activities", "page_token=x"),
    ("DELETE", "/v2/orders/1", ""),
)


MARKET_BUY = {
    "symbol": "OKE",
    "qty": "1",
    "side": "buy",
    "type": "market",
    "time_in_force": "day",
}


def _day(seed: int, **changes: Any) -> BadDay:
    plan = {"seed": seed, "intensity": 0.5, "ends_at": None, "requests": 2000, "timeout": 1.0}
    return BadDay(Plan(**{**plan, **changes}), VenueClock())


def _met(day: BadDay, count: int) -> list[Fault | None]:
    return [day.for_request(*REQUESTS[number % len(REQUESTS)]) for number in range(count)]


def test_every_kind_of_fault_comes_up_and_only_where_it_can() -> None:
    day = _day(1)

    kinds = {fault.kind for fault in _met(day, 2000) if fault is not None}

    assert kinds == {name for name, kind in KINDS.items() if kind.stage in {BEFORE, AFTER, LIST}}
    struck = {blow.kind for seed in range(4000) if (blow := _day(seed).for_everybody())}
    assert struck == {name for name, kind in KINDS.items() if kind.stage == NOW}
    only_reads = [_day(3).for_request("GET", "/v2/clock", "") for _ in range(50)]
    assert not {fault.kind for fault in only_reads if fault} & {"no_funds", "list_lag"}


def test_the_same_seed_makes_the_same_day() -> None:
    days = [[fault.kind if fault else "" for fault in _met(_day(seed), 200)] for seed in (5, 5, 6)]

    assert days[0] == days[1] != days[2]


def test_a_day_of_so_many_requests_ends_with_them() -> None:
    day = _day(1, requests=10, intensity=1)

    met = _met(day, 30)

    assert None not in met[:10]
    assert set(met[10:]) == {None}
    assert day.over


def test_a_bad_day_tells_what_it_did_and_leaves_the_exchange_sound(sim: SimulatorServer) -> None:
    asked = {"seed": 3, "requests": 60, "intensity": 0.6, "timeout": 0.05}
    assert sim.post("/sim/bad-day", asked)["over"] is False

    numbers = itertools.count()

    def carry_on() -> dict[str, Any] | None:
        """One more order; what the day did once it is over."""
        body = {**MARKET_BUY, "client_order_id": f"o{next(numbers)}"}
        with contextlib.suppress(requests.RequestException):
            sim.trading("POST", "/v2/orders", json=body, timeout=0.1)
        try:
            told: dict[str, Any] = sim.get("/sim/bad-day")
        except requests.ConnectionError:
            return None  # the doors are shut: that is a part of it
        return told if told["over"] else None

    day = wait_for(carry_on, within=30)
    assert day["requests_seen"] == 60
    assert sum(day["faults"].values()) == len(day["log"]) > 20
    assert {entry["kind"] for entry in day["log"]} == set(day["faults"])
    orders = sim.get("/sim/state")["orders"]
    assert len({order["client_order_id"] for order in orders}) == len(orders)

    def adds_up() -> bool:
        """Whether what is held is what the orders filled; a bust may still be on its way."""
        state = sim.get("/sim/state")
        filled = sum(Decimal(order["filled_qty"]) for order in state["orders"])
        return filled == sum(Decimal(held["qty"]) for held in state["positions"])

    wait_for(adds_up)
    assert send(sim, client_order_id="after", limit_price="1").status_code == 200


def test_a_bad_day_can_be_ended_early(sim: SimulatorServer) -> None:
    sim.post("/sim/bad-day", {"minutes": 5, "intensity": 1})

    assert sim.delete("/sim/bad-day")["seed"] == 1

    assert sim.get("/sim/bad-day") is None
    assert {send(sim, limit_price="100").status_code for _ in range(5)} == {200}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"minutes": 1, "requests": 1},
        {"minutes": 1, "intensity": 0},
        {"minutes": 1, "weather": "rain"},
    ],
)
def test_a_day_that_cannot_be_is_refused(sim: SimulatorServer, body: dict[str, object]) -> None:
    assert sim.trading("POST", "/sim/bad-day", json=body).status_code == 422
