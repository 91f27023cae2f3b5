"""Dependent orders until they are sent: never before the broker confirms the parent's fill and has
the shares free, never for more than filled, and exactly once."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from orders import dependents, jobs, judgement, statuses
from orders.chains import Chain
from orders.lifecycle import Source
from orders.models import Order
from orders.sync import take_in
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.parsing import parse_trade_update
from ordinis.verify import violations
from positions.models import Position
from risk import figures
from risk.limits import Limits, in_force
from tests.conftest import Api, hold, quote, sent
from tests.listening import Listening, listeners
from tests.orders.dependents import (
    LOSS,
    PAIR,
    PARENT,
    PROFIT,
    again,
    at_broker,
    bought,
    child,
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


# --- waiting ------------------------------------------------------------------------------------


def test_nothing_is_sent_while_the_parent_is_open(sim: SimulatorServer, api: Api) -> None:
    parent = rest(sim, api, **PAIR)

    poll()
    again()
    fill(sim, parent, "4")
    poll()
    again()

    assert posts(sim, parent) == []
    assert {o.status for o in parent.dependents.all()} == {"waiting"}
    assert Alert.objects.count() == 0


def test_a_fill_that_only_a_message_claims_sends_nothing_until_the_broker_confirms_it(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    """2025-10-10: the platform believed parents filled that were open at the broker."""
    parent = rest(sim, api, **PAIR)

    _claim(sim, account, parent, "filled", "9")
    idle()
    parent.refresh_from_db()
    assert parent.status == "filled"
    again()

    assert posts(sim, parent) == []
    assert child(parent, "take_profit").status == "waiting"
    fill(sim, parent)
    again()

    assert shares(posts(sim, parent)) == [9]
    assert Position.objects.get(symbol="TSLA").qty == 9


def test_an_end_that_only_a_message_claims_closes_nothing(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    parent = rest(sim, api, **PAIR)

    _claim(sim, account, parent, "canceled", "0")
    idle()
    again()

    assert {o.status for o in parent.dependents.all()} == {"waiting"}
    fill(sim, parent)
    again()
    again()

    assert shares(posts(sim, parent)) == [9]
    assert Alert.objects.get(code="late_report").subject == str(parent.pk)


def test_a_parent_that_ended_with_less_than_was_claimed_is_for_a_person(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    """The broker's answer may lag behind: what it leaves out would never get an exit."""
    parent = rest(sim, api, **PROFIT)
    fill(sim, parent, "4")
    sim.post("/sim/cancel", {"id": parent.broker_order_id})
    until(lambda: at_broker(sim, parent)["status"] == "canceled")

    _claim(sim, account, parent, "canceled", "6")
    idle()
    _age(parent, 61)
    again()

    assert posts(sim, parent) == []
    assert Alert.objects.get(code="dependent_waiting").ended_at is None


