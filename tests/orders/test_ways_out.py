"""What closes a position, and what exits from one, is never barred by what else was sent, by the
size of an order, or by a halt that has passed; and it never opens a position the other way."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from orders import jobs, resolver
from orders.flattening import flatten, propose
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from risk import figures
from tests.conftest import Api, hold, quote, sent
from tests.orders.dependents import LOSS, PAIR, again, bought, child, fill, poll, posts, rest
from tests.orders.limited import buy, confirmed_long_ago, limit, sell, set_state
from tests.orders.standing import held_at_broker, polled
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "0123456789abcdef"


def _stop_of(parent: Order) -> Order:
    """The stop-loss, as it stands at the broker."""
    return polled(child(parent, "stop_loss").pk, "new", "accepted", "held")


# --- closing -------------------------------------------------------------------------------------


def test_a_strategy_that_loops_does_not_keep_the_desk_from_closing(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "10", "240")
    quote(sim, "TSLA", "250")
    limit(account, max_orders_per_minute=2)
    set_state(account, "reducing")
    loop = [api.post("/orders", buy(price=str(200 + n))).status_code for n in range(3)]
    loop += [
        api.post("/orders", sell("1", str(300 + n), reduce_only=True)).status_code for n in range(3)
    ]

    (closed,) = flatten(account, propose(account, Decimal(1)), token=TOKEN, actor="ann")

    assert loop == [422, 422, 429, 201, 201, 429]
    assert closed.problem == ""
    assert sent(sim)[-1]["body"]["qty"] == "8"


@pytest.mark.parametrize("limits", [{"max_orders_per_minute": 1}, {"max_order_qty": 5}])
def test_the_desk_closes_everything_at_once_whatever_one_strategy_may_send(
    sim: SimulatorServer, account: BrokerAccount, limits: dict[str, Any]
) -> None:
    for symbol in ("TSLA", "OKE", "KO"):
        hold(sim, symbol, "10", "50")
    limit(account, **limits)

    done = flatten(account, propose(account, Decimal(1)), token=TOKEN, actor="ann")

    assert [each.problem for each in done] == ["", "", ""]
    assert sorted(each["body"]["symbol"] for each in sent(sim)) == ["KO", "OKE", "TSLA"]


def test_an_order_that_only_reduces_passes_where_others_have_used_up_the_rate(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "100", "240")
    quote(sim, "TSLA", "250")
    limit(account, max_orders_per_minute=1)
    assert api.post("/orders", buy("OKE", "1", "10")).status_code == 201

    assert api.post("/orders", sell("50")).status_code == 429
    assert api.post("/orders", sell("100", reduce_only=True)).status_code == 201


def test_a_reducing_order_is_not_cut_by_an_order_that_the_figures_may_count_twice(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "TSLA", "13", "240")
    quote(sim, "TSLA", "250")
    polled(api.post("/orders", sell("5")).json()["id"], "new")

    second = api.post("/orders", sell("13", "301", reduce_only=True)).json()

    assert (second["qty"], second["requested_qty"]) == ("8", "13")


# --- exits ---------------------------------------------------------------------------------------


def test_a_stop_loss_is_moved_though_the_rate_is_used_up(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    stop = _stop_of(bought(sim, api, **LOSS))
    limit(account, max_orders_per_minute=1)
    assert api.post("/orders", buy(qty="1")).status_code == 429

    moved = api.post(f"/orders/{stop.pk}/replace", {"stop_price": "245"})

    assert moved.status_code == 201, moved.content
    polled(stop.pk, "replaced")


def test_the_stop_of_a_pair_is_moved_beside_a_resting_buy(sim: SimulatorServer, api: Api) -> None:
    stop = _stop_of(bought(sim, api, **PAIR))
    resting = api.post("/orders", buy(qty="1"))
    assert resting.status_code == 201, resting.content
    confirmed_long_ago()

    moved = api.post(f"/orders/{stop.pk}/replace", {"stop_price": "245"})

    assert moved.status_code == 201, moved.content


def test_a_stop_of_a_pair_that_was_moved_lets_a_buy_pass_as_before(
    sim: SimulatorServer, api: Api
) -> None:
    stop = _stop_of(bought(sim, api, **PAIR))
    moved = api.post(f"/orders/{stop.pk}/replace", {"stop_price": "245"})
    polled(moved.json()["id"], "new", "held")
    confirmed_long_ago()

    resting = api.post("/orders", buy(qty="1"))

    assert resting.status_code == 201, resting.content


@pytest.mark.parametrize("exits", [LOSS, PAIR])
def test_an_exit_that_never_arrived_waits_while_halted_and_is_sent_when_trading_is_resumed(
    sim: SimulatorServer,
    api: Api,
    account: BrokerAccount,
    exits: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    parent = rest(sim, api, **exits)
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "POST", "path": "/v2/orders"}])
    fill(sim, parent)
    poll()
    assert child(parent, "stop_loss").status in ("unresolved", "submitting")
    sim.delete("/sim/log")
    set_state(account, "halted")
    for _ in range(4):
        jobs.resolve()
        again()
    assert {order.status for order in parent.dependents.all()} == {"waiting"}
    assert sent(sim) == []

    set_state(account, "active")
    again()

    assert None not in [order.broker_order_id for order in parent.dependents.all()]
    assert len(posts(sim, parent)) == 1


def test_the_exit_of_a_short_sale_that_is_gone_opens_nothing(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "245")
    limit(account, allow_short=True)
    body = sell("9", "250", reference_price="249.5", stop_loss={"stop_price": "260"})
    parent = polled(api.post("/orders", body).json()["id"], "new")
    set_state(account, "halted")
    fill(sim, parent)
    poll()
    by_hand = {"symbol": "TSLA", "side": "buy", "qty": "9", "type": "market"}
    by_hand |= {"time_in_force": "day", "client_order_id": "by-hand"}
    assert sim.trading("POST", "/v2/orders", json=by_hand).status_code == 200
    until(lambda: held_at_broker(sim) == 0)
    figures._shared.clear()
    set_state(account, "active")

    again()

    assert child(parent, "stop_loss").status == "waiting"
    assert posts(sim, parent) == []
