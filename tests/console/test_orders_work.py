"""An order is cancelled and looked up from its page: who may, what is said, that no look changes
anything."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from orders.models import Order, OrderHistory
from ordinis.accounts.models import BrokerAccount
from reconciliation import adoption
from reconciliation.models import Break, Kind
from reconciliation.run import reconcile
from tests.conftest import Api
from tests.console.conftest import Browse, Person, words
from tests.orders.standing import at_broker, heard, polled, rest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]
ON_ITS_WAY = "Its cancel is on its way. Until the broker says that it has ended, it may still fill."


@pytest.fixture
def standing(sim: SimulatorServer, api: Api, order: MakeOrder) -> Order:
    return rest(sim, api, order())


def address(order: Order, action: str = "change") -> str:
    return f"/orders/order/{order.pk}/{action}/"


def press(client: Client, order: Order, action: str, **given: str) -> Any:
    return client.post(address(order, action), given, follow=True)


def said(order: Order) -> list[tuple[str, str, str]]:
    rows = OrderHistory.objects.filter(order=order, source=OrderHistory.Source.OPERATOR)
    return list(rows.values_list("actor", "reason", "to_status"))


def status_at_broker(sim: SimulatorServer, order: Order) -> str:
    return str(at_broker(sim, order.client_order_id)[0]["status"])


@pytest.mark.parametrize(
    ("reason", "kept"), [("Wrong price.", "Wrong price."), ("", "Its cancel was asked for.")]
)
def test_an_operator_cancels_an_order_and_is_told_that_it_may_still_fill(
    sim: SimulatorServer, browse: Browse, standing: Order, reason: str, kept: str
) -> None:
    client = browse("Operator")

    page = press(client, standing, "cancel", reason=reason).content.decode()

    assert ON_ITS_WAY in words(page)
    assert "Its cancel was asked for" in words(page)
    assert [(actor, why) for actor, why, _ in said(standing)] == [("operator", kept)]
    assert heard(sim, "DELETE") == [f"/v2/orders/{standing.broker_order_id}"]
    assert polled(standing.pk, "canceled").filled_qty == 0
    assert 'id="open-cancel"' not in client.get(address(standing)).content.decode()


def test_an_order_that_was_adopted_is_cancelled_too(
    sim: SimulatorServer,
    settings: LazySettings,
    account: BrokerAccount,
    browse: Browse,
    person: Person,
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    reconcile(account)
    body = {"symbol": "AAPL", "side": "buy", "qty": "5", "type": "limit", "time_in_force": "gtc"}
    sim.trading("POST", "/v2/orders", json={**body, "limit_price": "1"})
    reconcile(account)
    reconcile(account)
    row = Break.objects.get(kind=Kind.ORDER_EXTERNAL)
    order = adoption.adopt(row, by=person("ann", "Operator"), reason="The desk's.")

    page = press(browse("Operator"), order, "cancel").content.decode()

    assert ON_ITS_WAY in words(page)
    assert heard(sim, "DELETE") == [f"/v2/orders/{order.broker_order_id}"]
    until(lambda: status_at_broker(sim, order) == "canceled")


def test_a_broker_that_is_down_is_told_and_the_cancel_is_kept(
    sim: SimulatorServer, browse: Browse, standing: Order
) -> None:
    sim.stop()
    answer = press(browse("Operator"), standing, "cancel", reason="Out <now>.")
    sim.start()

    page = answer.content.decode()
    assert answer.status_code == 503
    assert "The cancel is kept, and tried again every few seconds" in words(page)
    assert "Out &lt;now&gt;.</textarea>" in page
    standing.refresh_from_db()
    assert standing.cancel_requested_at is not None


def test_a_look_up_brings_what_the_broker_says(
    sim: SimulatorServer, browse: Browse, standing: Order
) -> None:
    sim.trading("DELETE", f"/v2/orders/{standing.broker_order_id}")
    until(lambda: status_at_broker(sim, standing) == "canceled")

    page = press(browse("Operator"), standing, "look-up").content.decode()

    assert "Looked up: it is cancelled, with 0 of" in words(page)
    standing.refresh_from_db()
    assert standing.status == "canceled"
    assert standing.cancel_requested_at is None


def test_a_look_up_that_fails_is_told(
    sim: SimulatorServer, browse: Browse, standing: Order
) -> None:
    sim.stop()
    answer = press(browse("Operator"), standing, "look-up")
    sim.start()

    assert answer.status_code == 503
    assert "The broker could not be asked for" in words(answer.content.decode())


def test_what_the_broker_has_not_acknowledged_is_not_looked_up(
    browse: Browse, standing: Order
) -> None:
    Order.objects.update(broker_order_id=None, status="unresolved")
    client = browse("Operator")

    answer = press(client, standing, "look-up")

    assert answer.status_code == 409
    assert 'id="look-up"' not in client.get(address(standing)).content.decode()


def test_of_an_order_that_has_ended_nothing_is_asked(
    sim: SimulatorServer, browse: Browse, standing: Order
) -> None:
    Order.objects.update(status="filled")
    client = browse("Operator")

    for action in ("cancel", "look-up"):
        page = press(client, standing, action).content.decode()
        assert "It has ended: filled." in words(page)
        assert 'id="open-cancel"' not in page

    assert said(standing) == []
    assert status_at_broker(sim, standing) == "new"


def test_an_order_that_was_never_sent_is_cancelled_at_once(
    sim: SimulatorServer, browse: Browse, standing: Order
) -> None:
    Order.objects.update(status="waiting", broker_order_id=None, acknowledged_at=None)

    page = press(browse("Operator"), standing, "cancel", reason="Out.").content.decode()

    assert "It has ended: cancelled." in words(page)
    assert said(standing) == [("operator", "Out.", "canceled")]
    assert heard(sim, "DELETE") == []


def test_a_reason_that_is_too_long_cancels_nothing(
    sim: SimulatorServer, browse: Browse, standing: Order
) -> None:
    answer = press(browse("Operator"), standing, "cancel", reason="x" * 501)

    assert answer.status_code == 400
    assert "A reason has at most 500 characters." in answer.content.decode()
    standing.refresh_from_db()
    assert standing.cancel_requested_at is None
    assert status_at_broker(sim, standing) == "new"


def test_a_get_cancels_nothing(sim: SimulatorServer, browse: Browse, standing: Order) -> None:
    client = browse("Operator")

    assert 'id="open-cancel"' in client.get(address(standing)).content.decode()
    for action in ("cancel", "look-up"):
        assert client.get(address(standing, action)).status_code == 405
    standing.refresh_from_db()
    assert standing.cancel_requested_at is None
    assert status_at_broker(sim, standing) == "new"


@pytest.mark.parametrize("group", ["Viewer", "Approver", "Risk manager", "Administrator"])
def test_who_may_not_cancel_sees_no_form_and_gets_403(
    sim: SimulatorServer, browse: Browse, standing: Order, group: str
) -> None:
    client = browse(group)

    page = client.get(address(standing)).content.decode()

    assert 'id="open-cancel"' not in page
    assert 'id="look-up"' not in page
    for action in ("cancel", "look-up"):
        assert press(client, standing, action).status_code == 403
    standing.refresh_from_db()
    assert standing.cancel_requested_at is None
    assert status_at_broker(sim, standing) == "new"


def test_a_forged_post_is_refused(person: Person, standing: Order) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("ann", "Operator"))

    assert client.post(address(standing, "cancel")).status_code == 403
    standing.refresh_from_db()
    assert standing.cancel_requested_at is None
