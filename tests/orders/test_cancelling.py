"""One order is cancelled: the wish is kept until it has ended, and a fill that wins counts."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection

from orders import jobs, wake
from orders.models import Fill, Order
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from tests.conftest import Api, quote, sent
from tests.listening import Listening, listeners
from tests.orders.standing import (
    age_cancel,
    at_broker,
    heard,
    held,
    held_at_broker,
    polled,
    reaches,
    rest,
)
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]
POST_ORDERS = {"method": "POST", "path": "/v2/orders"}
CANCELS = {"method": "DELETE", "path": "/v2/orders/.*"}


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []


@pytest.fixture
def stream(sim: SimulatorServer, account: BrokerAccount) -> Iterator[Listening]:
    with Listening(account) as listening:
        until(lambda: listeners(sim) == 1)
        yield listening


def _cancel(api: Api, order: Order) -> Any:
    return api.post(f"/orders/{order.pk}/cancel")


def test_a_cancel_is_on_its_way_until_the_poll_confirms_it(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())

    answer = _cancel(api, standing)

    assert answer.status_code == 200, answer.content
    assert answer.json()["is_open"]
    ended = polled(standing.pk, "canceled")
    assert (ended.state, ended.filled_qty) == ("cancelled", 0)
    assert heard(sim, "DELETE") == [f"/v2/orders/{standing.broker_order_id}"]
    steps = api.get(f"/orders/{standing.pk}/history").json()
    asked = next(step for step in steps if step["from"] == step["to"])
    assert (asked["source"], asked["actor"]) == ("api", "strategy rsi")
    assert asked["reason"] == "Its cancel was asked for."


def test_a_cancel_is_confirmed_by_the_stream_alone(
    sim: SimulatorServer, api: Api, order: MakeOrder, stream: Listening
) -> None:
    quote(sim, "TSLA", "260")
    standing = reaches(api.post("/orders", order()).json()["id"], "new")

    assert _cancel(api, standing).status_code == 200

    reaches(standing.pk, "canceled")
    assert len(heard(sim, "DELETE")) == 1


def test_cancelling_an_order_that_has_ended_changes_nothing_and_the_broker_hears_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())
    quote(sim, "TSLA", "249")
    ended = polled(standing.pk, "filled")
    sim.delete("/sim/log")

    answer = _cancel(api, standing)

    assert (answer.status_code, answer.json()["status"]) == (200, "filled")
    assert sim.get("/sim/log") == []
    now = Order.objects.get()
    assert (now.history_length, now.cancel_requested_at) == (ended.history_length, None)


@pytest.mark.parametrize("by", ["resolver", "stream"])
def test_an_unresolved_order_is_cancelled_when_it_is_found_and_never_sent_again(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder, by: str
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{"kind": "drop_after", **POST_ORDERS}])
    assert api.post("/orders", order(client_order_id="lost")).status_code == 202

    answer = _cancel(api, standing := Order.objects.get())

    assert (answer.status_code, answer.json()["status"]) == (202, "unresolved")
    assert heard(sim, "DELETE") == [], "nobody knows yet what to cancel"
    if by == "resolver":
        jobs.resolve()
        polled(standing.pk, "canceled")
    else:
        with Listening(account):
            until(lambda: listeners(sim) == 1)
            sim.post("/sim/fill", {"client_order_id": "lost", "qty": "10"})
            reaches(standing.pk, "canceled")
        assert held() == 10
    assert len(sent(sim)) == 1
    assert at_broker(sim, "lost")[0]["status"] == "canceled"


def test_an_unresolved_order_that_never_arrived_fails_and_is_not_sent_once_cancelled(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{"kind": "drop_before", **POST_ORDERS}])
    api.post("/orders", order())
    _cancel(api, standing := Order.objects.get())
    jobs.resolve()
    jobs.resolve()
    missed = Order.objects.get().first_missed_at
    assert missed is not None
    Order.objects.update(first_missed_at=missed.replace(year=missed.year - 1))

    jobs.resolve()

    assert reaches(standing.pk, "failed").state == "rejected"
    assert len(sent(sim)) == 1
    assert sim.get("/sim/state")["orders"] == []


def test_an_order_on_its_way_is_cancelled_as_soon_as_it_lands(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    sim.post("/sim/faults", [{"kind": "delay_after", "seconds": 0.4, **POST_ORDERS}])
    answers = []

    def send() -> None:
        answers.append(api.post("/orders", order(client_order_id="flying")))
        connection.close()

    sender = Thread(target=send)
    sender.start()
    flying = until(lambda: Order.objects.filter(status="submitting").first())
    assert flying is not None

    answer = _cancel(api, flying)

    assert (answer.status_code, answer.json()["status"]) == (202, "submitting")
    assert heard(sim, "DELETE") == []
    sender.join()
    assert answers[0].status_code == 201
    until(lambda: at_broker(sim, "flying")[0]["status"] == "canceled")
    polled(flying.pk, "canceled")
    assert len(sent(sim)) == 1


@pytest.mark.parametrize(
    ("race", "status", "filled"),
    [
        ("fill_while_cancelling", "filled", 50),
        ("part_fill_while_cancelling", "canceled", 25),
        ("late_fill", "filled", 50),
    ],
)
def test_a_fill_that_wins_the_race_against_the_cancel_counts(
    sim: SimulatorServer,
    api: Api,
    order: MakeOrder,
    stream: Listening,
    race: str,
    status: str,
    filled: int,
) -> None:
    quote(sim, "TSLA", "260")
    standing = reaches(api.post("/orders", order()).json()["id"], "new")
    sim.post("/sim/faults", [{"kind": race}])

    assert _cancel(api, standing).status_code == 200

    until(lambda: held() == filled)
    ended = reaches(standing.pk, status)
    assert ended.filled_qty == filled == held_at_broker(sim)
    incidents = [alert.code for alert in Alert.objects.all()]
    assert incidents == (["late_report"] if race == "late_fill" else [])


def test_an_order_whose_cancel_was_rejected_lives_on_and_is_asked_for_again(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order(client_order_id="stubborn"))
    sim.post("/sim/faults", [{"kind": "cancel_rejected"}])
    _cancel(api, standing)
    until(lambda: at_broker(sim, "stubborn")[0]["status"] == "new")
    assert polled(standing.pk, "new").is_open
    jobs.pursue_cancels()
    assert len(heard(sim, "DELETE")) == 1, "not again at once"

    age_cancel(standing, seconds=11)
    unread = {"kind": "status_before", "method": "GET", "path": "/v2/orders/.*", "count": 3}
    sim.post("/sim/faults", [unread])
    jobs.pursue_cancels()  # also when it can't be looked up

    polled(standing.pk, "canceled")
    assert len(heard(sim, "DELETE")) == 2


def test_a_cancel_whose_answer_is_lost_is_repeated_and_ends_the_order(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())
    sim.post("/sim/faults", [{"kind": "drop_after", **CANCELS}])

    answer = _cancel(api, standing)

    assert answer.status_code == 200, answer.content
    polled(standing.pk, "canceled")


def test_a_cancel_that_the_broker_could_not_be_asked_for_is_kept_and_pursued(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())
    sim.post("/sim/faults", [{"kind": "status_before", "count": None, "path": "/v2/orders/.*"}])

    answer = _cancel(api, standing)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "broker_unavailable")
    assert "The cancel is kept" in problem["detail"]
    age_cancel(standing, seconds=61)
    jobs.pursue_cancels()
    assert Order.objects.get().status == "new"
    (alert,) = Alert.objects.filter(code="cancel_pending", ended_at=None)
    assert alert.subject == str(standing.pk)

    sim.delete("/sim/faults")
    jobs.pursue_cancels()

    polled(standing.pk, "canceled")
    jobs.pursue_cancels()
    assert not Alert.objects.filter(ended_at=None).exists()


def test_a_cancel_that_never_ends_is_asked_for_again_and_told_until_it_does(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order(client_order_id="endless"))
    sim.post("/sim/options", {"cancel_delay": 1000})
    _cancel(api, standing)
    polled(standing.pk, "pending_cancel")
    age_cancel(standing, seconds=50)
    jobs.pursue_cancels()
    assert len(heard(sim, "DELETE")) == 2
    assert Alert.objects.count() == 0, "not before a minute has passed"

    age_cancel(standing, seconds=11)
    jobs.pursue_cancels()
    jobs.pursue_cancels()

    assert len(heard(sim, "DELETE")) == 3
    alert = Alert.objects.get()
    assert (alert.code, alert.severity, alert.ended_at) == ("cancel_pending", "critical", None)
    assert "still pending_cancel. It may fill." in alert.message

    sim.post("/sim/order", {"client_order_id": "endless", "status": "canceled"})
    polled(standing.pk, "canceled")
    jobs.pursue_cancels()
    assert Alert.objects.get().ended_at is not None


def test_cancelling_again_and_again_asks_the_broker_once(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())
    sim.post("/sim/options", {"cancel_delay": 1000})

    def cancel(_: int) -> int:
        try:
            code: int = _cancel(api, standing).status_code
            return code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(cancel, range(8)))
    polled(standing.pk, "pending_cancel")
    codes.append(_cancel(api, standing).status_code)

    assert codes == [200] * 9
    assert len(heard(sim, "DELETE")) == 1
    steps = standing.history.filter(reason="Its cancel was asked for.")
    assert steps.count() == 1


def test_another_strategys_order_can_only_be_cancelled_with_the_scope_operate(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    standing = rest(sim, api, order())
    stranger = Strategy.objects.create(account=account, name="momentum")
    _, trade = ApiToken.issue(stranger, ("read", "trade"))
    _, operate = ApiToken.issue(stranger, ("trade", "operate"))

    refused = _cancel(Api(trade), standing)

    assert (refused.status_code, refused.json()["code"]) == (404, "order_not_found")
    assert heard(sim, "DELETE") == []
    assert Order.objects.get().cancel_requested_at is None
    assert _cancel(Api(operate), standing).status_code == 200
    polled(standing.pk, "canceled")


def test_a_dependent_order_that_waits_ends_at_once_and_the_broker_hears_nothing(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    parent = rest(sim, api, order(take_profit={"limit_price": "300"}))
    child = Order.objects.get(parent=parent)

    answer = _cancel(api, child)

    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert heard(sim, "DELETE") == []
    quote(sim, "TSLA", "249")
    polled(parent.pk, "filled")
    until(wake.is_idle)
    assert len(sent(sim)) == 1


def test_cancelling_one_of_a_pair_ends_both(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    exits = {"take_profit": {"limit_price": "300"}, "stop_loss": {"stop_price": "200"}}
    quote(sim, "TSLA", "249")
    parent = api.post("/orders", order(**exits)).json()["id"]
    polled(parent, "filled")
    profit = Order.objects.get(parent=parent, role="take_profit")
    loss = Order.objects.get(parent=parent, role="stop_loss")
    polled(profit.pk, "new")

    assert _cancel(api, Order.objects.get(pk=loss.pk)).status_code == 200

    polled(profit.pk, "canceled")
    polled(loss.pk, "canceled")
    assert held() == 50


def test_a_fill_after_a_lost_cancel_is_found_by_the_poll(
    sim: SimulatorServer, api: Api, order: MakeOrder, settings: LazySettings
) -> None:
    standing = rest(sim, api, order())
    sim.post("/sim/faults", [{"kind": "fill_while_cancelling"}])
    sim.post("/sim/faults", [{"kind": "drop_after", "count": 3, **CANCELS}])

    assert _cancel(api, standing).status_code == 503

    polled(standing.pk, "filled")
    assert held() == 50 == held_at_broker(sim)
    assert Fill.objects.get().inferred


def test_the_cancel_of_an_order_replaced_twice_reaches_the_one_that_works(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    first = last = api.post("/orders", order()).json()["id"]
    for price in ("240", "239"):
        until(lambda: _statuses_at_broker(sim)[-1] == "new")
        last = api.post(f"/orders/{last}/replace", {"limit_price": price}).json()["id"]
    until(lambda: _statuses_at_broker(sim) == ["replaced", "replaced", "new"])

    assert api.post(f"/orders/{first}/cancel").status_code == 200

    until(lambda: _statuses_at_broker(sim)[-1] == "canceled")
    jobs.poll()
    assert Order.objects.get(pk=last).status == "canceled"


def _statuses_at_broker(sim: SimulatorServer) -> list[str]:
    return [told["status"] for told in sim.get("/sim/state")["orders"]]
