"""Orders a minute: who is counted with whom, what a caller is told, and that the same request again
is no further order."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db.models import F

from orders.flattening import flatten, propose
from orders.judgement import judge
from orders.models import Order
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from risk import figures
from risk.limits import change
from tests.conftest import Api, hold, quote, sent
from tests.orders.dependents import PAIR, bought, exit_of
from tests.orders.limited import buy, limit, sell, set_state
from tests.orders.standing import polled
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def test_more_orders_than_the_rate_allows_answer_429_with_when_to_try_again(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    limit(account, max_orders_per_minute=3)
    quote(sim, "TSLA", "255")
    answers = [api.post("/orders", buy(price=str(200 + n))) for n in range(4)]

    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert answers[3].json()["code"] == "rate_limited"
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
    assert (Order.objects.count(), len(sent(sim))) == (3, 3)

    Order.objects.update(created_at=F("created_at") - timedelta(seconds=61))
    assert api.post("/orders", buy(price="204")).status_code == 201


def test_a_limited_strategy_is_told_so_also_when_the_broker_is_down(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    limit(account, max_orders_per_minute=1)
    quote(sim, "TSLA", "255")
    assert api.post("/orders", buy()).status_code == 201
    figures._shared.clear()
    sim.post("/sim/faults", [{"kind": "status_before", "status": 500, "count": None}])

    assert api.post("/orders", buy(price="201")).status_code == 429


def test_the_same_order_again_is_no_further_order(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    limit(account, max_orders_per_minute=1)
    quote(sim, "TSLA", "255")
    first = api.post("/orders", buy(client_order_id="one"))

    again = [api.post("/orders", buy(client_order_id=each)) for each in ("one", "two")]

    assert [answer.status_code for answer in again] == [200, 200]
    assert {answer.json()["id"] for answer in again} == {first.json()["id"]}


def test_the_rate_counts_for_the_strategy_and_for_all_of_the_account(
    sim: SimulatorServer, api: Api, strategy: Strategy
) -> None:
    limit(strategy.account, max_orders_per_minute=2)
    quote(sim, "TSLA", "255")
    other = Strategy.objects.create(account=strategy.account, name="other")
    change(
        account=strategy.account,
        strategy=strategy,
        values={"max_orders_per_minute": 1},
        reason="A test.",
        actor="test",
    )
    assert api.post("/orders", buy()).status_code == 201

    own = api.post("/orders", buy(price="201"))
    Order.objects.update(strategy=other)
    now_free = api.post("/orders", buy(price="202"))
    Order.objects.update(strategy=other)
    full = api.post("/orders", buy(price="203"))

    assert (own.status_code, own.json()["detail"].split()[1]) == (429, "strategy")
    assert now_free.status_code == 201
    assert (full.status_code, full.json()["detail"].split()[1]) == (429, "account")


def test_what_is_to_wait_for_a_parent_counts_and_exits_that_come_with_an_order_do_not(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    limit(account, max_orders_per_minute=2)
    parent = bought(sim, api, **PAIR)

    taken = [api.post("/orders", exit_of(parent, limit_price=price)) for price in ("300", "301")]

    assert [answer.status_code for answer in taken] == [201, 429]
    assert Order.objects.filter(role="dependent").count() == 1


def test_what_may_only_reduce_is_counted_by_itself(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "9", "240")
    quote(sim, "TSLA", "255")
    limit(account, max_orders_per_minute=1)

    reducing = [
        api.post("/orders", sell("2", price, reduce_only=True)).status_code
        for price in ("300", "301")
    ]

    assert reducing == [201, 429]
    assert api.post("/orders", buy()).status_code == 201


def test_a_replacement_of_what_may_only_reduce_is_counted_with_its_like(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "9", "240")
    quote(sim, "TSLA", "255")
    limit(account, max_orders_per_minute=2)
    closing = api.post("/orders", sell("2", "300", reduce_only=True)).json()
    polled(closing["id"], "new")
    for price in ("200", "201"):
        assert api.post("/orders", buy(price=price)).status_code == 201

    moved = api.post(f"/orders/{closing['id']}/replace", {"limit_price": "299"})
    assert moved.status_code == 201, moved.content
    polled(moved.json()["id"], "new")

    again = api.post(f"/orders/{moved.json()['id']}/replace", {"limit_price": "298"})
    assert again.status_code == 429


def test_the_replacement_of_a_dependent_order_is_one_more(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    parent = bought(sim, api)
    limit(account, max_orders_per_minute=2)
    taken = api.post("/orders", exit_of(parent, limit_price="300")).json()
    until(lambda: Order.objects.get(pk=taken["id"]).broker_order_id)
    polled(taken["id"], "new")

    answer = api.post(f"/orders/{taken['id']}/replace", {"limit_price": "301"})

    assert answer.status_code == 429


def test_what_the_desk_closes_counts_for_no_strategy(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    for symbol in ("TSLA", "KO"):
        hold(sim, symbol, "10", "50")
    quote(sim, "TSLA", "250")
    limit(account, max_orders_per_minute=1)
    ko, _ = propose(account, Decimal(1))
    (closed,) = flatten(account, [ko], token="0123456789abcdef", actor="ann")
    assert closed.problem == ""

    assert api.post("/orders", sell("1", reduce_only=True)).status_code == 201


def test_what_was_denied_to_one_strategy_does_not_hold_up_another(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "255")
    limit(account, max_orders_per_minute=2)
    other = Strategy.objects.create(account=account, name="other")
    set_state(account, "reducing")
    looping = [api.post("/orders", buy(price=str(200 + n))).status_code for n in range(3)]
    set_state(account, "active")

    answer = Api(ApiToken.issue(other, SCOPES)[1]).post("/orders", buy())

    assert looping == [422, 422, 429]
    assert answer.status_code == 201


def test_the_same_order_twice_at_once_is_one_where_the_rate_allows_no_second(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    quote(sim, "TSLA", "255")
    limit(account, max_orders_per_minute=1, duplicate_guard=False)
    body = buy(client_order_id="one")
    faster: list[Any] = []

    def overtaken(name: str) -> None:
        if name == "submit.received" and not faster:
            faster.append(None)
            faster[0] = api.post("/orders", body)

    monkeypatch.setattr("orders.submission.failpoint", overtaken)
    slower = api.post("/orders", body)

    assert (faster[0].status_code, slower.status_code) == (201, 200)
    assert faster[0].json()["id"] == slower.json()["id"]
    assert len(sent(sim)) == 1


def test_of_two_orders_at_once_the_rate_takes_the_one_that_it_allows(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    quote(sim, "TSLA", "255")
    limit(account, max_orders_per_minute=1)
    faster: list[Any] = []

    def overtaken(name: str) -> None:
        if name == "submit.received" and not faster:
            faster.append(None)
            faster[0] = api.post("/orders", buy(price="201"))

    monkeypatch.setattr("orders.submission.failpoint", overtaken)
    slower = api.post("/orders", buy())

    assert (faster[0].status_code, slower.status_code) == (201, 429)
    assert len(sent(sim)) == 1


def test_the_same_replacement_twice_at_once_is_one(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    quote(sim, "TSLA", "255")
    order = polled(api.post("/orders", buy()).json()["id"], "new")
    body = {"qty": "2", "client_order_id": "r1"}
    faster: list[Any] = []

    def overtaken(*of: Any, **more: Any) -> Any:
        if not faster:
            faster.append(None)
            faster[0] = api.post(f"/orders/{order.pk}/replace", body)
        return judge(*of, **more)

    monkeypatch.setattr("orders.replacing.judge", overtaken)
    slower = api.post(f"/orders/{order.pk}/replace", body)

    assert (faster[0].status_code, slower.status_code) == (201, 200)
    assert faster[0].json()["id"] == slower.json()["id"]
    assert Order.objects.count() == 2
