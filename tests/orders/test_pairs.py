"""A take-profit and its stop-loss as one OCO pair at the broker: sent as one order, each found,
followed and ended, and never both sold."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from orders import dependents, jobs, resolver
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api, quote
from tests.listening import Listening, listeners
from tests.orders.dependents import (
    LOSS,
    PAIR,
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
PAIR_POST = {"method": "POST", "path": "/v2/orders", "body": "oco"}


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    idle()
    assert list(violations()) == []


def test_a_take_profit_alone_is_a_limit_order(sim: SimulatorServer, api: Api) -> None:
    parent = bought(sim, api, **PROFIT)

    (body,) = posts(sim, parent)
    assert (body["side"], body["type"], body["time_in_force"]) == ("sell", "limit", "gtc")
    assert (Decimal(str(body["limit_price"])), body["client_order_id"]) == (
        Decimal("262.50"),
        child(parent, "take_profit").client_order_id,
    )
    quote(sim, "TSLA", "263")
    _poll_until(child(parent, "take_profit"), "filled")
    assert Position.objects.get().qty == 0


def test_a_stop_loss_alone_is_a_stop_order(sim: SimulatorServer, api: Api) -> None:
    parent = bought(sim, api, **LOSS)

    (body,) = posts(sim, parent)
    assert (body["side"], body["type"], "limit_price" in body) == ("sell", "stop", False)
    assert Decimal(str(body["stop_price"])) == 244
    quote(sim, "TSLA", "243")
    _poll_until(child(parent, "stop_loss"), "filled")
    assert Position.objects.get().qty == 0


def test_both_are_sent_as_one_order_and_both_get_the_brokers_ids(
    sim: SimulatorServer, api: Api
) -> None:
    parent = bought(
        sim, api, **{**PROFIT, "stop_loss": {"stop_price": "244", "limit_price": "243"}}
    )

    (body,) = posts(sim, parent)
    assert (body["order_class"], body["type"], shares([body])) == ("oco", "limit", [9])
    assert Decimal(str(body["take_profit"]["limit_price"])) == Decimal("262.50")
    assert {k: Decimal(str(v)) for k, v in body["stop_loss"].items()} == {
        "stop_price": 244,
        "limit_price": 243,
    }
    profit, stop = _pair(parent)
    told = at_broker(sim, profit)
    assert (profit.broker_order_id, [stop.broker_order_id]) == (
        told["id"],
        [leg["id"] for leg in sim.trading("GET", f"/v2/orders/{told['id']}").json()["legs"]],
    )


@pytest.mark.parametrize("by", ["poll", "stream"])
@pytest.mark.parametrize(
    ("price", "filled"), [("263", "take_profit"), ("243", "stop_loss")], ids=["profit", "loss"]
)
def test_one_fills_and_the_other_is_cancelled(
    sim: SimulatorServer, api: Api, account: BrokerAccount, by: str, price: str, filled: str
) -> None:
    def ends() -> bool:
        if by == "poll":
            poll()
        return {o.role: o.status for o in parent.dependents.all()} == {
            **dict.fromkeys(("take_profit", "stop_loss"), "canceled"),
            filled: "filled",
        }

    if by == "poll":
        parent = bought(sim, api, **PAIR)
        until(lambda: at_broker(sim, child(parent, "take_profit"))["status"] == "new")
        quote(sim, "TSLA", price)
        until(ends)
    else:
        with Listening(account):
            until(lambda: listeners(sim) == 1)
            parent = rest(sim, api, **PAIR)
            fill(sim, parent)
            until(lambda: {o.status for o in parent.dependents.all()} == {"new", "held"})
            quote(sim, "TSLA", price)
            until(ends)
    idle()

    assert len(posts(sim, parent)) == 1
    assert Position.objects.get().qty == 0
    assert Alert.objects.count() == 0


@pytest.mark.parametrize(
    "fault",
    [{"kind": "drop_after"}, {"kind": "status_after", "status": 504}, {"kind": "truncated_after"}],
    ids=lambda fault: str(fault["kind"]),
)
def test_a_pair_whose_answer_is_lost_is_found_with_both_orders_and_not_sent_again(
    sim: SimulatorServer, api: Api, fault: dict[str, Any]
) -> None:
    sim.post("/sim/faults", [{**PAIR_POST, **fault}])
    parent = bought(sim, api, **PAIR)
    assert {o.status for o in parent.dependents.all()} == {"unresolved"}

    jobs.resolve()
    again()

    profit, stop = _pair(parent)
    assert None not in (profit.broker_order_id, stop.broker_order_id)
    assert stop.status == "held"
    assert len(posts(sim, parent)) == 1


def test_a_lost_pair_of_which_a_part_has_filled_meanwhile_is_found(
    sim: SimulatorServer, api: Api
) -> None:
    """The broker lowers the other one's quantity: it is still the pair that we sent."""
    sim.post("/sim/faults", [{**PAIR_POST, "kind": "drop_after"}])
    parent = bought(sim, api, **PAIR)
    profit = child(parent, "take_profit")
    until(lambda: at_broker(sim, profit)["status"] == "new")
    sim.post("/sim/fill", {"id": at_broker(sim, profit)["id"], "qty": "3", "price": "262.50"})

    jobs.resolve()

    profit, stop = _pair(parent)
    assert (profit.status, profit.filled_qty, stop.status, stop.qty) == (
        "partially_filled",
        3,
        "held",
        6,
    )
    assert Alert.objects.count() == 0


