"""Dependent orders: for how many shares each is sent, also of parents that were replaced."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.models import Position
from risk import figures
from tests.conftest import Api, hold, sent
from tests.listening import Listening, listeners
from tests.orders.dependents import (
    LOSS,
    PAIR,
    PROFIT,
    again,
    at_broker,
    bought,
    child,
    exit_of,
    fill,
    free,
    idle,
    poll,
    posts,
    replace_elsewhere,
    rest,
    shares,
    status_at_broker,
    take_away,
)
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    idle()
    assert list(violations()) == []


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
    taken = take_away(sim, monkeypatch)
    fill(sim, parent, "4")
    poll()
    (held,) = taken
    sim.post("/sim/cancel", {"id": held})
    until(lambda: free(sim) == "4")
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
    taken = take_away(sim, monkeypatch)
    fill(sim, parent, "4")
    poll()
    (part,) = Order.objects.filter(role="stop_loss", qty=4)
    api.post(f"/orders/{part.pk}/cancel")
    sim.post("/sim/cancel", {"id": taken[0]})
    until(lambda: free(sim) == "4")
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
        assert api.post("/orders", exit_of(parent, qty=qty, limit_price=price)).status_code == 201

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
    other = api.post("/orders", exit_of(parent, limit_price="270.00")).json()

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

    api.post("/orders", exit_of(parent, limit_price="280.00"))
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
    other = replace_elsewhere(sim, parent, limit_price="251.00")
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
    other = replace_elsewhere(sim, parent, limit_price="249.00")
    until(lambda: at_broker(sim, parent)["status"] == "replaced")
    sim.post("/sim/cancel", {"id": other})
    until(lambda: status_at_broker(sim, other) == "canceled")

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
    other = replace_elsewhere(sim, parent, limit_price="251.00")
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
