"""Lists: filters, exclusive cursors, paging; and what alpaca-py puts into a query."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import QueryOrderStatus
from alpaca.trading.requests import GetOrdersRequest

from tests.simulator.desk import accepted, filled, refused, resting
from tests.simulator_server import SimulatorServer
from tests.waiting import for_a_fresh_minute


def _listed(sim: SimulatorServer, **query: Any) -> list[str]:
    response = sim.trading("GET", "/v2/orders", params=query)
    assert response.status_code == 200, response.text
    return [order["client_order_id"] for order in response.json()]


@pytest.fixture
def four(sim: SimulatorServer) -> list[dict[str, Any]]:
    """o1 filled, o2 to o4 resting; o4 is OKE."""
    return [
        filled(sim, client_order_id="o1"),
        resting(sim, client_order_id="o2", limit_price="100"),
        resting(sim, client_order_id="o3", limit_price="101"),
        resting(sim, client_order_id="o4", symbol="OKE", limit_price="50"),
    ]


def test_open_orders_are_listed_newest_first_by_default(
    sim: SimulatorServer, four: list[dict[str, Any]]
) -> None:
    assert _listed(sim) == ["o4", "o3", "o2"]


def test_filters_narrow_the_list(sim: SimulatorServer, four: list[dict[str, Any]]) -> None:
    assert _listed(sim, status="closed") == ["o1"]
    assert _listed(sim, status="all", direction="asc") == ["o1", "o2", "o3", "o4"]
    assert _listed(sim, status="all", symbols="OKE,MSFT") == ["o4"]
    assert _listed(sim, status="all", side="sell") == []
    assert _listed(sim, status="all", limit=2) == ["o4", "o3"]


def test_time_bounds_are_exclusive(sim: SimulatorServer, four: list[dict[str, Any]]) -> None:
    second, third = four[1]["submitted_at"], four[2]["submitted_at"]

    assert _listed(sim, status="all", after=second) == ["o4", "o3"]
    assert _listed(sim, status="all", until=third) == ["o2", "o1"]
    assert _listed(sim, status="all", after=second, until=third) == []


def test_order_id_cursors_are_exclusive(sim: SimulatorServer, four: list[dict[str, Any]]) -> None:
    assert _listed(sim, status="all", after_order_id=four[1]["id"]) == ["o4", "o3"]
    assert _listed(sim, status="all", direction="asc", after_order_id=four[1]["id"]) == [
        "o3",
        "o4",
    ]
    assert _listed(sim, status="all", before_order_id=four[2]["id"]) == ["o2", "o1"]


def test_cursors_do_not_mix_with_times(sim: SimulatorServer, four: list[dict[str, Any]]) -> None:
    answer = sim.trading(
        "GET", "/v2/orders", params={"after_order_id": four[0]["id"], "after": "2026-01-01"}
    )

    assert answer.status_code == 422


def test_a_limit_above_500_is_refused(sim: SimulatorServer) -> None:
    assert refused(sim.trading("GET", "/v2/orders", params={"limit": "501"}))[0] == 422


def test_alpaca_py_lists_with_its_own_spelling_of_times_and_booleans(
    sim: SimulatorServer, alpaca: TradingClient, four: list[dict[str, Any]]
) -> None:
    found = alpaca.get_orders(
        GetOrdersRequest(
            status=QueryOrderStatus.ALL,
            after=datetime.now(UTC) - timedelta(minutes=5),
            symbols=["OKE", "TSLA"],
            nested=True,
        )
    )

    assert [order["client_order_id"] for order in found] == ["o4", "o3", "o2", "o1"]  # type: ignore[index]


def test_fills_are_paged_by_the_last_id(sim: SimulatorServer) -> None:
    for _ in range(5):
        filled(sim, qty="1")
    path = "/v2/account/activities/FILL"

    first = sim.trading("GET", path, params={"page_size": 2}).json()
    second = sim.trading("GET", path, params={"page_size": 2, "page_token": first[-1]["id"]}).json()
    third = sim.trading("GET", path, params={"page_size": 2, "page_token": second[-1]["id"]}).json()

    assert [len(page) for page in (first, second, third)] == [2, 2, 1]
    moments = [fill["transaction_time"] for fill in (*first, *second, *third)]
    assert moments == sorted(moments, reverse=True)
    assert len({fill["order_id"] for fill in (*first, *second, *third)}) == 5
    later = sim.trading("GET", path, params={"after": moments[2]}).json()
    assert [fill["transaction_time"] for fill in later] == moments[:2]


def test_every_answer_carries_a_request_id_and_the_rate_left(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"rate_limit": 1000})

    first = sim.trading("GET", "/v2/clock").headers
    second = sim.trading("GET", "/v2/orders/unknown").headers

    assert first["X-Request-ID"] != second["X-Request-ID"]
    assert first["X-RateLimit-Limit"] == "1000"
    assert int(first["X-RateLimit-Remaining"]) - int(second["X-RateLimit-Remaining"]) in {1, -999}


def test_the_rate_left_is_counted_by_key_and_minute(sim: SimulatorServer) -> None:
    for_a_fresh_minute()
    sim.post("/sim/options", {"rate_limit": 3})
    sim.post("/sim/clock", {"hold": True, "set": "2026-07-24T14:00:30Z"})

    def ask(key: str = "one") -> tuple[int, str, str, str]:
        keys = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": "secret"}
        answer = sim.trading("GET", "/v2/clock", headers=keys)
        names = ("Limit", "Remaining", "Reset")
        limit, remaining, reset = (answer.headers[f"X-RateLimit-{name}"] for name in names)
        return answer.status_code, limit, remaining, reset

    end, next_end = "1784901660", "1784901720"  # 14:01 and 14:02
    assert [ask() for _ in range(4)] == [
        (200, "3", "2", end),
        (200, "3", "1", end),
        (200, "3", "0", end),
        (429, "3", "0", end),
    ]
    assert ask("two") == (200, "3", "2", end)
    sim.post("/sim/clock", {"advance": 30})
    assert ask() == (200, "3", "2", next_end)


def test_a_listed_order_tells_the_same_as_a_single_one(sim: SimulatorServer) -> None:
    order = accepted(sim, limit_price="100", client_order_id="o1")
    sim.post("/sim/options", {"new_delay": 5})

    (listed,) = sim.trading("GET", "/v2/orders", params={"status": "all"}).json()
    single = sim.trading(
        "GET", "/v2/orders:by_client_order_id", params={"client_order_id": "o1"}
    ).json()

    assert listed["id"] == order["id"]
    assert single["id"] == order["id"]
    assert set(listed) == set(single)
