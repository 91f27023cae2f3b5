"""Dependent orders: cancelled while they wait, sent exactly once, and those that follow a sell."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, transaction

from orders import dependents, jobs, statuses
from orders.chains import Chain
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from risk.limits import Limits, in_force
from tests.conftest import Api, hold, quote
from tests.orders.dependents import (
    PAIR,
    PARENT,
    PROFIT,
    again,
    age,
    at_broker,
    bought,
    child,
    exit_of,
    fill,
    idle,
    poll,
    posts,
    rest,
    shares,
)
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    idle()
    assert list(violations()) == []


# --- cancels ------------------------------------------------------------------------------------


def test_a_waiting_order_is_cancelled_here_and_never_sent(sim: SimulatorServer, api: Api) -> None:
    parent = rest(sim, api, **PROFIT)
    profit = child(parent, "take_profit")

    answer = api.post(f"/orders/{profit.pk}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    fill(sim, parent)
    poll()
    again()

    assert posts(sim, parent) == []
    assert api.get(f"/orders/{profit.pk}/history").json()[-1]["source"] == "api"


@pytest.mark.parametrize(
    ("cancelled", "sent_type"), [("take_profit", "stop"), ("stop_loss", "limit")]
)
def test_of_two_waiting_exits_one_is_cancelled_and_the_other_sent_alone(
    sim: SimulatorServer, api: Api, cancelled: str, sent_type: str
) -> None:
    parent = rest(sim, api, **PAIR)
    api.post(f"/orders/{child(parent, cancelled).pk}/cancel")

    fill(sim, parent)
    poll()

    assert [body["type"] for body in posts(sim, parent)] == [sent_type]
    assert "order_class" not in posts(sim, parent)[0]


# --- exactly once -------------------------------------------------------------------------------


@pytest.mark.usefixtures("as_it_fills")
def test_what_a_process_that_died_left_waiting_is_found_in_the_tables(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.wake._begin", lambda *_: None)
    parent = rest(sim, api, **PAIR)

    for qty, so_far in (("4", [4]), ("5", [4, 5])):
        fill(sim, parent, qty)
        jobs.poll()
        assert shares(posts(sim, parent)) == so_far[:-1]
        jobs.follow_up()
        jobs.follow_up()
        assert shares(posts(sim, parent)) == so_far


@pytest.mark.parametrize("overtaker", [0, 1], ids=["of the same order", "of another one"])
def test_a_waker_that_another_overtakes_sends_nothing_for_the_same_shares(
    sim: SimulatorServer,
    api: Api,
    account: BrokerAccount,
    monkeypatch: pytest.MonkeyPatch,
    overtaker: int,
) -> None:
    hold(sim, "TSLA", "100", "240")
    parent = rest(sim, api)
    for price in ("262.50", "263.00"):
        api.post("/orders", exit_of(parent, qty="6", limit_price=price))
    fill(sim, parent)
    monkeypatch.setattr("orders.wake._begin", lambda *_: None)
    jobs.poll()
    account.refresh_from_db()
    chain = Chain.of(parent.pk)
    groups = dependents._groups(dependents._waiting(chain))
    overtaking: list[bool] = []

    def overtaken(*of: Any) -> Limits:
        if not overtaking:
            overtaking.append(True)
            dependents._activate(account, chain, Decimal(9), groups[overtaker])
        return in_force(*of)

    monkeypatch.setattr(dependents, "in_force", overtaken)
    dependents._activate(account, chain, Decimal(9), groups[0])
    assert shares(posts(sim, parent)) == [6]

    again()
    assert shares(posts(sim, parent)) == [6, 3]


def test_a_waker_with_an_old_list_closes_nothing_that_has_been_sent(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shares are covered: by the very order that it holds for a waiting one."""
    parent = rest(sim, api, **PAIR)
    fill(sim, parent)
    monkeypatch.setattr("orders.wake._begin", lambda *_: None)
    jobs.poll()
    account.refresh_from_db()
    chain = Chain.of(parent.pk)
    (group,) = dependents._groups(dependents._waiting(chain))
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "POST", "path": "/v2/orders"}])

    dependents._activate(account, chain, Decimal(9), group)
    dependents._activate(account, chain, Decimal(9), group)

    assert {o.status for o in parent.dependents.all()} == {"unresolved"}
    jobs.resolve()
    assert shares(posts(sim, parent)) == [9]
    assert {o.status for o in parent.dependents.all()} <= {"pending_new", "new", "held"}


def test_four_wakers_and_the_job_at_once_send_it_once(sim: SimulatorServer, api: Api) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent)
    sim.post("/sim/options", {"latency": 0.02})
    start = Barrier(5)

    def wake_up(work: Any) -> None:
        start.wait(10)
        try:
            work()
        finally:
            connection.close()

    def advance() -> None:
        dependents.advance(parent.pk)

    jobs.poll()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(wake_up, [advance, advance, advance, advance, jobs.follow_up]))
    idle()

    assert shares(posts(sim, parent)) == [9]


def test_verify_names_an_exit_sent_before_its_parents_fill_or_for_more_than_that(
    sim: SimulatorServer, api: Api
) -> None:
    parent = bought(sim, api, **PROFIT)
    profit = child(parent, "take_profit")
    early, more = parent.created_at - timedelta(hours=1), {"qty": 10}

    for changes, words in (({"judged_at": early}, "was sent before"), (more, "are for 10")):
        with transaction.atomic():
            Order.objects.filter(pk=profit.pk).update(**changes)
            assert [words in violation for violation in violations()] == [True]
            transaction.set_rollback(True)


# --- sells --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "worst"),
    [
        ({"take_profit": {"limit_price": "240.00"}}, "240.00"),
        ({"stop_loss": {"stop_price": "260.00"}}, "266.50"),
    ],
    ids=["profit", "loss"],
)
def test_what_follows_a_sell_is_a_buy_and_judged_as_one(
    sim: SimulatorServer, api: Api, exit: dict[str, Any], worst: str
) -> None:
    hold(sim, "TSLA", "9", "240")
    quote(sim, "TSLA", "245")
    sold = {**PARENT, "side": "sell", **exit}
    parent = Order.objects.get(pk=api.post("/orders", sold).json()["id"])
    until(lambda: at_broker(sim, parent)["status"] == "new")
    sim.post("/sim/account", {"buying_power": "1000"})
    fill(sim, parent)
    poll()
    age(parent, 61)
    again()

    assert posts(sim, parent) == []
    alert = Alert.objects.get()
    assert f"needs ${Decimal(worst) * 9:,.2f}, has $1,000.00" in alert.message
    sim.post("/sim/account", {"buying_power": None})
    again()

    (body,) = posts(sim, parent)
    assert (body["side"], shares([body])) == ("buy", [9])


def test_an_order_of_its_own_that_follows_a_sell_is_judged_as_a_buy(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "TSLA", "9", "240")
    quote(sim, "TSLA", "245")
    parent = Order.objects.get(pk=api.post("/orders", {**PARENT, "side": "sell"}).json()["id"])
    until(lambda: at_broker(sim, parent)["status"] == "new")
    api.post("/orders", exit_of(parent, side="buy", limit_price="240.00"))
    sim.post("/sim/account", {"buying_power": "1000"})

    fill(sim, parent)
    poll()

    assert posts(sim, parent) == []
    assert Order.objects.get(parent=parent).status == statuses.WAITING
