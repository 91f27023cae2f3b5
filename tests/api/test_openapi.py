"""The OpenAPI document: kept, valid, complete, and true of every answer that an order can get."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from openapi_spec_validator import validate

from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from reconciliation.run import reconcile
from risk import figures
from risk.limits import change
from tests.api.openapi import check, kept, operation_of
from tests.conftest import Api, hold, quote
from tests.simulator_server import SimulatorServer

MakeOrder = Callable[..., dict[str, Any]]
_ONE_A_MINUTE = {"max_orders_per_minute": 1}


def _operations() -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in kept()["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_that_is_served_is_the_one_that_is_kept(client: Client) -> None:
    served = client.get("/api/v1/openapi.json").json()

    assert served == kept(), "if it is meant: python -m tests.api.openapi, and read the difference"


def test_the_document_is_valid_openapi() -> None:
    validate(kept())


def test_every_operation_has_a_name_of_its_own_and_the_scope_that_it_needs() -> None:
    operations = _operations()

    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    scopes = {name: operation["security"] for name, operation in operations.items()}
    assert scopes["POST /api/v1/orders"] == [{"bearer": ["trade"]}]
    assert scopes["POST /api/v1/orders/cancel-all"] == [{"bearer": ["operate"]}]
    assert all(len(scope) == 1 and scope[0]["bearer"] for scope in scopes.values())
    assert kept()["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"}
    }


def test_every_operation_names_the_errors_that_come_from_outside_it() -> None:
    for name, operation in _operations().items():
        responses = operation["responses"]
        outside = {"401", "403", "422", "500", "503"} | (
            {"400"} if "requestBody" in operation else set()
        )
        assert outside <= responses.keys(), name
        assert ("404" in responses) == ("{" in name), name
        assert "Retry-After" in responses["503"]["headers"], name


def test_a_number_is_asked_for_as_a_string_or_an_integer_never_as_a_float() -> None:
    schemas = kept()["components"]["schemas"]

    kinds = {kind["type"] for kind in schemas["OrderIn"]["properties"]["qty"]["anyOf"]}
    assert kinds == {"string", "integer"}
    assert '"number"' not in str(schemas).replace("'", '"')


@pytest.mark.django_db(transaction=True)
def test_every_answer_to_an_order_is_one_of_the_document_and_as_it_says(
    sim: SimulatorServer, account: BrokerAccount, strategy: Strategy, api: Api, order: MakeOrder
) -> None:
    seen: dict[str, set[int]] = defaultdict(set)

    def is_told(status: int, answer: Any) -> Any:
        assert check(answer) == status, answer.content
        seen[operation_of(answer)].add(status)
        return answer.json()

    quote(sim, "TSLA", "260")
    hold(sim, "OKE", "40", "70")
    reconcile(account)
    standing = is_told(201, api.post("/orders", order(client_order_id="a-1")))
    is_told(200, api.post("/orders", order(client_order_id="a-1")))
    same = api.post("/orders", order(client_order_id="a-2"))
    assert is_told(200, same)["id"] == standing["id"]
    headers = _operations()["POST /api/v1/orders"]["responses"]["200"]["headers"]
    assert same.headers.items() >= {"Ordinis-Duplicate": "true"}.items()
    assert "Ordinis-Duplicate" in headers
    for again in (order(client_order_id="a-1", qty="51"), order(qty="51")):
        assert is_told(409, api.post("/orders", again))["order"]["id"] == standing["id"]
    assert is_told(422, api.post("/orders", order(qty=1.5)))["errors"][0]["field"] == "qty"
    assert is_told(422, api.post("/orders", order(symbol="KO", side="sell")))["violations"]
    assert is_told(422, api.post("/orders", order(symbol="ZZZZ")))["broker_code"]
    assert is_told(422, api.post("/orders", order(reference_price="0.001")))["code"]
    is_told(400, api.post("/orders", "{"))
    is_told(501, api.post("/orders", order(type="market")))
    assert (
        is_told(200, api.post("/orders/preview", order(symbol="KO", qty="1")))["violations"] == []
    )
    is_told(422, api.post("/orders/preview", order(qty=1.5)))
    is_told(501, api.post("/orders/preview", order(type="market")))
    for scopes, status in (((), 401), (("read",), 403)):
        token = ApiToken.issue(strategy, scopes)[1] if scopes else "none"
        is_told(status, Api(token).post("/orders", order()))
    figures._shared.clear()
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/account", "count": 9}])
    is_told(503, api.post("/orders", order(symbol="XOM")))
    sim.delete("/sim/faults")

    one = f"/orders/{standing['id']}"
    nobody = "/orders/00000000-0000-0000-0000-000000000000"
    new = is_told(201, api.post(f"{one}/replace", {"qty": "60", "client_order_id": "a-3"}))
    is_told(200, api.post(f"{one}/replace", {"qty": "60", "client_order_id": "a-3"}))
    is_told(409, api.post(f"{one}/replace", {"qty": "61", "client_order_id": "a-3"}))
    is_told(422, api.post(f"{one}/replace", {}))
    is_told(422, api.post(f"{one}/replace", {"qty": "61"}))
    for step in ("/replace", "/cancel"):
        is_told(404, api.post(f"{nobody}{step}", {"qty": "1"}))
    is_told(200, api.post(f"/orders/{new['id']}/cancel"))
    sim.post(
        "/sim/faults",
        [
            {"kind": "drop_after", "path": "/v2/orders", "method": "POST"},
            {"kind": "status_before", "path": "/v2/orders:by_client_order_id", "count": 99},
        ],
    )
    lost = is_told(202, api.post("/orders", order(symbol="XOM", reference_price="100")))
    is_told(202, api.post(f"/orders/{lost['id']}/cancel"))
    sim.delete("/sim/faults")
    for path in ("", "/history", "/fills"):
        is_told(200, api.get(f"{one}{path}"))
        is_told(404, api.get(f"{nobody}{path}"))
    is_told(200, api.get("/orders"))
    is_told(422, api.get("/orders", limit=0))
    is_told(200, api.get("/orders/by-client-id/a-1"))
    is_told(404, api.get("/orders/by-client-id/a-9"))
    is_told(200, api.post("/orders/cancel-all", {"reason": "the day ends"}))
    is_told(422, api.post("/orders/cancel-all", {}))
    assert len(is_told(200, api.get("/events"))["events"]) > 5
    is_told(422, api.get("/events", wait=31))
    for path in ("/account", "/positions", "/positions/OKE", "/risk/limits", "/risk/state"):
        is_told(200, api.get(path))
    is_told(404, api.get("/positions/ZZZ"))
    report = is_told(200, api.post("/reconciliation/run"))
    is_told(200, api.get(f"/reconciliation/reports/{report['id']}"))
    is_told(404, api.get("/reconciliation/reports/0"))
    for path in ("/reconciliation/reports", "/reconciliation/breaks"):
        is_told(200, api.get(path))

    change(account=account, strategy=None, values=_ONE_A_MINUTE, reason="A test.", actor="test")
    for _ in range(2):
        limited = api.post("/orders", order(symbol="KO"))
    assert int(limited.headers["Retry-After"]) > 0
    is_told(429, limited)
    halted = is_told(200, api.post("/risk/halt", {"reason": "the day ends"}))
    assert (halted["trading_state"], halted["confirmed"]) == ("halted", True)
    is_told(422, api.post("/risk/halt", {}))

    documented = _operations()
    assert seen.keys() == documented.keys(), "an operation is not tried here"
    told = {int(status) for status in documented["POST /api/v1/orders"]["responses"]}
    assert told - seen["POST /api/v1/orders"] == {500}