def test_an_answer_without_legs_is_completed_by_a_look_up(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = rest(sim, api, **PAIR)
    fill(sim, parent)
    # An answer may lack its legs, as lists do at Alpaca unless asked for them.
    with monkeypatch.context() as without:
        without.setattr("ordinis.broker.parsing._legs", lambda _raw: ())
        poll()
    profit, stop = _pair(parent)
    assert profit.broker_order_id is not None
    assert (stop.status, stop.broker_order_id) == ("submitting", None)

    later = datetime.now(UTC) + timedelta(seconds=16)
    monkeypatch.setattr(jobs, "database_now", lambda: later)
    jobs.resolve()

    assert _pair(parent)[1].status == "held"
    assert len(posts(sim, parent)) == 1


def test_a_pair_whose_sender_died_before_it_was_sent_is_sent_as_that_pair(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    parent = _released_but_not_sent(sim, api, monkeypatch)
    assert {o.status for o in _pair(parent)} == {"submitting"}

    for _ in range(3):
        jobs.resolve()
    again()

    (body,) = posts(sim, parent)
    assert (body["order_class"], shares([body])) == ("oco", [9])
    assert None not in [order.broker_order_id for order in _pair(parent)]


def test_a_pair_that_never_arrived_and_is_too_old_to_send_fails_as_one_and_is_told(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    settings.RESEND_MAX_AGE = 0
    parent = _released_but_not_sent(sim, api, monkeypatch)

    for _ in range(3):
        jobs.resolve()
    again()

    assert {o.status for o in _pair(parent)} == {"failed"}
    alert = Alert.objects.get()
    assert (alert.code, alert.subject) == ("dependent_failed", str(_pair(parent)[0].pk))
    assert posts(sim, parent) == []


def test_an_exit_that_came_back_unresolved_needs_all_its_proof_anew(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was missed before it waited again says nothing of its next sending."""
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    parent = rest(sim, api, **PROFIT)
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "POST", "path": "/v2/orders"}])
    fill(sim, parent)
    poll()
    by_hand = {"symbol": "TSLA", "side": "sell", "qty": "9", "type": "limit", "limit_price": "400"}
    by_hand |= {"time_in_force": "gtc", "client_order_id": "by-hand"}
    held = sim.trading("POST", "/v2/orders", json=by_hand).json()["id"]
    for _ in range(6):  # sent once more after three misses, refused, and not found again
        jobs.resolve()
    assert child(parent, "take_profit").status == "waiting"
    sim.post("/sim/cancel", {"id": held})
    position = "/v2/positions/TSLA"
    until(lambda: sim.trading("GET", position).json()["qty_available"] == "9")
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "POST", "path": "/v2/orders"}])
    again()
    assert child(parent, "take_profit").status == "unresolved"
    assert len(posts(sim, parent)) == 3

    jobs.resolve()
    assert len(posts(sim, parent)) == 3, "one miss is no proof"
    jobs.resolve()
    jobs.resolve()

    assert len({body["client_order_id"] for body in posts(sim, parent)}) == 1
    assert child(parent, "take_profit").broker_order_id is not None


@pytest.mark.parametrize("part", ["take_profit", "stop_loss"])
def test_one_sells_a_part_and_the_other_the_rest(sim: SimulatorServer, api: Api, part: str) -> None:
    """The broker lowers the quantity of the other: that one is filled when it has sold the rest."""
    parent = bought(sim, api, **PAIR)
    orders = {order.role: order for order in _pair(parent)}
    other = orders["stop_loss" if part == "take_profit" else "take_profit"]
    until(lambda: at_broker(sim, orders["take_profit"])["status"] == "new")
    if part == "stop_loss":
        until(lambda: at_broker(sim, orders["stop_loss"])["status"] == "held")
    fill(sim, orders[part], "3")
    poll()
    fill(sim, other)
    _poll_until(other, "filled")
    poll()

    assert {o.role: (o.status, o.filled_qty) for o in _pair(parent)} == {
        part: ("canceled", 3),
        other.role: ("filled", 6),
    }
    assert Position.objects.get().qty == 0
    assert Alert.objects.count() == 0


@pytest.mark.parametrize("cancelled", ["take_profit", "stop_loss"])
def test_the_cancel_of_one_ends_both(sim: SimulatorServer, api: Api, cancelled: str) -> None:
    parent = bought(sim, api, **PAIR)
    until(lambda: at_broker(sim, child(parent, "stop_loss"))["status"] == "held")

    answer = api.post(f"/orders/{child(parent, cancelled).pk}/cancel")
    assert answer.status_code == 200
    _poll_until(child(parent, cancelled), "canceled")
    poll()

    assert {o.status for o in _pair(parent)} == {"canceled"}
    assert len(posts(sim, parent)) == 1


def test_a_take_profit_whose_price_is_replaced_still_ends_with_its_stop_loss(
    sim: SimulatorServer, api: Api
) -> None:
    parent = bought(sim, api, **PAIR)
    profit = child(parent, "take_profit")
    until(lambda: at_broker(sim, profit)["status"] == "new")
    poll()
    replaced = api.post(f"/orders/{profit.pk}/replace", {"limit_price": "261.00"})
    assert replaced.status_code == 201, replaced.content
    successor = Order.objects.get(pk=replaced.json()["id"])
    until(lambda: at_broker(sim, successor)["status"] == "new")
    fill(sim, child(parent, "stop_loss"), "3")
    poll()
    fill(sim, successor)

    _poll_until(successor, "filled")
    _poll_until(child(parent, "stop_loss"), "canceled")

    assert Position.objects.get().qty == 0


@pytest.mark.parametrize("replaced", ["take_profit", "stop_loss"])
def test_an_exit_replaced_in_the_brokers_own_app_still_ends_with_the_other(
    sim: SimulatorServer, api: Api, replaced: str
) -> None:
    parent = bought(sim, api, **PAIR)
    profit, stop = _pair(parent)
    until(lambda: at_broker(sim, profit)["status"] == "new")
    old, other = (profit, stop) if replaced == "take_profit" else (stop, profit)
    change = {"limit_price": "261"} if old is profit else {"stop_price": "245"}
    answer = sim.trading("PATCH", f"/v2/orders/{old.broker_order_id}", json=change)
    assert answer.status_code == 200, answer.text
    until(lambda: at_broker(sim, old)["status"] == "replaced")
    poll()
    (successor,) = old.replacements.all()

    quote(sim, "TSLA", "262" if replaced == "take_profit" else "244.50")
    _poll_until(successor, "filled")
    _poll_until(other, "canceled")

    assert Position.objects.get().qty == 0
    assert len(posts(sim, parent)) == 1


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exits", "words"),
    [(PROFIT, "insufficient qty"), (PAIR, "insufficient qty"), (PAIR, "must be exit orders")],
    ids=["profit", "pair", "pair without a position"],
)
def test_a_refusal_for_lag_lets_it_wait_and_it_is_sent_again_with_the_same_id(
    sim: SimulatorServer,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    exits: dict[str, Any],
    words: str,
) -> None:
    given_back = _taken_between_look_and_post(sim, monkeypatch, all_sold="exit" in words)
    parent = bought(sim, api, **exits)
    came_back = child(parent, "take_profit")
    assert came_back.status == "waiting"
    assert came_back.retry_at is not None
    assert words in came_back.history.latest("seq").reason
    assert {(o.status, o.order_class, o.leg_of) for o in parent.dependents.all()} == {
        ("waiting", "", None)
    }
    assert Alert.objects.count() == 0

    given_back()
    again()

    first, second = posts(sim, parent)
    assert first == second
    orders = sim.get("/sim/state")["orders"]
    assert [o["client_order_id"] for o in orders].count(came_back.client_order_id) == 1
    assert {o.status for o in parent.dependents.all()} <= {"pending_new", "new", "held"}


def test_a_pair_that_came_back_may_lose_one_and_the_other_goes_alone(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back = _taken_between_look_and_post(sim, monkeypatch)
    parent = bought(sim, api, **PAIR)
    api.post(f"/orders/{child(parent, 'take_profit').pk}/cancel")

    given_back()
    again()

    assert [(b["type"], b.get("order_class")) for b in posts(sim, parent)] == [
        ("limit", "oco"),
        ("stop", None),
    ]
    assert child(parent, "stop_loss").broker_order_id is not None


def test_an_exit_that_the_broker_keeps_refusing_for_lag_is_told_and_tried_less_and_less(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependents, "_PATIENCE", dependents._AT_LEAST * 0)
    monkeypatch.setattr(dependents, "_AT_LEAST", dependents._AT_MOST)
    _taken_between_look_and_post(sim, monkeypatch)
    parent = bought(sim, api, **PROFIT)

    profit = child(parent, "take_profit")
    assert profit.retry_at is not None
    assert (profit.retry_at - profit.updated_at).total_seconds() > 50
    alert = Alert.objects.get()
    assert (alert.code, alert.subject) == ("dependent_waiting", str(profit.pk))
    assert "insufficient qty" in alert.message


def test_a_stop_beside_an_open_buy_waits_until_the_broker_takes_it(
    sim: SimulatorServer, api: Api
) -> None:
    """A wash trade is no reason to leave the position without its exit."""
    parent = rest(sim, api, **LOSS)
    other = api.post("/orders", {"symbol": "TSLA", "side": "buy", "qty": "1", "limit_price": "200"})
    fill(sim, parent)
    poll()
    assert child(parent, "stop_loss").status == "waiting"

    api.post(f"/orders/{other.json()['id']}/cancel")
    until(lambda: at_broker(sim, Order.objects.get(pk=other.json()["id"]))["status"] == "canceled")
    poll()
    again()

    assert child(parent, "stop_loss").broker_order_id is not None


def test_a_refusal_for_any_other_reason_is_final_and_a_person_hears_of_it(
    sim: SimulatorServer, api: Api
) -> None:
    parent = rest(sim, api, **PAIR)
    sim.post("/sim/faults", [{**PAIR_POST, "kind": "no_funds"}])
    fill(sim, parent)
    poll()
    again()

    assert {o.status for o in _pair(parent)} == {"rejected"}
    assert all(o.rejection for o in _pair(parent))
    alert = Alert.objects.exclude(code="breaker_open").get()
    assert (alert.code, alert.severity) == ("dependent_rejected", "critical")
    assert "The position stands without it." in alert.message
    assert len(posts(sim, parent)) == 1


def test_an_exit_rejected_after_it_was_accepted_is_told(sim: SimulatorServer, api: Api) -> None:
    parent = rest(sim, api, **PAIR)
    sim.post("/sim/faults", [{"kind": "reject_later"}])
    fill(sim, parent)
    poll()
    _poll_until(child(parent, "take_profit"), "rejected")
    _poll_until(child(parent, "stop_loss"), "canceled")

    alert = Alert.objects.get()
    assert (alert.code, alert.severity) == ("dependent_rejected", "critical")
    assert "stands without it" in alert.message


def test_a_replacement_that_is_refused_leaves_the_exit_and_is_no_incident(
    sim: SimulatorServer, api: Api
) -> None:
    parent = bought(sim, api, **PAIR)
    profit = child(parent, "take_profit")
    until(lambda: at_broker(sim, profit)["status"] == "new")

    crossed = api.post(f"/orders/{profit.pk}/replace", {"limit_price": "243.00"})

    assert (crossed.status_code, crossed.json()["code"]) == (422, "broker_rejected")
    assert at_broker(sim, profit)["status"] == "new"
    assert Alert.objects.count() == 0


def _released_but_not_sent(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> Order:
    """A filled parent whose pair was about to be sent when the process died, 16 seconds ago."""

    def die(name: str) -> None:
        assert name != "dependents.committed", "dies here"

    with monkeypatch.context() as dying:
        dying.setattr(dependents, "failpoint", die)
        parent = bought(sim, api, **PAIR)
    later = datetime.now(UTC) + timedelta(seconds=16)
    monkeypatch.setattr(jobs, "database_now", lambda: later)
    return parent


def _pair(parent: Order) -> tuple[Order, Order]:
    return child(parent, "take_profit"), child(parent, "stop_loss")


def _poll_until(order: Order, status: str) -> None:
    def is_so() -> bool:
        poll()
        order.refresh_from_db()
        return order.status == status

    until(is_so)


def _taken_between_look_and_post(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch, *, all_sold: bool = False
) -> Any:
    """Once, after our look at the positions, the shares are held by another order, or sold. Gives
    what undoes that."""
    taken: list[str] = []
    by_hand = {"symbol": "TSLA", "side": "sell", "qty": "9"}

    def at(name: str) -> None:
        if name != "dependents.committed" or taken:
            return
        taken.append("")
        if all_sold:
            sim.post("/sim/trade", by_hand)
        else:
            order = {**by_hand, "type": "limit", "time_in_force": "gtc", "limit_price": "400"}
            body = {**order, "client_order_id": "by-hand"}
            taken[0] = sim.trading("POST", "/v2/orders", json=body).json()["id"]

    def give_back() -> None:
        if all_sold:
            sim.post("/sim/trade", {**by_hand, "side": "buy"})
            return
        sim.post("/sim/cancel", {"id": taken[0]})
        position = "/v2/positions/TSLA"
        until(lambda: sim.trading("GET", position).json()["qty_available"] == "9")

    monkeypatch.setattr(dependents, "failpoint", at)
    return give_back


def test_a_leg_that_no_answer_names_is_found_in_the_list_of_all_orders(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinis.broker.parsing._legs", lambda raw: ())
    parent = bought(sim, api, **PAIR)
    idle()
    leg = child(parent, "stop_loss")
    assert leg.acknowledged_at is None
    Order.objects.filter(pk=leg.pk).update(submitted_at=leg.created_at - timedelta(minutes=1))

    jobs.resolve()

    leg.refresh_from_db()
    assert leg.status == "held"
    assert leg.broker_order_id == at_broker(sim, leg)["id"]


def test_a_leg_that_the_broker_does_not_have_at_all_is_given_up_and_told(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinis.broker.parsing._legs", lambda raw: ())
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    monkeypatch.setattr(resolver, "_is_like", lambda leg, report: False)
    parent = bought(sim, api, **PAIR)
    idle()
    leg = child(parent, "stop_loss")
    Order.objects.filter(pk=leg.pk).update(submitted_at=leg.created_at - timedelta(minutes=1))

    for _ in range(4):
        jobs.resolve()

    leg.refresh_from_db()
    assert leg.status == "failed"
    assert Alert.objects.get(code="dependent_failed").subject == str(leg.pk)


@pytest.mark.usefixtures("as_it_fills")
def test_of_legs_alike_that_no_answer_names_each_is_found_by_its_shares(
    sim: SimulatorServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ordinis.broker.parsing._legs", lambda raw: ())
    parent = rest(sim, api, **PAIR)
    for qty in ("4", "3"):
        fill(sim, parent, qty)
        poll()
        again()
    legs = Order.objects.filter(leg_of__isnull=False)
    assert sorted(leg.qty for leg in legs) == [3, 4]
    legs.update(submitted_at=parent.created_at - timedelta(minutes=1))

    jobs.resolve()

    for leg in legs:
        assert (leg.status, leg.qty) == ("held", Decimal(at_broker(sim, leg)["qty"]))
    assert not Alert.objects.filter(code="mismatched_order").exists()
