"""Every route that the simulator answers, judged by Alpaca's own OpenAPI description.

`alpaca-wire.json` holds the facts of it and none of its text: routes, statuses, fields, types.
Where what was observed contradicts it, the difference is in the table below.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from ordinis.simulator.server import build_app
from tests.simulator.desk import accepted, filled, resting, send
from tests.simulator.eventsource import ACTIVITIES, told
from tests.simulator.openapi import Description
from tests.simulator_server import SimulatorServer

_WIRE = Path(__file__).parent / "alpaca-wire.json"

# What differs from the description, as `method route place: what`, and why.
DIFFERENCES = {
    r".* /v2/(orders|positions).*\.(subtag|source): not described": (
        "in every order of the paper venue (captures of 2026-07), null"
    ),
    r".* /v2/(orders|positions).*legs\[\]\.expires_at: not described": (
        "described for orders, and legs are orders"
    ),
    r"GET /v2/account \.(admin|user)_configurations: not described": (
        "in the account of the paper venue (capture of 2026-07)"
    ),
    r"GET /v2/account \.(effective|regt)_buying_power: not described": (
        "in the account of the paper venue (capture of 2026-07)"
    ),
    r"GET /v2/account \.(position_market_value|crypto_tier): not described": (
        "in the account of the paper venue (capture of 2026-07)"
    ),
    r"GET /v2/account/activities \.description: not described": (
        "in activities that are no trades, by Alpaca's pages"
    ),
    r"GET /v2/account/activities \.date: '[-0-9]{10}' is no date-time": (
        "a plain date in the description's own example too"
    ),
    r"DELETE /v2/positions \[\]\.body\..*": (
        "of a position that could not be closed, the refusal stands in the order's place"
    ),
}

OTHER_ROUTES = {
    "/v2/events/trades": "described for the Broker API alone; used by Alpaca's own Go client",
    "/v2/stocks/quotes/latest": "the market data API's",
    "/v2/stocks/trades/latest": "the market data API's",
    "/v2/stocks/{symbol}/quotes/latest": "the market data API's",
    "/v2/stocks/{symbol}/trades/latest": "the market data API's",
}


@pytest.fixture(scope="module")
def alpaca_says() -> Description:
    return Description(json.loads(_WIRE.read_text()))


class Judge:
    """Sends requests and holds each answer against the description."""

    def __init__(self, sim: SimulatorServer, alpaca_says: Description) -> None:
        self._sim = sim
        self._alpaca_says = alpaca_says
        self.met: set[str] = set()

    def __call__(
        self, method: str, path: str, status: int = 200, *, at: str = "", **options: Any
    ) -> Any:
        """`at` is the path as the description writes it, where it has parameters."""
        answer = self._sim.trading(method, path, **options)
        assert answer.status_code == status, answer.text
        described = at or path
        assert status in self._alpaca_says.statuses(method, described)
        self._has_headers(answer)
        schema = self._alpaca_says.schema(method, described, status)
        if schema is None:
            return answer.json() if answer.content else None
        self.judge(answer.json(), schema, f"{method} {described}")
        return answer.json()

    def judge(self, body: Any, schema: Any, route: str) -> None:
        wrong = [*self._alpaca_says.faults(body, schema)]
        wrong += [f"{place}: not described" for place in self._alpaca_says.unknown(body, schema)]
        unexpected = []
        for fault in wrong:
            told = f"{route} {fault}"
            expected = [pattern for pattern in DIFFERENCES if re.fullmatch(pattern, told)]
            self.met.update(expected)
            if not expected:
                unexpected.append(told)
        assert unexpected == []

    def _has_headers(self, answer: requests.Response) -> None:
        assert len(answer.headers["X-Request-ID"]) == 32
        limit, remaining, reset = (
            int(answer.headers[f"X-RateLimit-{name}"]) for name in ("Limit", "Remaining", "Reset")
        )
        assert 0 <= remaining < limit
        assert reset % 60 == 0

    def activities(self, path: str = "/v2/account/activities", at: str = "") -> set[str]:
        """The types in the list; each row as the one of the two kinds that it is.

        The description leaves the kind open, and neither kind requires anything.
        """
        schema = self._alpaca_says.schema("GET", at or path, 200)
        answer = self._sim.trading("GET", path)
        assert [*self._alpaca_says.faults(answer.json(), schema)] == []
        for row in answer.json():
            kind = "Trading" if row["activity_type"] == "FILL" else "NonTrade"
            named = {"$ref": f"#/components/schemas/{kind}Activities"}
            self.judge(row, named, "GET /v2/account/activities")
        return {row["activity_type"] for row in answer.json()}


@pytest.fixture
def judge(sim: SimulatorServer, alpaca_says: Description) -> Judge:
    sim.post("/sim/price", {"symbol": "ET", "bid": "17.40", "ask": "17.41"})
    return Judge(sim, alpaca_says)


EXITS = {"take_profit": {"limit_price": "19"}, "stop_loss": {"stop_price": "16"}}
TIED = {"time_in_force": "day", "order_class": "bracket"}
ONE_ORDER = "/v2/orders/{order_id}"
EVERY_SHAPE: list[dict[str, Any]] = [
    {"type": "market"},
    {"type": "market", "qty": "1.5"},
    {"type": "market", "notional": "100"},
    {"limit_price": "17"},
    {"limit_price": "17", "time_in_force": "gtc", "extended_hours": True},
    {"type": "stop", "stop_price": "18"},
    {"type": "stop_limit", "stop_price": "18", "limit_price": "18.10"},
    {"type": "trailing_stop", "trail_price": "1"},
    {"type": "trailing_stop", "trail_percent": "1.5"},
    {"limit_price": "17", "time_in_force": "ioc"},
    {"limit_price": "17", "time_in_force": "fok"},
    {"limit_price": "17", "time_in_force": "opg"},
    {"limit_price": "17", "time_in_force": "cls"},
    {"limit_price": "17", "order_class": "bracket", **EXITS},
    {"limit_price": "17", "order_class": "oto", "stop_loss": {"stop_price": "16"}},
]


@pytest.mark.parametrize("fields", EVERY_SHAPE)
def test_an_order_of_every_shape_is_answered_as_described(
    judge: Judge, sim: SimulatorServer, fields: dict[str, Any]
) -> None:
    body = {"symbol": "ET", "side": "buy", "type": "limit", "time_in_force": "day", **fields}
    if "notional" not in body:
        body.setdefault("qty", "10")

    taken = judge("POST", "/v2/orders", json=body)

    path, query = f"/v2/orders/{taken['id']}", {"client_order_id": taken["client_order_id"]}
    judge("GET", path, at=ONE_ORDER)
    judge("GET", "/v2/orders:by_client_order_id", params=query)
    judge("GET", "/v2/orders", params={"status": "all", "nested": "true"})
    judge("GET", "/v2/orders", params={"status": "all"})


def test_an_exit_pair_is_answered_as_described(judge: Judge, sim: SimulatorServer) -> None:
    filled(sim, symbol="ET", qty="10", limit_price="18")
    body = {"symbol": "ET", "qty": "10", "side": "sell", "type": "limit", **EXITS}

    judge("POST", "/v2/orders", json={**body, "time_in_force": "gtc", "order_class": "oco"})


def test_replacing_and_cancelling_are_answered_as_described(
    judge: Judge, sim: SimulatorServer
) -> None:
    waiting = resting(sim, limit_price="100")
    new = judge("PATCH", f"/v2/orders/{waiting['id']}", at=ONE_ORDER, json={"limit_price": "101"})
    judge("GET", f"/v2/orders/{waiting['id']}", at=ONE_ORDER)
    other = resting(sim, limit_price="99")
    judge("DELETE", f"/v2/orders/{other['id']}", 204, at=ONE_ORDER)
    done = filled(sim)
    answer = sim.trading("DELETE", f"/v2/orders/{done['id']}")
    assert answer.status_code == 422
    results = judge("DELETE", "/v2/orders", 207)

    assert {row["id"] for row in results} <= {waiting["id"], new["id"]}


def test_refusals_have_a_status_that_is_described(judge: Judge, sim: SimulatorServer) -> None:
    for fields in ({"qty": "1000000"}, {"limit_price": "1.001"}):
        answer = send(sim, **fields)
        assert answer.status_code in {403, 422}
        assert isinstance(answer.json()["code"], int)
        assert isinstance(answer.json()["message"], str)


def test_positions_are_answered_as_described(judge: Judge, sim: SimulatorServer) -> None:
    for symbol, qty in (("ET", "10"), ("OKE", "-9"), ("EPD", "1.5"), ("TECL", "3")):
        sim.post("/sim/position", {"symbol": symbol, "qty": qty, "average_price": "12.345"})
    one = "/v2/positions/{symbol_or_asset_id}"

    held = judge("GET", "/v2/positions")
    judge("GET", "/v2/positions/OKE", at=one)
    judge("GET", f"/v2/positions/{held[0]['asset_id']}", at=one)
    judge("DELETE", "/v2/positions/TECL", at=one, params={"percentage": "50"})
    accepted(sim, symbol="EPD", side="sell", qty="1.5", limit_price="90")
    closed = judge("DELETE", "/v2/positions", 207)

    assert {row["status"] for row in closed} == {200, 403}


def test_the_account_and_its_settings_are_answered_as_described(
    judge: Judge, sim: SimulatorServer
) -> None:
    filled(sim, symbol="ET", qty="10", limit_price="18")

    judge("GET", "/v2/account")
    judge("GET", "/v2/account/configurations")
    judge("PATCH", "/v2/account/configurations", json={"no_shorting": True})


def test_activities_are_answered_as_described(judge: Judge, sim: SimulatorServer) -> None:
    filled(sim, symbol="ET", qty="10", limit_price="18")
    waiting = resting(sim, symbol="OKE", qty="10", limit_price="50")
    sim.post("/sim/fill", {"id": waiting["id"], "qty": "4", "price": "50"})
    sim.post("/sim/dividend", {"symbol": "ET", "per_share": "0.32"})
    sim.post("/sim/split", {"symbol": "ET", "new_rate": "2", "old_rate": "1"})
    sim.post("/sim/activity", {"activity_type": "FEE", "net_amount": "-0.01"})
    one = "/v2/account/activities/{activity_type}"

    kinds = judge.activities()

    assert kinds == {"FILL", "DIV", "SPLIT", "FEE"}
    for kind in kinds:
        assert judge.activities(f"/v2/account/activities/{kind}", at=one) == {kind}


def test_events_of_activities_are_told_as_described(
    judge: Judge, sim: SimulatorServer, alpaca_says: Description
) -> None:
    filled(sim, symbol="ET", qty="10", limit_price="18")
    execution = told(sim)[2]["execution_id"]
    sim.post("/sim/dividend", {"symbol": "ET", "per_share": "0.32"})
    sim.post("/sim/split", {"symbol": "ET", "new_rate": "2", "old_rate": "1"})
    sim.post("/sim/split", {"symbol": "ET", "new_rate": "1", "old_rate": "4"})
    sim.post("/sim/activity", {"activity_type": "CSW", "net_amount": "-100"})
    sim.post("/sim/bust", {"execution_id": execution})

    events = told(sim, ACTIVITIES)

    assert len(events) == 6
    judge.judge(events, alpaca_says.schema("GET", ACTIVITIES, 200), "GET events")


def test_clock_calendar_and_assets_are_answered_as_described(
    judge: Judge, sim: SimulatorServer
) -> None:
    one = "/v2/assets/{symbol_or_asset_id}"

    judge("GET", "/v2/clock")
    year = {"start": "2026-01-01", "end": "2026-12-31"}
    assert len(judge("GET", "/v2/calendar", params=year)) == 251
    assert len(judge("GET", "/v2/calendar", params={**year, "date_type": "SETTLEMENT"})) == 251
    judge("GET", "/v2/calendar", 400, params={"start": "soon"})
    judge("GET", "/v2/assets", params={"status": "active"})
    judge("GET", "/v2/assets/BRK.B", at=one)
    judge("GET", "/v2/assets/NOSUCH", 404, at=one)


def test_every_difference_in_the_table_is_one_still(judge: Judge, sim: SimulatorServer) -> None:
    body = {"symbol": "ET", "side": "buy", "type": "limit", "limit_price": "17", "qty": "1"}
    judge("POST", "/v2/orders", json={**body, **EXITS, **TIED})
    judge("GET", "/v2/account")
    sim.post("/sim/position", {"symbol": "EPD", "qty": "2", "average_price": "30"})
    sim.post("/sim/dividend", {"symbol": "EPD", "per_share": "0.5"})
    judge.activities()
    accepted(sim, symbol="EPD", side="sell", qty="2", limit_price="90")
    judge("DELETE", "/v2/positions", 207)

    assert judge.met == set(DIFFERENCES)


def test_every_route_there_is_has_been_judged_or_is_not_alpacas(alpaca_says: Description) -> None:
    names = {"symbol": "symbol_or_asset_id", "kind": "activity_type"}
    undescribed = set()
    for resource in build_app().router.resources():
        path = resource.canonical
        if not path.startswith(("/v2/", "/v2beta1/")) or path in OTHER_ROUTES:
            continue
        for ours, theirs in names.items():
            path = path.replace(f"{{{ours}}}", f"{{{theirs}}}")
        try:
            alpaca_says.operation("GET", path)
        except KeyError:
            undescribed.add(path)

    assert undescribed == set()
