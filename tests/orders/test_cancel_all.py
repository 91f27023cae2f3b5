"""All open orders are cancelled, also those placed elsewhere, and it is said how each ended."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from io import StringIO
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now

from orders import cancel_all, jobs, wake
from orders.models import Order
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from tests.conftest import Api, quote, sent
from tests.listening import Listening, listeners
from tests.orders.standing import at_broker, heard, held, held_at_broker, polled, rest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []
    assert BrokerAccount.objects.get().cancelling_runs == [], "the bar has fallen"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not confirmed within half a second is called pending."""
    monkeypatch.setattr(cancel_all, "_LONGEST", 0.5)


def _all(api: Api, **body: Any) -> Any:
    return api.post("/orders/cancel-all", {"reason": "the desk closes", **body})


def _outcomes(answer: Any) -> dict[str, tuple[str, str]]:
    """Outcome and filled quantity by client order id, or by the broker's id."""
    assert answer.status_code == 200, answer.content
    return {
        (each["order"] or {}).get("client_order_id", each["broker_order_id"]): (
            each["outcome"],
            each["filled_qty"],
        )
        for each in answer.json()["results"]
    }


def _rest_many(sim: SimulatorServer, api: Api, order: MakeOrder, count: int) -> list[str]:
    quote(sim, "TSLA", "260")
    names = [f"rests-{number}" for number in range(count)]
    for number, name in enumerate(names):
        body = order(client_order_id=name, qty="1", reference_price=str(200 + number))
        assert api.post("/orders", body).status_code == 201
    return names


def _open_at_broker(sim: SimulatorServer) -> list[str]:
    return [order["id"] for order in sim.trading("GET", "/v2/orders?status=open").json()]