def test_nothing_is_sent_while_the_brokers_positions_lag_and_once_when_they_have_come(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/options", {"position_lag": 60})
    parent = bought(sim, api, **PAIR)

    for _ in range(3):
        again()
    profit = child(parent, "take_profit")
    assert profit.status == "waiting"
    assert profit.retry_at is not None
    assert posts(sim, parent) == []

    sim.post("/sim/options", {"position_lag": 0})
    again()
    again()

    assert shares(posts(sim, parent)) == [9]


def test_nothing_is_sent_while_another_order_holds_the_shares(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent)
    held = _sell_elsewhere(sim, "9")
    poll()

    again()
    assert posts(sim, parent) == []
    assert child(parent, "stop_loss").status == "waiting"

    sim.post("/sim/cancel", {"id": held})
    until(lambda: _free(sim) == "9")
    again()

    assert shares(posts(sim, parent)) == [9]


def test_pauses_grow_and_a_person_hears_of_it_after_a_minute_until_it_is_sent(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/options", {"position_lag": 120})
    parent = bought(sim, api, **PAIR)

    for seconds, pause in ((0, 2), (20, 10), (61, 30.5), (400, 60)):
        _age(parent, seconds)
        began = datetime.now(UTC)
        again()
        retry_at = child(parent, "take_profit").retry_at
        assert retry_at is not None
        assert pause <= (retry_at - began).total_seconds() < pause + 8
        assert Alert.objects.count() == (0 if seconds < 60 else 2)
    alert = Alert.objects.get(subject=str(child(parent, "take_profit").pk))
    assert (alert.code, alert.severity, alert.ended_at) == ("dependent_waiting", "critical", None)
    assert "selling 9, but only 0 are free" in alert.message

    sim.post("/sim/options", {"position_lag": 0})
    jobs.follow_up()
    assert posts(sim, parent) == [], "it is not tried again before its time"
    again()
    jobs.follow_up()

    assert shares(posts(sim, parent)) == [9]
    assert not Alert.objects.filter(ended_at=None).exists()


def test_an_exit_of_a_parent_that_filled_long_ago_has_its_own_minute(
    sim: SimulatorServer, api: Api
) -> None:
    parent = bought(sim, api)
    _age(parent, 3600)
    _sell_elsewhere(sim, "9")

    api.post("/orders", _exit(parent))
    idle()

    retry_at = Order.objects.get(parent=parent).retry_at
    assert retry_at is not None
    assert retry_at - datetime.now(UTC) < timedelta(seconds=3)
    assert Alert.objects.count() == 0
    assert posts(sim, parent) == []


def test_the_alert_ends_when_the_waiting_order_is_cancelled(sim: SimulatorServer, api: Api) -> None:
    sim.post("/sim/options", {"position_lag": 120})
    parent = bought(sim, api, **PROFIT)
    _age(parent, 61)
    again()
    assert Alert.objects.filter(ended_at=None).count() == 1

    assert api.post(f"/orders/{child(parent, 'take_profit').pk}/cancel").status_code == 200
    jobs.follow_up()

    assert not Alert.objects.filter(ended_at=None).exists()
    assert posts(sim, parent) == []


def test_a_broker_that_can_not_be_asked_is_asked_again(sim: SimulatorServer, api: Api) -> None:
    parent = rest(sim, api, **PROFIT)
    fill(sim, parent)
    path = f"/v2/orders/{parent.broker_order_id}"
    jobs.poll()
    sim.post("/sim/faults", [{"kind": "status_before", "path": path, "count": None}])
    idle()
    again()
    sim.delete("/sim/faults")
    again()

    assert shares(posts(sim, parent)) == [9]


# --- how much -----------------------------------------------------------------------------------


@pytest.mark.parametrize("exits", [PROFIT, LOSS, PAIR], ids=["profit", "loss", "pair"])
def test_a_parent_cancelled_half_filled_gets_exits_for_what_filled(
    sim: SimulatorServer, api: Api, exits: dict[str, Any]
) -> None:
    parent = rest(sim, api, **exits)
    fill(sim, parent, "4")
    api.post(f"/orders/{parent.pk}/cancel")
    until(lambda: at_broker(sim, parent)["status"] == "canceled")

    poll()

    assert shares(posts(sim, parent)) == [4]
    assert {o.qty for o in parent.dependents.all()} == {Decimal(4)}


def test_a_fill_that_wins_the_race_against_the_parents_cancel_gets_its_exits(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    sim.post("/sim/faults", [{"kind": "fill_while_cancelling"}])

    api.post(f"/orders/{parent.pk}/cancel")
    until(lambda: at_broker(sim, parent)["status"] == "filled")
    poll()

    assert shares(posts(sim, parent)) == [9]


def test_the_exits_of_a_parent_that_ended_with_nothing_filled_are_cancelled(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    api.post(f"/orders/{parent.pk}/cancel")
    until(lambda: at_broker(sim, parent)["status"] == "canceled")

    poll()

    assert {o.status for o in parent.dependents.all()} == {"canceled"}
    for order in parent.dependents.all():
        last = api.get(f"/orders/{order.pk}/history").json()[-1]
        assert (last["from"], last["to"], last["source"]) == ("waiting", "canceled", "dependents")
    assert posts(sim, parent) == []
    assert Alert.objects.count() == 0


def test_a_trade_taken_back_gets_no_exits(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    """The book keeps it until a person has decided; the broker has the shares no more."""
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        sim.post("/sim/options", {"position_lag": 120})
        parent = rest(sim, api, **PAIR)
        fill(sim, parent, "5")
        told = {"id": parent.broker_order_id, "qty": "4", "price": "250"}
        taken_back = sim.post("/sim/fill", told)["execution_id"]
        sim.post("/sim/bust", {"execution_id": taken_back})
        until(lambda: Order.objects.get(pk=parent.pk).executions_only)
    sim.post("/sim/options", {"position_lag": 0})

    again()

    assert shares(posts(sim, parent)) == [5]
    assert Order.objects.get(pk=parent.pk).filled_qty == 9


@pytest.mark.usefixtures("as_it_fills")
@pytest.mark.parametrize("exits", [PROFIT, PAIR], ids=["profit", "pair"])
def test_share_by_share_each_part_gets_its_exits_and_all_sum_up_to_what_filled(
    sim: SimulatorServer, api: Api, exits: dict[str, Any]
) -> None:
    parent = rest(sim, api, **exits)

    for qty, so_far in (("4", [4]), ("3", [4, 3]), ("2", [4, 3, 2])):
        fill(sim, parent, qty)
        poll()
        again()
        assert shares(posts(sim, parent)) == so_far

    profits = Order.objects.filter(role="take_profit").order_by("-qty")
    assert [o.qty for o in profits] == [4, 3, 2]
    assert {o.status for o in profits} <= {"pending_new", "new"}
    assert Order.objects.filter(role="stop_loss").count() == (3 if exits is PAIR else 0)


@pytest.mark.usefixtures("as_it_fills")
def test_share_by_share_a_parent_cancelled_half_filled_leaves_no_exit_for_the_rest(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent, "4")
    poll()

    api.post(f"/orders/{parent.pk}/cancel")
    until(lambda: at_broker(sim, parent)["status"] == "canceled")
    poll()

    assert shares(posts(sim, parent)) == [4]
    assert sorted((o.role, o.qty, o.status == "canceled") for o in parent.dependents.all()) == [
        ("stop_loss", 4, False),
        ("stop_loss", 5, True),
        ("take_profit", 4, False),
        ("take_profit", 5, True),
    ]


@pytest.mark.usefixtures("as_it_fills")
def test_share_by_share_a_part_that_came_back_is_sent_again_beside_the_next(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part waits as an order of its own, and is no sibling of what still waits."""
    parent = rest(sim, api, **PAIR)
    taken = _take_away(sim, monkeypatch)
    fill(sim, parent, "4")
    poll()
    (held,) = taken
    sim.post("/sim/cancel", {"id": held})
    until(lambda: _free(sim) == "4")
    fill(sim, parent, "5")

    poll()
    again()

    assert shares(posts(sim, parent)) == [4, 4, 5]
    first, second, third = (body["client_order_id"] for body in posts(sim, parent))
    assert first == second != third


@pytest.mark.usefixtures("as_it_fills")
def test_share_by_share_a_part_that_came_back_without_its_stop_loss_goes_alone(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = rest(sim, api, **PAIR)
    taken = _take_away(sim, monkeypatch)
    fill(sim, parent, "4")
    poll()
    (part,) = Order.objects.filter(role="stop_loss", qty=4)
    api.post(f"/orders/{part.pk}/cancel")
    sim.post("/sim/cancel", {"id": taken[0]})
    until(lambda: _free(sim) == "4")
    fill(sim, parent, "5")

    poll()
    again()

    assert [(int(b["qty"]), b.get("order_class")) for b in posts(sim, parent)] == [
        (4, "oco"),
        (4, None),
        (5, "oco"),
    ]


@pytest.mark.usefixtures("as_it_fills")
def test_share_by_share_a_part_whose_exits_were_cancelled_gets_no_second_ones(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent, "4")
    poll()
    (part,) = Order.objects.filter(role="take_profit", qty=4)
    api.post(f"/orders/{part.pk}/cancel")
    until(lambda: at_broker(sim, part)["status"] == "canceled")
    poll()
    again()
    assert shares(posts(sim, parent)) == [4]

    fill(sim, parent, "5")
    poll()

    assert shares(posts(sim, parent)) == [4, 5]


@pytest.mark.usefixtures("as_it_fills")
def test_share_by_share_a_stop_loss_alone_waits_for_the_end(sim: SimulatorServer, api: Api) -> None:
    """Beside the open buy the broker takes no stop that could trade with it."""
    parent = rest(sim, api, **LOSS)
    fill(sim, parent, "4")
    poll()
    again()
    assert posts(sim, parent) == []

    fill(sim, parent)
    poll()

    assert shares(posts(sim, parent)) == [9]


def test_two_orders_for_the_same_shares_are_sent_for_no_more_than_filled(
    sim: SimulatorServer, api: Api
) -> None:
    """Also where the account holds other shares that are free."""
    hold(sim, "TSLA", "100", "240")
    parent = rest(sim, api)
    for qty, price in (("6", "262.50"), ("6", "263.00"), ("9", "264.00")):
        assert api.post("/orders", _exit(parent, qty=qty, limit_price=price)).status_code == 201

    fill(sim, parent)
    poll()
    again()

    assert shares(posts(sim, parent)) == [6, 3]
    assert sorted(o.status == "canceled" for o in parent.dependents.all()) == [False, False, True]


def test_an_exit_beside_a_pair_for_the_same_shares_is_closed_and_says_why(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "TSLA", "100", "240")
    parent = rest(sim, api, **PAIR)
    other = api.post("/orders", _exit(parent, limit_price="270.00")).json()

    fill(sim, parent)
    poll()

    assert [body["order_class"] for body in posts(sim, parent)] == ["oco"]
    assert api.get(f"/orders/{other['id']}").json()["status"] == "canceled"
    assert "covered" in api.get(f"/orders/{other['id']}/history").json()[-1]["reason"]


def test_shares_whose_exit_was_cancelled_may_have_another(sim: SimulatorServer, api: Api) -> None:
    parent = bought(sim, api, **PROFIT)
    profit = child(parent, "take_profit")
    api.post(f"/orders/{profit.pk}/cancel")
    until(lambda: at_broker(sim, profit)["status"] == "canceled")
    poll()

    api.post("/orders", _exit(parent, limit_price="280.00"))
    idle()
    again()

    assert [str(b["limit_price"]) for b in posts(sim, parent)] == ["262.5", "280"]


# --- parents that are replaced ------------------------------------------------------------------


def test_exits_follow_a_parent_replaced_through_the_api(sim: SimulatorServer, api: Api) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent, "4")
    poll()
    replaced = api.post(f"/orders/{parent.pk}/replace", {"limit_price": "251.00"})
    assert replaced.status_code == 201, replaced.content
    successor = Order.objects.get(pk=replaced.json()["id"])
    until(lambda: at_broker(sim, parent)["status"] == "replaced")
    poll()
    again()
    assert len(sent(sim)) == 1, "the chain is still open"

    fill(sim, successor)
    poll()

    assert shares(posts(sim, parent)) == [9]
    assert {o.parent for o in Order.objects.exclude(role="")} == {parent}


def test_the_exits_of_a_parent_replaced_by_a_larger_one_are_for_all_of_it(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    larger = api.post(f"/orders/{parent.pk}/replace", {"qty": "20"}).json()
    until(lambda: at_broker(sim, parent)["status"] == "replaced")

    fill(sim, Order.objects.get(pk=larger["id"]))
    poll()

    assert shares(posts(sim, parent)) == [20]
    assert {o.qty for o in parent.dependents.all()} == {Decimal(20)}


@pytest.mark.usefixtures("as_it_fills")
def test_share_by_share_the_exits_of_a_parent_replaced_by_a_larger_one_are_for_all_of_it(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent, "4")
    poll()
    larger = Order.objects.get(
        pk=api.post(f"/orders/{parent.pk}/replace", {"qty": "20"}).json()["id"]
    )
    until(lambda: at_broker(sim, parent)["status"] == "replaced")

    fill(sim, larger, "8")
    poll()
    fill(sim, larger)
    poll()
    again()

    assert [int(qty) for qty in shares(posts(sim, parent))] == [4, 8, 8]


def test_exits_follow_a_parent_replaced_in_the_brokers_own_app_of_which_we_learn_late(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    other = _replace_elsewhere(sim, parent, limit_price="251.00")
    until(lambda: at_broker(sim, parent)["status"] == "replaced")
    # The poll learns that it was replaced, but not by what.
    away = {"kind": "status_before", "method": "GET", "path": f"/v2/orders/{other}", "count": None}
    listed = {"kind": "list_empty", "path": "/v2/orders", "count": None}
    sim.post("/sim/faults", [away, listed])
    poll()
    again()
    parent.refresh_from_db()
    assert (parent.status, parent.replacements.count()) == ("replaced", 0)
    assert {o.status for o in parent.dependents.all()} == {"waiting"}
    sim.post("/sim/fill", {"id": other, "price": "251"})

    sim.delete("/sim/faults")
    poll()
    again()

    assert shares(posts(sim, parent)) == [9]
    assert Position.objects.get(symbol="TSLA").qty == 9


def test_exits_are_closed_when_what_replaced_their_parent_ends_with_nothing_filled(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    other = _replace_elsewhere(sim, parent, limit_price="249.00")
    until(lambda: at_broker(sim, parent)["status"] == "replaced")
    sim.post("/sim/cancel", {"id": other})
    until(lambda: _status_at_broker(sim, other) == "canceled")

    poll()
    again()

    assert {o.status for o in Order.objects.filter(parent=parent)} == {"canceled"}
    assert posts(sim, parent) == []


def test_a_replacement_that_was_denied_does_not_hide_what_replaced_the_parent_after_it(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    sim.post("/sim/account", {"buying_power": "100"})
    figures._shared.clear()
    denied = api.post(f"/orders/{parent.pk}/replace", {"qty": "20"})
    assert denied.json()["code"] == "order_denied"
    sim.post("/sim/account", {"buying_power": None})
    other = _replace_elsewhere(sim, parent, limit_price="251.00")
    until(lambda: at_broker(sim, parent)["status"] == "replaced")
    away = {"kind": "status_before", "method": "GET", "path": f"/v2/orders/{other}", "count": None}
    sim.post("/sim/faults", [away, {"kind": "list_empty", "path": "/v2/orders", "count": None}])
    poll()
    again()
    assert {o.status for o in parent.dependents.all()} == {"waiting"}

    sim.delete("/sim/faults")
    sim.post("/sim/fill", {"id": other, "price": "251"})
    poll()
    again()

    assert shares(posts(sim, parent)) == [9]


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
        api.post("/orders", _exit(parent, qty="6", limit_price=price))
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
    _age(parent, 61)
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
    api.post("/orders", _exit(parent, side="buy", limit_price="240.00"))
    sim.post("/sim/account", {"buying_power": "1000"})

    fill(sim, parent)
    poll()

    assert posts(sim, parent) == []
    assert Order.objects.get(parent=parent).status == statuses.WAITING


# --- helpers ------------------------------------------------------------------------------------


def _exit(parent: Order, /, **changes: Any) -> dict[str, Any]:
    body = {**PARENT, "side": "sell", "limit_price": "262.50", "parent": str(parent.pk)}
    return {**body, **changes}


def _claim(
    sim: SimulatorServer, account: BrokerAccount, order: Order, status: str, filled: str
) -> None:
    """A message on the stream that the broker's own answers do not bear out."""
    told = {**at_broker(sim, order), "status": status, "filled_qty": filled}
    told["filled_avg_price"] = "250" if filled != "0" else None
    told["updated_at"] = datetime.now(UTC).isoformat()
    message = {"stream": "trade_updates", "data": {"event": status, "order": told}}
    take_in(account, parse_trade_update(json.loads(json.dumps(message))), Source.STREAM)


@pytest.fixture
def as_it_fills(account: BrokerAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exits are sent share by share, and a part at once after the one before."""
    monkeypatch.setattr(judgement, "_MARGIN", timedelta(0))
    account.dependents_activation = BrokerAccount.DependentsActivation.AS_IT_FILLS
    account.save(update_fields=("dependents_activation",))


def _age(parent: Order, seconds: float) -> None:
    """Plays that the parent filled, and its dependents were made, so long ago."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    Order.objects.filter(chain=parent.chain).update(updated_at=moment, created_at=moment)
    Order.objects.filter(parent=parent).update(created_at=moment)


def _sell_elsewhere(sim: SimulatorServer, qty: str) -> str:
    """An order in the broker's own app that holds shares; its id."""
    body = {"symbol": "TSLA", "side": "sell", "qty": qty, "type": "limit"}
    body |= {"time_in_force": "gtc", "limit_price": "400", "client_order_id": f"by-hand-{uuid4()}"}
    answer = sim.trading("POST", "/v2/orders", json=body)
    assert answer.status_code == 200, answer.text
    sim.delete("/sim/log")
    return str(answer.json()["id"])


def _take_away(sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Once, between our look at the positions and our POST, somebody else takes the shares."""
    taken: list[str] = []

    def at(name: str) -> None:
        if name == "dependents.committed" and not taken:
            taken.append("")
            taken[0] = _sell_elsewhere(sim, "4")

    monkeypatch.setattr(dependents, "failpoint", at)
    return taken


def _replace_elsewhere(sim: SimulatorServer, order: Order, **changes: str) -> str:
    """Replaces an order in the broker's own app; the id of its successor there."""
    answer = sim.trading("PATCH", f"/v2/orders/{order.broker_order_id}", json=changes)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def _status_at_broker(sim: SimulatorServer, broker_order_id: str) -> str:
    return str(sim.trading("GET", f"/v2/orders/{broker_order_id}").json()["status"])


def _free(sim: SimulatorServer) -> str:
    return str(sim.trading("GET", "/v2/positions/TSLA").json()["qty_available"])
