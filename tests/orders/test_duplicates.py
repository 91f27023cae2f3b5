"""The same order asked for twice is one order: by its client order id, and by its content."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from orders import judgement, submission, wake
from orders.models import BoundClientOrderId, Order
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from risk import figures
from tests.conftest import Api, quote, sent
from tests.orders.standing import polled, rest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []


@pytest.fixture
def standing(sim: SimulatorServer, api: Api, order: MakeOrder) -> Order:
    return rest(sim, api, order(client_order_id="first"))


def _is_duplicate_of(order: Order, answer: Any) -> bool:
    assert answer.status_code in (200, 202), answer.content
    return (answer.get("Ordinis-Duplicate"), answer.json()["id"]) == ("true", str(order.pk))


def test_decimals_written_differently_are_the_same_body(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    for changes in (
        {"qty": 50},
        {"qty": "50.000"},
        {"reference_price": "250.3"},
        {"type": "limit"},
    ):
        again = api.post("/orders", order(client_order_id="first", **changes))
        assert (again.status_code, again.json()["id"]) == (200, str(standing.pk))
        assert "Ordinis-Duplicate" not in again

    other = api.post("/orders", order(client_order_id="first", qty="50.001"))

    assert (other.status_code, other.json()["code"]) == (409, "client_order_id_reused")
    assert other.json()["order"]["id"] == str(standing.pk)
    assert len(sent(sim)) == 1


def test_the_same_content_under_another_id_is_the_standing_order_and_the_broker_hears_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    figures._shared.clear()
    sim.delete("/sim/log")

    by_reference = api.post("/orders", order(client_order_id="second"))
    by_price = api.post(
        "/orders",
        order(client_order_id="third", reference_price=None, limit_price="249.93", qty="50.0"),
    )
    unnamed = api.post("/orders", order())

    for answer in (by_reference, by_price, unnamed):
        assert _is_duplicate_of(standing, answer)
        assert answer.status_code == 200
        assert answer.json()["client_order_id"] == "first"
    assert sim.get("/sim/log") == []
    assert Order.objects.count() == 1


def test_the_second_id_is_bound_to_the_standing_order_for_ever(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    body = order(client_order_id="second")
    assert _is_duplicate_of(standing, api.post("/orders", body))
    quote(sim, "TSLA", "249")
    polled(standing.pk, "filled")
    quote(sim, "TSLA", "260")

    again = api.post("/orders", body)
    other = api.post("/orders", order(client_order_id="second", qty="51"))
    found = api.get("/orders/by-client-id/second")

    assert (again.status_code, again.json()["id"]) == (200, str(standing.pk))
    assert again.json()["status"] == "filled"
    assert (other.status_code, other.json()["code"]) == (409, "client_order_id_reused")
    assert (found.status_code, found.json()["id"]) == (200, str(standing.pk))
    assert len(sent(sim)) == 1
    third = api.post("/orders", order(client_order_id="third"))
    assert third.status_code == 201, "what has ended stands in nobody's way"


def test_a_bound_id_can_not_be_taken_by_another_strategy(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, standing: Order
) -> None:
    api.post("/orders", order(client_order_id="second"))
    stranger = Strategy.objects.create(account=account, name="momentum")
    _, secret = ApiToken.issue(stranger, ("read", "trade"))

    answer = Api(secret).post("/orders", order(client_order_id="second"))

    assert (answer.status_code, answer.json()["code"]) == (409, "client_order_id_reused")
    assert "order" not in answer.json(), "it is none of its business"
    assert Api(secret).get("/orders/by-client-id/second").status_code == 404
    assert len(sent(sim)) == 1


def test_another_quantity_is_refused_with_the_order_that_is_open(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    answer = api.post("/orders", order(client_order_id="second", qty="60"))

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (409, "open_order_exists")
    assert problem["order"]["id"] == str(standing.pk)
    assert "for 60" in problem["detail"]
    assert len(sent(sim)) == 1
    assert BoundClientOrderId.objects.count() == 0
    assert Order.objects.count() == 1


def test_another_price_side_symbol_time_in_force_or_strategy_is_another_order(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, standing: Order
) -> None:
    call_command("limits", "allowed_order_types=limit,stop_limit", "--reason", "for the test")
    stranger = Strategy.objects.create(account=account, name="momentum")
    _, secret = ApiToken.issue(stranger, SCOPES)
    quote(sim, "KO", "60")

    answers = [
        api.post("/orders", order(reference_price="250.31")),
        api.post("/orders", order(symbol="KO", reference_price="50")),
        api.post("/orders", order(time_in_force="gtc")),
        api.post(
            "/orders",
            order(type="stop_limit", stop_price="270", limit_price="249.93", reference_price=None),
        ),
        Api(secret).post("/orders", order()),
    ]

    assert [answer.status_code for answer in answers] == [201] * 5
    assert len(sent(sim)) == 6


def test_without_the_guard_every_order_is_one_of_its_own(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    call_command("limits", "duplicate_guard=no", "--reason", "for the test")

    assert api.post("/orders", order()).status_code == 201
    assert api.post("/orders", order(qty="60")).status_code == 201

    assert len(sent(sim)) == 3


def test_dependent_orders_are_nobodys_duplicates(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    exits = [
        api.post(
            "/orders",
            order(
                side="sell",
                reference_price=None,
                limit_price="300",
                time_in_force="gtc",
                parent=str(standing.pk),
                qty=qty,
            ),
        )
        for qty in ("25", "25", "10")
    ]

    alike = order(side="sell", reference_price=None, limit_price="300", time_in_force="gtc", qty=25)

    assert api.post("/orders", alike).json()["code"] == "order_denied", "nothing is held to sell"
    assert [answer.status_code for answer in exits] == [201, 201, 201]
    assert Order.objects.filter(status="waiting").count() == 3
    assert len(sent(sim)) == 1


def test_sixteen_callers_with_ids_of_their_own_make_one_order(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    together = Barrier(16)

    def send(number: int) -> Any:
        try:
            together.wait()
            return api.post("/orders", order(client_order_id=f"caller-{number}"))
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(16)))

    only = Order.objects.get()
    assert len([answer for answer in answers if answer.status_code == 201]) == 1
    assert len([answer for answer in answers if "Ordinis-Duplicate" in answer]) == 15
    assert {answer.json()["id"] for answer in answers} == {str(only.pk)}
    assert len(sent(sim)) == 1
    for number in range(16):
        found = api.get(f"/orders/by-client-id/caller-{number}")
        assert found.json()["id"] == str(only.pk)


def test_a_duplicate_of_an_unresolved_order_is_told_that_it_is_undecided(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "POST", "path": "/v2/orders"}])
    assert api.post("/orders", order()).status_code == 202

    answer = api.post("/orders", order(client_order_id="second"))

    assert answer.status_code == 202
    assert _is_duplicate_of(Order.objects.get(), answer)
    assert len(sent(sim)) == 1


def test_while_the_broker_is_down_a_duplicate_still_gets_the_standing_order(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    figures._shared.clear()
    sim.stop()
    try:
        assert _is_duplicate_of(standing, api.post("/orders", order(client_order_id="second")))
        assert api.post("/orders", order(qty="60")).status_code == 409
        assert api.post("/orders", order(reference_price="240")).status_code == 503
    finally:
        sim.start()


def test_the_successor_of_a_replaced_order_is_what_stands(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    new = api.post(f"/orders/{standing.pk}/replace", {"qty": "60"}).json()
    polled(standing.pk, "replaced")

    duplicate = api.post("/orders", order(qty="60"))
    other = api.post("/orders", order())

    assert _is_duplicate_of(Order.objects.get(pk=new["id"]), duplicate)
    assert (other.status_code, other.json()["code"]) == (409, "open_order_exists")
    assert other.json()["order"]["id"] == new["id"]
    assert len(sent(sim)) == 1


EXITS = {"take_profit": {"limit_price": "262.50"}, "stop_loss": {"stop_price": "244.00"}}


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (EXITS, EXITS, 200),
        ({}, EXITS, 409),
        (EXITS, {}, 409),
        (EXITS, {**EXITS, "stop_loss": {"stop_price": "243.00"}}, 409),
    ],
    ids=["the same", "added", "left out", "another stop"],
)
def test_who_asks_for_exits_is_not_given_a_standing_order_with_other_ones(
    sim: SimulatorServer,
    api: Api,
    order: Callable[..., dict[str, Any]],
    first: dict[str, Any],
    second: dict[str, Any],
    status: int,
) -> None:
    quote(sim, "TSLA", "260")
    standing = api.post("/orders", order(**first)).json()

    answer = api.post("/orders", order(**second))

    assert answer.status_code == status, answer.content
    told = answer.json() if status == 200 else answer.json()["order"]
    assert told["id"] == standing["id"]
    assert len(sent(sim)) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"time_in_force": "day"}),
        ({}, {"extended_hours": False, "reduce_only": False}),
        (
            {"take_profit": {"limit_price": "300"}},
            {"take_profit": {"limit_price": "300.00", "time_in_force": "gtc"}},
        ),
    ],
    ids=["time in force", "flags", "an exit's time in force"],
)
def test_a_body_that_spells_out_the_defaults_is_the_same_body(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    first: dict[str, Any],
    second: dict[str, Any],
) -> None:
    quote(sim, "TSLA", "260")
    made = api.post("/orders", order(client_order_id="same", **first))

    again = api.post("/orders", order(client_order_id="same", **second))

    assert (made.status_code, again.status_code) == (201, 200), again.content
    assert again.json()["id"] == made.json()["id"]


@pytest.mark.parametrize(
    ("other", "status"),
    [({"symbol": "AAPL", "qty": "1", "reference_price": "200"}, 409), ({}, 200)],
    ids=["another order", "the same"],
)
def test_an_id_taken_while_we_looked_is_not_bound_to_a_second_order(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, Any],
    status: int,
) -> None:
    quote(sim, "TSLA", "260")
    quote(sim, "AAPL", "300")
    monkeypatch.setattr(figures, "are_at_hand", lambda account: True)
    if other:
        api.post("/orders", order(client_order_id="first"))
    times: list[int] = []

    def overtaken(*arguments: Any, **named: Any) -> Any:
        if not times:
            times.append(1)
            faster = api.post("/orders", order(client_order_id="X", **other))
            assert faster.status_code == 201, faster.content
        return judgement.judge(*arguments, **named)

    monkeypatch.setattr(submission, "judge", overtaken)
    answer = api.post("/orders", order(client_order_id="X"))

    assert answer.status_code == status
    assert "Ordinis-Duplicate" not in answer.headers
    assert not BoundClientOrderId.objects.exists()


def test_the_exits_of_an_order_that_was_replaced_are_still_its_exits(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    exits = {"take_profit": {"limit_price": "300"}}
    entry = rest(sim, api, order(reference_price=None, limit_price="250", **exits))
    newer = api.post(f"/orders/{entry.pk}/replace", {"limit_price": "249"}).json()
    assert newer["dependents"] == api.get(f"/orders/{entry.pk}").json()["dependents"] != []
    polled(newer["id"], "new")
    polled(entry.pk, "replaced")

    same = order(reference_price=None, limit_price="249")

    assert api.post("/orders", {**same, **exits}).json()["id"] == newer["id"]
    assert api.post("/orders", same).status_code == 409
