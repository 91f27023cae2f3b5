"""Reading over the API: lists with cursors, one order, account and positions, health."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.models import Heartbeat
from reconciliation.run import reconcile
from risk import figures
from tests.conftest import Api, hold, quote
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def orders(sim: SimulatorServer, api: Api, order: MakeOrder, alike_allowed: None) -> list[str]:
    """Five orders, oldest first; the last one is denied."""
    quote(sim, "TSLA", "260")
    ids = [api.post("/orders", order(client_order_id=f"o-{n}")).json()["id"] for n in range(4)]
    denied = api.post("/orders", order(client_order_id="o-4", side="sell")).json()["order"]
    return [*ids, denied["id"]]


def test_orders_are_listed_newest_first_page_by_page(api: Api, orders: list[str]) -> None:
    seen, cursor = [], None
    for _ in range(3):
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = api.get("/orders", **query).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]

    assert seen == orders[::-1]
    assert cursor is None


def test_orders_are_filtered_by_status_and_symbol(api: Api, orders: list[str]) -> None:
    def count(**query: str) -> int:
        return len(api.get("/orders", **query).json()["items"])

    assert count(status="open") == 4
    assert count(status="closed") == 1
    assert count(symbol="KO") == 0
    assert count(strategy="rsi") == 5


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "501"}, {"status": "odd"}, {"cursor": "x"}]
)
def test_a_wrong_query_is_422(api: Api, query: dict[str, str]) -> None:
    assert api.get("/orders", **query).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/orders/by-client-id/%00", "/positions/%00", "/orders?symbol=%00", "/orders?strategy=%00"],
)
def test_what_no_database_can_look_for_is_422(api: Api, db: None, path: str) -> None:
    assert api.get(path).status_code == 422


@pytest.mark.parametrize("path", ["/orders", "/reconciliation/reports", "/reconciliation/breaks"])
@pytest.mark.parametrize("key", ["²", "9" * 400, "", "-1"])
def test_a_forged_cursor_is_422(api: Api, db: None, path: str, key: str) -> None:
    text = f"2026-11-20T15:00:00+00:00|{key}".encode()
    cursor = base64.urlsafe_b64encode(text).decode().rstrip("=")

    assert api.get(path, cursor=cursor).status_code == 422


def test_listing_more_orders_takes_no_more_queries(api: Api, orders: list[str]) -> None:
    counts = []
    for limit in (1, 5):
        with CaptureQueriesContext(connection) as queries:
            api.get("/orders", limit=limit)
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 3


def test_a_token_sees_its_strategys_orders_only_unless_it_may_operate(
    account: BrokerAccount, orders: list[str]
) -> None:
    other = Strategy.objects.create(account=account, name="momentum")
    _, reader = ApiToken.issue(other, ("read",))
    _, operator = ApiToken.issue(other, ("read", "operate"))

    assert Api(reader).get("/orders").json()["items"] == []
    assert Api(reader).get(f"/orders/{orders[0]}").status_code == 404
    assert len(Api(operator).get("/orders").json()["items"]) == 5


def test_one_order_by_either_id(api: Api, orders: list[str]) -> None:
    by_id = api.get(f"/orders/{orders[0]}").json()

    assert api.get("/orders/by-client-id/o-0").json() == by_id
    assert by_id["mode"] == "simulated"
    assert (by_id["qty"], by_id["pending_qty"], by_id["is_open"]) == ("50", "50", True)
    assert api.get(f"/orders/{orders[4]}").json()["denial"]["violations"]
    assert api.get("/orders/by-client-id/none").status_code == 404


def test_the_account_shows_figures_reservations_and_their_time(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    before = api.get("/account").json()
    api.post("/orders", order(qty="10"))
    reserved = api.get("/account").json()

    assert before["equity"] == "1000000.00"
    assert (before["reserved"], reserved["reserved"]) == ("0.00", "2499.30")
    fresh = api.get("/account", fresh="true").json()
    assert fresh["as_of"] > before["as_of"]


def test_positions_show_both_sides_and_their_difference(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "OKE", "40", "70")
    reconcile(account)
    sim.post("/sim/position", {"symbol": "OKE", "qty": "33", "average_price": "70"})
    reconcile(account)

    row = api.get("/positions/OKE").json()

    assert (row["qty"], row["broker_qty"], row["drift_qty"]) == ("40", "33", "-7")
    assert row["sector"] == "Energy"
    assert api.get("/positions").json()["items"] == [row]
    assert api.get("/positions/ZZZ").status_code == 404


def test_a_figure_that_the_broker_withholds_is_503_not_a_guess(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/account", "count": 9}])

    answer = api.get("/account", fresh="true")

    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")


def test_health_tells_what_is_missing_and_when_all_is_well(
    sim: SimulatorServer, account: BrokerAccount, client: Client
) -> None:
    def failing() -> set[str]:
        return {failure["check"] for failure in client.get("/readyz").json()["failures"]}

    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert failing() == {"worker", "listen", "broker_sync"}

    reconcile(account)
    for name in ("worker", "listen"):
        Heartbeat.objects.create(name=name, last_seen_at=figures.database_now())

    assert client.get("/readyz").json() == {"ready": True, "failures": []}
    Heartbeat.objects.filter(name="listen").update(
        last_seen_at=figures.database_now() - timedelta(seconds=21)
    )
    assert failing() == {"listen"}


def test_the_openapi_document_and_its_page_are_served(client: Client, db: None) -> None:
    document = client.get("/api/v1/openapi.json").json()

    assert "/api/v1/orders" in document["paths"]
    assert client.get("/api/v1/docs").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", "/nothing"), ("post", "/orders/"), ("post", "/nothing"), ("get", "/orders/not-an-id")],
)
def test_an_address_that_does_not_exist_is_answered_by_the_api(
    api: Api, method: str, path: str
) -> None:
    answer = getattr(api, method)(path)

    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "address_not_found"
    assert "/api/v1/docs" in answer.json()["detail"]
