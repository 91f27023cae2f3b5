"""An order's way through the API to the broker, on a real simulator over HTTP."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from orders.models import Order, OrderHistory
from orders.sync import ensure_open_book
from ordinis.accounts.models import BrokerAccount
from ordinis.broker import transport
from positions.models import LedgerEntry
from risk import figures
from tests.conftest import Api, hold, quote, sent
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def test_a_buy_of_50_tsla_at_250_30_with_15_bps_leaves_as_249_93(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")

    answer = api.post("/orders", order(client_order_id="rsi-20261120-TSLA-1"))

    assert answer.status_code == 201, answer.content
    assert answer.json()["limit_price"] == "249.93"
    assert answer.json()["reference_price"] == "250.30"
    (request,) = sent(sim)
    assert Decimal(str(request["body"]["limit_price"])) == Decimal("249.93")
    assert Decimal(str(request["body"]["qty"])) == 50
    assert request["body"]["client_order_id"] == "rsi-20261120-TSLA-1"


def test_a_sell_at_252_10_with_an_absolute_offset_of_0_04_leaves_as_252_14(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    hold(sim, "TSLA", "50", "240")
    quote(sim, "TSLA", "250")
    call_command("limits", "offset_mode=absolute", "sell_offset=0.04", "--reason", "exit offset")

    answer = api.post("/orders", order(side="sell", reference_price="252.10"))

    assert answer.status_code == 201, answer.content
    (request,) = sent(sim)
    assert Decimal(str(request["body"]["limit_price"])) == Decimal("252.14")


def test_the_tecl_order_of_52596_against_3432_62_is_denied_and_nothing_is_sent(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/account", {"buying_power": "3432.62"})
    body = order(symbol="TECL", qty="600", reference_price=None, limit_price="87.66")

    answer = api.post("/orders", body)

    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "order_denied"
    (violation,) = problem["violations"]
    assert violation["code"] == "insufficient_buying_power"
    assert Decimal(violation["actual"]) == Decimal("52596")
    assert "needs $52,596.00, has $3,432.62" in violation["message"]
    assert problem["order"]["status"] == "denied"
    assert problem["order"]["state"] == "rejected"
    assert sent(sim) == []
    assert LedgerEntry.objects.count() == 0


def test_a_sell_of_more_than_is_free_at_the_broker_is_denied(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    hold(sim, "TSLA", "40", "240")

    answer = api.post("/orders", order(side="sell", qty="41"))

    assert answer.status_code == 422
    (violation,) = answer.json()["violations"]
    assert violation["code"] == "insufficient_quantity"
    assert (violation["limit"], violation["actual"]) == ("40.000000000", "41") or (
        Decimal(violation["limit"]),
        Decimal(violation["actual"]),
    ) == (40, 41)
    assert sent(sim) == []


def test_the_same_order_again_answers_the_standing_order_and_sends_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    first = api.post("/orders", order(client_order_id="a-1", qty="50"))

    again = api.post("/orders", order(client_order_id="a-1", qty=50))

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert len(sent(sim)) == 1
    figures._shared.clear()
    sim.delete("/sim/log")
    api.post("/orders", order(client_order_id="a-1"))
    assert sim.get("/sim/log") == [], "the broker need not even be asked"


def test_a_client_order_id_with_another_body_is_refused(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order(client_order_id="a-1"))

    answer = api.post("/orders", order(client_order_id="a-1", qty="51"))

    assert answer.status_code == 409
    assert answer.json()["code"] == "client_order_id_reused"
    assert len(sent(sim)) == 1


def test_sixteen_callers_with_one_client_order_id_make_one_order(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")

    def send(_: int) -> tuple[int, str]:
        try:
            answer = api.post("/orders", order(client_order_id="race"))
            return answer.status_code, answer.json()["id"]
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(16)))

    assert len({order_id for _, order_id in answers}) == 1
    assert sorted(code for code, _ in answers)[-1] <= 202
    assert [code for code, _ in answers].count(201) == 1
    assert len(sent(sim)) == 1


def test_two_orders_never_spend_the_same_money_and_fills_free_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder, alike_allowed: None
) -> None:
    """DESIGN's example: buying power 1,000, three buys of 400 that fill at once."""
    sim.post("/sim/account", {"cash": "1000"})
    quote(sim, "KO", "40")
    body = order(symbol="KO", qty="10", reference_price=None, limit_price="40")

    answers = [api.post("/orders", body).status_code for _ in range(3)]

    assert answers == [201, 201, 422]
    assert len(sent(sim)) == 2


def test_of_sixteen_buys_at_once_only_the_one_that_can_be_paid_is_sent(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount, alike_allowed: None
) -> None:
    sim.post("/sim/account", {"cash": "500"})
    quote(sim, "KO", "60")
    body = order(symbol="KO", qty="8", reference_price=None, limit_price="50")
    ensure_open_book(account)
    together = Barrier(16)

    def send(_: int) -> int:
        try:
            together.wait()
            code: int = api.post("/orders", body).status_code
            return code
        finally:
            connection.close()

    for round_number in range(1, 4):
        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(send, range(16)))
        assert (codes.count(201), codes.count(422)) == (1, 15)
        assert len(sent(sim)) == round_number
        # The orders of earlier rounds rest and hold their 400: now there are 500 again.
        sim.post("/sim/account", {"cash": str(500 + 400 * round_number)})


