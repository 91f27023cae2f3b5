"""Dependent orders until they are sent: never before the broker confirms the parent's fill and has
the shares free, never for more than filled, and exactly once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from orders import jobs
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api
from tests.orders.dependents import (
    PAIR,
    PROFIT,
    again,
    age,
    at_broker,
    bought,
    child,
    claim,
    exit_of,
    fill,
    free,
    idle,
    poll,
    posts,
    rest,
    sell_elsewhere,
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

    claim(sim, account, parent, "filled", "9")
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

    claim(sim, account, parent, "canceled", "0")
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

    claim(sim, account, parent, "canceled", "6")
    idle()
    age(parent, 61)
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
    held = sell_elsewhere(sim, "9")
    poll()

    again()
    assert posts(sim, parent) == []
    assert child(parent, "stop_loss").status == "waiting"

    sim.post("/sim/cancel", {"id": held})
    until(lambda: free(sim) == "9")
    again()

    assert shares(posts(sim, parent)) == [9]


def test_pauses_grow_and_a_person_hears_of_it_after_a_minute_until_it_is_sent(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/options", {"position_lag": 120})
    parent = bought(sim, api, **PAIR)

    for seconds, pause in ((0, 2), (20, 10), (61, 30.5), (400, 60)):
        age(parent, seconds)
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
    age(parent, 3600)
    sell_elsewhere(sim, "9")

    api.post("/orders", exit_of(parent))
    idle()

    retry_at = Order.objects.get(parent=parent).retry_at
    assert retry_at is not None
    assert retry_at - datetime.now(UTC) < timedelta(seconds=3)
    assert Alert.objects.count() == 0
    assert posts(sim, parent) == []


def test_the_alert_ends_when_the_waiting_order_is_cancelled(sim: SimulatorServer, api: Api) -> None:
    sim.post("/sim/options", {"position_lag": 120})
    parent = bought(sim, api, **PROFIT)
    age(parent, 61)
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