def _in_background(work: Callable[[], Any]) -> tuple[Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        finally:
            connection.close()

    thread = Thread(target=run)
    thread.start()
    return thread, results


@pytest.mark.parametrize("listens", [False, True], ids=["by asking", "with the stream"])
def test_25_open_orders_are_confirmed_cancelled_by_one_request_in_under_5_seconds(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder, listens: bool
) -> None:
    names = _rest_many(sim, api, order, 25)
    sim.post("/sim/options", {"latency": 0.1})
    with Listening(account) if listens else nullcontext():
        until(lambda: listeners(sim) == listens)
        began = time.monotonic()
        answer = _all(api)
        took = time.monotonic() - began

    assert took < 5
    assert _outcomes(answer) == dict.fromkeys(names, ("canceled", "0"))
    assert heard(sim, "DELETE") == ["/v2/orders"]
    assert _open_at_broker(sim) == []
    assert set(Order.objects.values_list("status", flat=True)) == {"canceled"}
    steps = api.get(f"/orders/{Order.objects.all()[0].pk}/history").json()
    asked = next(step for step in steps if step["from"] == step["to"])
    assert (asked["source"], asked["actor"]) == ("api", "strategy rsi")
    assert asked["reason"] == "All are cancelled: the desk closes"
    assert _outcomes(_all(api)) == {}, "nothing is left"


def test_orders_that_were_not_placed_here_are_cancelled_and_listed_without_an_order(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    ours = rest(sim, api, order(client_order_id="ours"))
    body = {"symbol": "KO", "qty": "5", "side": "buy", "type": "limit", "time_in_force": "day"}
    placed = sim.trading("POST", "/v2/orders", json={**body, "limit_price": "1"}).json()
    quote(sim, "KO", "60")

    answer = _all(api)

    assert _outcomes(answer) == {"ours": ("canceled", "0"), placed["id"]: ("canceled", "0")}
    (foreign,) = (each for each in answer.json()["results"] if each["order"] is None)
    assert foreign["detail"] == "It was not placed by Ordinis."
    assert at_broker(sim, placed["client_order_id"])[0]["status"] == "canceled"
    assert Order.objects.get().pk == ours.pk


def test_a_dependent_order_that_waits_is_closed_and_never_fires(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    parent = rest(sim, api, order(client_order_id="parent", take_profit={"limit_price": "300"}))
    sim.post("/sim/faults", [{"kind": "fill_while_cancelling"}])

    outcomes = _outcomes(_all(api))

    child = Order.objects.get(parent=parent)
    assert outcomes == {"parent": ("filled", "50"), child.client_order_id: ("canceled", "0")}
    until(wake.is_idle)
    jobs.pursue_cancels()
    assert child.status == "canceled"
    assert len(sent(sim)) == 1
    assert held() == 50


def test_both_orders_of_a_pair_are_confirmed_cancelled(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    exits = {"take_profit": {"limit_price": "300"}, "stop_loss": {"stop_price": "200"}}
    quote(sim, "TSLA", "249")
    parent = api.post("/orders", order(**exits)).json()["id"]
    polled(parent, "filled")
    pair = Order.objects.filter(parent=parent)
    for each in pair:
        polled(each.pk, "new", "held")

    outcomes = _outcomes(_all(api))

    assert outcomes == {each.client_order_id: ("canceled", "0") for each in pair}
    assert len(outcomes) == 2


@pytest.mark.parametrize("arrives", ["before the cancel", "after it"])
def test_an_order_on_its_way_while_all_are_cancelled_is_cancelled_too(
    sim: SimulatorServer, api: Api, order: MakeOrder, arrives: str
) -> None:
    rest(sim, api, order(client_order_id="rests"))
    if arrives == "before the cancel":
        fault = {"kind": "delay_after", "seconds": 0.5}
        sim.post("/sim/faults", [{**fault, "method": "POST", "path": "/v2/orders"}])
    else:
        sim.post("/sim/options", {"latency": 1.0})
    body = order(client_order_id="flies", reference_price="240")
    sender, answers = _in_background(lambda: api.post("/orders", body))
    until(lambda: Order.objects.filter(status="submitting").exists())
    until(lambda: len(sent(sim)) == 2 or arrives == "after it")
    sim.post("/sim/options", {"latency": 0})

    outcomes = _outcomes(_all(api))

    sender.join()
    assert outcomes == {"rests": ("canceled", "0"), "flies": ("canceled", "0")}
    assert _open_at_broker(sim) == []
    assert answers[0].status_code in (201, 202)
    assert len(at_broker(sim, "flies")) == 1


def test_fills_that_won_the_race_are_told_and_are_in_the_book(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    for name, price in (("whole", "249"), ("half", "248"), ("none", "247")):
        rest(sim, api, order(client_order_id=name, reference_price=price))
    sim.post("/sim/faults", [{"kind": "fill_while_cancelling", "body": "whole"}])
    sim.post("/sim/faults", [{"kind": "part_fill_while_cancelling", "body": "half"}])

    outcomes = _outcomes(_all(api))

    assert outcomes == {
        "whole": ("filled", "50"),
        "half": ("partially_filled", "25"),
        "none": ("canceled", "0"),
    }
    assert held() == 75 == held_at_broker(sim)


def test_an_order_that_is_being_replaced_is_asked_for_again_with_its_successor(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    old = rest(sim, api, order(client_order_id="old"))
    sim.post("/sim/options", {"replace_delay": 0.4})
    replaced = api.post(f"/orders/{old.pk}/replace", {"qty": "60", "client_order_id": "new"})
    assert replaced.status_code == 201

    answer = _all(api)

    assert _outcomes(answer) == {"old": ("canceled", "0"), "new": ("canceled", "0")}
    details = {
        each["order"]["client_order_id"]: each["detail"] for each in answer.json()["results"]
    }
    assert details == {"old": "It ended as replaced.", "new": ""}
    assert _open_at_broker(sim) == []


def test_an_order_that_the_broker_refuses_to_cancel_is_told_as_failed(
    sim: SimulatorServer, api: Api, order: MakeOrder, short: None
) -> None:
    rest(sim, api, order(client_order_id="other", reference_price="240"))
    old = rest(sim, api, order(client_order_id="old"))
    sim.post("/sim/options", {"replace_delay": 1000})
    body = {"qty": "60", "client_order_id": "app"}
    new = sim.trading("PATCH", f"/v2/orders/{old.broker_order_id}", json=body).json()

    answer = _all(api)

    outcomes = _outcomes(answer)
    assert outcomes["other"] == ("canceled", "0")
    assert outcomes["old"] == ("failed", "0")
    assert outcomes[new["id"]][0] == "failed"
    details = {each["detail"] for each in answer.json()["results"] if each["outcome"] == "failed"}
    assert details == {"order pending replace"}
    assert Order.objects.get(pk=old.pk).is_open


def test_what_is_not_confirmed_in_time_is_pending_and_pursued(
    sim: SimulatorServer, api: Api, order: MakeOrder, short: None
) -> None:
    slow = rest(sim, api, order(client_order_id="slow"))
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "POST", "path": "/v2/orders"}])
    lost = api.post("/orders", order(client_order_id="lost", reference_price="240"))
    assert lost.status_code == 202
    sim.post("/sim/options", {"cancel_delay": 1000})

    answer = _all(api)

    assert _outcomes(answer) == {"slow": ("pending", "0"), "lost": ("pending", "0")}
    assert "asked for until it has ended" in answer.json()["results"][0]["detail"]
    assert Order.objects.filter(cancel_requested_at__isnull=False).count() == 2
    sim.post("/sim/order", {"client_order_id": "slow", "status": "canceled"})
    polled(slow.pk, "canceled")


def test_only_the_orders_of_one_symbol_are_cancelled_when_it_is_named(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="tsla"))
    body = order(symbol="KO", client_order_id="ko", reference_price="60")
    ko = rest(sim, api, body)
    elsewhere = {"qty": "5", "side": "buy", "type": "limit", "time_in_force": "day"}
    placed = [
        sim.trading("POST", "/v2/orders", json={**elsewhere, "symbol": s, "limit_price": "1"})
        for s in ("TSLA", "KO")
    ]
    there = placed[0].json()["id"]

    outcomes = _outcomes(_all(api, symbol="TSLA"))

    assert outcomes == {"tsla": ("canceled", "0"), there: ("canceled", "0")}
    assert "/v2/orders" not in heard(sim, "DELETE")
    assert set(_open_at_broker(sim)) == {ko.broker_order_id, placed[1].json()["id"]}
    ko.refresh_from_db()
    assert (ko.status, ko.cancel_requested_at) == ("new", None)


def _violation(answer: Any) -> str:
    assert answer.status_code == 422, answer.content
    return str(answer.json()["violations"][0]["code"])


def test_new_orders_are_denied_while_it_runs_and_accepted_afterwards(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())
    sim.post("/sim/options", {"cancel_delay": 0.8})
    runner, answers = _in_background(lambda: _all(api, symbol="TSLA"))
    until(lambda: BrokerAccount.objects.get().cancelling_runs)

    denied = api.post("/orders", order(reference_price="240"))
    other_symbol = api.post("/orders", order(symbol="KO", reference_price="50"))
    replaced = api.post(f"/orders/{standing.pk}/replace", {"qty": "60"})

    assert _violation(denied) == "cancelling_all"
    assert other_symbol.status_code == 201
    assert replaced.status_code == 422
    runner.join()
    assert answers[0].status_code == 200
    assert len(sent(sim)) == 2
    assert heard(sim, "PATCH") == []
    assert api.post("/orders", order(reference_price="240")).status_code == 201


def test_the_bar_of_a_run_that_died_falls_by_itself(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    rows = BrokerAccount.objects.all()
    rows.update(cancelling_until=Now() + timedelta(seconds=5), cancelling_runs=[uuid4()])
    assert _violation(api.post("/orders", order())) == "cancelling_all"

    rows.update(cancelling_until=Now() - timedelta(seconds=1))

    assert api.post("/orders", order()).status_code == 201
    assert len(_outcomes(_all(api))) == 1, "and the next run forgets it"


def test_of_two_at_once_both_tell_how_all_ended_and_the_bar_falls_with_the_last(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="both"))
    sim.post("/sim/options", {"cancel_delay": 0.8})
    runner, answers = _in_background(lambda: _all(api))
    until(lambda: heard(sim, "DELETE"))

    assert _outcomes(_all(api, symbol="KO")) == {}, "there are none of KO"

    assert _violation(api.post("/orders", order(reference_price="240"))) == "cancelling_all"
    assert _outcomes(_all(api)) == {"both": ("canceled", "0")}
    runner.join()
    assert _outcomes(answers[0]) == {"both": ("canceled", "0")}
    assert len(sent(sim)) == 1


def test_a_broker_that_is_down_is_a_typed_503_and_every_wish_is_kept(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    names = _rest_many(sim, api, order, 3)
    sim.post("/sim/faults", [{"kind": "status_before", "count": None, "path": "/v2/orders.*"}])

    answer = _all(api)

    assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")
    assert "asked for again" in answer.json()["detail"]
    assert Order.objects.filter(cancel_requested_at__isnull=False).count() == len(names)
    assert Order.objects.filter(status="canceled").count() == 0
    sim.delete("/sim/faults")
    jobs.pursue_cancels()
    for standing in Order.objects.all():
        polled(standing.pk, "canceled")


def test_a_broker_that_can_not_be_read_for_a_moment_does_not_spoil_the_answer(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    names = _rest_many(sim, api, order, 3)
    unread = {"kind": "status_before", "method": "GET", "path": "/v2/orders", "count": 4}
    sim.post("/sim/faults", [unread])

    assert _outcomes(_all(api)) == dict.fromkeys(names, ("canceled", "0"))


def test_it_takes_the_scope_operate(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder, strategy: Strategy
) -> None:
    standing = rest(sim, api, order())
    _, trade = ApiToken.issue(strategy, ("read", "trade"))

    assert _all(Api(trade)).status_code == 403

    standing.refresh_from_db()
    assert (standing.status, standing.cancel_requested_at) == ("new", None)
    assert heard(sim, "DELETE") == []
    assert _all(api, reason="  ").status_code == 422


def test_many_cancels_of_all_at_once_neither_wait_for_ever_nor_fail(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    names = _rest_many(sim, api, order, 5)

    def run(_: int) -> Any:
        try:
            return _all(api)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(run, range(6)))

    for answer in answers:
        assert set(_outcomes(answer).values()) <= {("canceled", "0")}
    assert set(_outcomes(max(answers, key=lambda it: len(it.content)))) <= set(names)
    assert _open_at_broker(sim) == []


def test_the_command_prints_a_line_for_each_order_and_ends_with_0_when_all_is_confirmed(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="half"))
    sim.post("/sim/faults", [{"kind": "part_fill_while_cancelling"}])
    said = StringIO()

    call_command("cancel_all", "--reason", "closing time", stdout=said)

    assert said.getvalue().splitlines() == [
        "half: buy 50 TSLA: partially_filled, 25 filled",
        "main: 1 orders were open.",
    ]
    asked = Order.objects.get().history.get(reason="All are cancelled: closing time")
    assert asked.source == "operator"
    assert asked.actor.startswith("command line (")


def test_the_command_ends_with_1_and_says_what_is_not_confirmed(
    sim: SimulatorServer, api: Api, order: MakeOrder, short: None
) -> None:
    rest(sim, api, order(client_order_id="slow"))
    sim.post("/sim/options", {"cancel_delay": 1000})
    said = StringIO()

    with pytest.raises(SystemExit) as ended:
        call_command("cancel_all", "--reason", "closing time", "--symbol", "tsla", stdout=said)

    assert ended.value.code == 1
    assert "slow: buy 50 TSLA: pending, 0 filled (Not confirmed yet" in said.getvalue()
    assert "1 not confirmed" in said.getvalue()


def test_an_order_whose_answer_is_booked_while_all_are_cancelled_is_told_once(
    sim: SimulatorServer, api: Api, order: Callable[..., dict[str, Any]]
) -> None:
    quote(sim, "TSLA", "260")
    api.get("/account", fresh="true")
    late = {"kind": "delay_after", "path": "/v2/orders"}
    sim.post("/sim/faults", [{**late, "method": "POST", "seconds": 0.4}])
    sim.post("/sim/faults", [{**late, "method": "DELETE", "seconds": 0.6}])

    def post() -> None:
        try:
            api.post("/orders", order(client_order_id="on-its-way"))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(post)
        until(lambda: sim.get("/sim/state")["orders"])
        results = api.post("/orders/cancel-all", {"reason": "stop"}).json()["results"]
        sending.result()

    assert [
        (told["outcome"], told["order"] and told["order"]["client_order_id"]) for told in results
    ] == [("canceled", "on-its-way")]