def test_callers_behind_a_broker_that_fails_share_its_failure(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    ensure_open_book(account)
    figures._shared.clear()
    sim.post("/sim/options", {"latency": 0.2})
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/account", "count": 99}])
    sim.delete("/sim/log")

    def send(_: int) -> int:
        try:
            code: int = api.post("/orders", order()).status_code
            return code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(send, range(8)))

    assert codes == [503] * 8
    assert len(sim.get("/sim/log?path=/v2/account")) <= 2 * transport.ATTEMPTS


def test_a_refusal_by_the_broker_is_told_with_its_own_words(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    answer = api.post("/orders", order(symbol="ZZZZ"))

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "broker_rejected")
    assert problem["broker_code"] == "42210000"
    assert "not found" in problem["broker_message"]
    assert problem["order"]["status"] == "rejected"


def test_no_fresh_figures_mean_503_and_nothing_stored_or_sent(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/account", "count": 5}])

    answer = api.post("/orders", order())

    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert Order.objects.count() == 0
    assert sent(sim) == []


def test_a_slow_broker_does_not_make_an_order_late(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    account: BrokerAccount,
    settings: LazySettings,
) -> None:
    """The time that judging took is not the sender's: two slow reads must not stop the sending."""
    settings.BROKER_TIMEOUT = 1
    quote(sim, "TSLA", "260")
    ensure_open_book(account)
    figures._shared.clear()
    sim.post("/sim/account", {"buying_power": "15000"})  # thin: the figures are asked for twice
    sim.post("/sim/options", {"latency": 0.6})

    answer = api.post("/orders", order())

    assert answer.status_code == 201, answer.content
    assert len(sent(sim)) == 1


def test_the_fields_of_the_contract_may_be_given_as_asking_for_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    body = {
        **order(),
        "type": "limit",
        "limit_price": None,
        "stop_price": None,
        "reduce_only": False,
        "take_profit": None,
        "stop_loss": None,
        "parent": None,
        "extended_hours": False,
    }

    assert api.post("/orders", body).status_code == 201
    assert api.post("/orders", {**body, "reduce_only": True}).status_code == 422


def test_a_market_order_is_answered_501_with_what_to_do(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    answer = api.post("/orders", order(type="market"))

    assert (answer.status_code, answer.json()["code"]) == (501, "order_type_not_enabled")
    assert "limit order" in answer.json()["detail"]
    assert Order.objects.count() == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"qty": 50.5}, "qty"),
        ({"qty": "NaN"}, "qty"),
        ({"qty": "Infinity"}, "qty"),
        ({"qty": "0"}, "qty"),
        ({"qty": "-1"}, "qty"),
        ({"qty": True}, "qty"),
        ({"qty": "1e30"}, "qty"),
        ({"reference_price": 250.30}, "reference_price"),
        ({"reference_price": None}, "limit_price"),
        ({"time_in_force": "week"}, "time_in_force"),
        ({"parent": "not-an-id"}, "parent"),
        ({"take_profit": {"limit_price": 262.5}}, "take_profit.limit_price"),
        ({"stop_loss": {"limit_price": "240"}}, "stop_loss.stop_price"),
        ({"symbol": "tsla"}, "symbol"),
        ({"symbol": "BTC/USD"}, "no crypto"),
        ({"symbol": "AAPL260117C00150000"}, "no options"),
        ({"symbol": "../account"}, "symbol"),
        ({"side": "hold"}, "side"),
        ({"client_order_id": "has space"}, "client_order_id"),
        ({"client_order_id": "x" * 49}, "client_order_id"),
        ({"limit_prize": "1"}, "limit_prize"),
    ],
)
def test_bad_input_is_a_clear_422_and_changes_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder, changes: dict[str, Any], field: str
) -> None:
    body = {**order(), **changes}
    answer = api.post("/orders", {k: v for k, v in body.items() if v is not None})

    assert answer.status_code == 422, answer.content
    assert answer.json()["code"] == "invalid_request"
    assert field in answer.json()["detail"]
    assert Order.objects.count() == 0


def test_a_limit_price_off_the_tick_is_refused_before_anything_is_stored(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    answer = api.post("/orders", order(reference_price=None, limit_price="249.935"))

    assert (answer.status_code, answer.json()["code"]) == (422, "limit_price_off_tick")
    assert Order.objects.count() == 0


def test_every_step_is_in_the_history_with_source_actor_and_report(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    order_id = api.post("/orders", order()).json()["id"]

    steps = api.get(f"/orders/{order_id}/history").json()

    assert [(step["from"], step["to"], step["source"]) for step in steps] == [
        (None, "submitting", "api"),
        ("submitting", "pending_new", "submit"),
    ]
    assert steps[0]["actor"] == "strategy rsi"
    assert steps[1]["report"]["status"] == "pending_new"


def test_the_request_id_of_the_caller_is_the_correlation_id(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    answer = api._client.post(
        "/api/v1/orders",
        order(),
        content_type="application/json",
        headers={"X-Request-ID": "desk-42"},
    )

    assert answer["X-Request-ID"] == "desk-42"
    assert answer.json()["correlation_id"] == "desk-42"


def test_an_order_takes_a_fixed_number_of_queries(
    sim: SimulatorServer, api: Api, order: MakeOrder, alike_allowed: None
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order())

    counts = []
    for _ in range(3):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert api.post("/orders", order()).status_code == 201
        counts.append(len(queries))

    assert max(counts) <= 24, counts
    assert OrderHistory.objects.count() == 8


def test_an_order_before_the_first_sync_opens_the_book_first(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    hold(sim, "KO", "100", "55.5")

    api.post("/orders", order())

    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.qty, entry.price) == ("opening", 100, Decimal("55.5"))
    account.refresh_from_db()
    assert account.opened_at is not None
