"""An order is replaced: judged as the larger of the two, asked for once, and the old one stands
until the broker says otherwise."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.db.models import F

from orders import jobs, statuses, wake
from orders.models import Order
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from risk import figures
from tests.conftest import Api, hold, quote, sent
from tests.orders.standing import at_broker, heard, held, held_at_broker, polled, rest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]
PATCHES = {"method": "PATCH", "path": "/v2/orders/.*"}


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []


@pytest.fixture
def standing(sim: SimulatorServer, api: Api, order: MakeOrder) -> Order:
    """A buy of 50 TSLA at 249.93 that rests."""
    return rest(sim, api, order(client_order_id="old"))


def _replace(api: Api, order: Order, **change: Any) -> Any:
    return api.post(f"/orders/{order.pk}/replace", change)


def _bodies(sim: SimulatorServer) -> list[dict[str, Any]]:
    """The replacements that the broker was asked for."""
    return [each["body"] for each in sim.get("/sim/log", method="PATCH")]


def _buys_with(sim: SimulatorServer, buying_power: str) -> None:
    """Pins what the broker says is left beside what has stood there for a while."""
    sim.post("/sim/account", {"buying_power": buying_power})
    _is_in_the_brokers_figures()


def _is_in_the_brokers_figures() -> None:
    """Plays that the orders were acknowledged some seconds ago."""
    earlier = timedelta(seconds=5)
    Order.objects.update(acknowledged_at=F("acknowledged_at") - earlier)
    figures._shared.clear()


@pytest.mark.parametrize(
    ("change", "qty", "price"),
    [
        ({"qty": "60"}, 60, "249.93"),
        ({"limit_price": "250.00"}, 50, "250"),
        ({"qty": 40, "limit_price": "240.5"}, 40, "240.5"),
    ],
    ids=["quantity", "price", "both"],
)
def test_a_replacement_is_an_order_of_its_own_and_the_old_one_ends_by_the_brokers_word(
    sim: SimulatorServer, api: Api, standing: Order, change: dict[str, Any], qty: int, price: str
) -> None:
    answer = _replace(api, standing, **change, client_order_id="new")

    assert answer.status_code == 201, answer.content
    new = answer.json()
    assert (new["qty"], Decimal(new["limit_price"])) == (str(qty), Decimal(price))
    assert (new["client_order_id"], new["replaces"]) == ("new", str(standing.pk))
    assert Order.objects.get(pk=standing.pk).status == "new", "the broker has not said so yet"
    assert polled(standing.pk, "replaced").state == "cancelled"
    assert polled(new["id"], "new").chain == standing.chain
    (asked,) = _bodies(sim)
    assert {key: Decimal(asked[key]) for key in asked if key != "client_order_id"} == {
        key: Decimal(value) for key, value in change.items()
    }
    steps = api.get(f"/orders/{new['id']}/history").json()
    assert (steps[0]["to"], steps[0]["reason"]) == ("submitting", "Replaces old.")


def test_a_replacement_that_the_venue_rejects_leaves_the_old_order_standing(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    sim.post("/sim/faults", [{"kind": "replace_rejected"}])

    answer = _replace(api, standing, qty="60")

    assert answer.status_code == 201
    assert polled(answer.json()["id"], "rejected").state == "rejected"
    assert polled(standing.pk, "new").is_open
    assert _replace(api, standing, qty="70").status_code == 201, "it can be tried again"


def test_a_replacement_that_the_broker_refuses_at_once_is_told_with_its_words(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    for status in ("accepted", "pending_cancel", "pending_replace"):
        sim.post("/sim/order", {"client_order_id": "old", "status": status})

        answer = _replace(api, standing, qty="60")

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "broker_rejected")
        assert problem["broker_message"]
        assert problem["order"]["status"] == "rejected"
        assert Order.objects.get(pk=standing.pk).is_open
    assert len(sim.get("/sim/state")["orders"]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop_after"},
        {"kind": "status_after", "status": 504},
        {"kind": "duplicate_id_after"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_replacement_whose_answer_is_lost_is_found_by_its_client_id_and_asked_for_once(
    sim: SimulatorServer, api: Api, standing: Order, fault: dict[str, Any]
) -> None:
    sim.post("/sim/faults", [{**fault, **PATCHES}])

    answer = _replace(api, standing, qty="60", client_order_id="new")

    assert (answer.status_code, answer.json()["status"]) == (202, "unresolved")
    jobs.resolve()
    assert polled(answer.json()["id"], "new").qty == 60
    assert polled(standing.pk, "replaced")
    assert len(heard(sim, "PATCH")) == 1


def test_a_replacement_that_never_arrived_fails_and_the_old_order_stands(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    sim.post("/sim/faults", [{"kind": "drop_before", **PATCHES}])
    answer = _replace(api, standing, qty="60")
    assert answer.status_code == 202
    jobs.resolve()
    jobs.resolve()
    lost = Order.objects.get(pk=answer.json()["id"])
    assert lost.first_missed_at is not None
    long_ago = lost.first_missed_at.replace(year=lost.first_missed_at.year - 1)
    Order.objects.filter(pk=lost.pk).update(first_missed_at=long_ago)

    jobs.resolve()

    lost.refresh_from_db()
    assert lost.status == "failed"
    assert "not sent twice" in lost.history.latest("seq").reason
    assert len(heard(sim, "PATCH")) == 1
    assert polled(standing.pk, "new").qty == 50
    assert _replace(api, standing, qty="70").status_code == 201


def test_the_same_replacement_again_answers_the_standing_one(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    first = _replace(api, standing, qty="60", client_order_id="new")
    polled(first.json()["id"], "new")

    again = _replace(api, standing, qty=60, client_order_id="new")
    other = _replace(api, standing, qty="61", client_order_id="new")

    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert (other.status_code, other.json()["code"]) == (409, "client_order_id_reused")
    assert other.json()["order"]["id"] == first.json()["id"]
    assert len(heard(sim, "PATCH")) == 1


def test_a_quantity_that_has_filled_already_is_refused(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    sim.post("/sim/fill", {"client_order_id": "old", "qty": "20"})
    polled(standing.pk, "partially_filled")

    answer = _replace(api, standing, qty="20")

    assert (answer.status_code, answer.json()["code"]) == (422, "qty_not_above_filled")
    assert heard(sim, "PATCH") == []
    assert Order.objects.count() == 1


def test_only_an_order_that_the_broker_works_is_replaced(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    rest(sim, api, order(reference_price="201", take_profit={"limit_price": "300"}))
    waiting = Order.objects.get(status="waiting")
    filled = rest(sim, api, order(reference_price="255"))
    quote(sim, "TSLA", "254")
    polled(filled.pk, "filled")
    sim.post("/sim/options", {"replace_delay": 1000, "cancel_delay": 1000})
    replaced = rest(sim, api, order(reference_price="202"))
    assert _replace(api, replaced, qty="60").status_code == 201
    cancelled = rest(sim, api, order(reference_price="203"))
    assert api.post(f"/orders/{cancelled.pk}/cancel").status_code == 200
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "POST", "path": "/v2/orders"}])
    assert api.post("/orders", order(reference_price="204")).status_code == 202
    unresolved = Order.objects.get(status="unresolved")
    before = Order.objects.count()

    for old in (waiting, filled, replaced, cancelled, unresolved):
        answer = _replace(api, old, qty="45")
        assert (answer.status_code, answer.json()["code"]) == (422, "order_not_replaceable")

    assert (Order.objects.count(), len(heard(sim, "PATCH"))) == (before, 1)


def test_a_change_that_makes_no_sense_is_a_422_and_the_broker_hears_nothing(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({}, "invalid_request"),
        ({"qty": "50"}, "invalid_request"),
        ({"limit_price": "249.930"}, "invalid_request"),
        ({"qty": "50.5"}, "invalid_request"),
        ({"limit_price": "249.935"}, "limit_price_off_tick"),
        ({"qty": 60.0}, "invalid_request"),
    ]

    for change, code in changes:
        answer = _replace(api, standing, **change)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.content

    assert heard(sim, "PATCH") == []
    assert Order.objects.count() == 1


def test_a_higher_price_needs_only_the_difference_and_is_denied_without_it(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    """50 shares from 249.93 to 251.93 cost $100 more."""
    _buys_with(sim, "99")

    denied = _replace(api, standing, limit_price="251.93")

    problem = denied.json()
    assert (denied.status_code, problem["code"]) == (422, "order_denied")
    (violation,) = problem["violations"]
    assert violation["code"] == "insufficient_buying_power"
    assert Decimal(violation["actual"]) == 100
    assert heard(sim, "PATCH") == []
    assert Order.objects.get(pk=standing.pk).status == "new"

    _buys_with(sim, "102")  # a hundredth is kept as a buffer
    assert _replace(api, standing, limit_price="251.93").status_code == 201


def test_lowering_is_allowed_with_no_buying_power_left_and_an_order_of_the_symbol_unresolved(
    sim: SimulatorServer, api: Api, order: MakeOrder, standing: Order
) -> None:
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "POST", "path": "/v2/orders"}])
    assert api.post("/orders", order(reference_price="200")).status_code == 202
    _buys_with(sim, "-5000")

    answer = _replace(api, standing, qty="40", limit_price="249.00")

    assert answer.status_code == 201, answer.content
    raised = _replace(api, Order.objects.get(pk=answer.json()["id"]), limit_price="250.00")
    assert raised.status_code == 422


def test_the_old_and_the_new_order_are_reserved_once_at_the_larger_of_the_two(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    sim.post("/sim/options", {"replace_delay": 1000})

    _is_in_the_brokers_figures()

    assert _replace(api, standing, qty="60").status_code == 201

    reserved = api.get("/account", fresh="true").json()["reserved"]
    assert reserved == "2499.30", "ten shares more at 249.93"


def test_a_sell_is_replaced_within_the_shares_that_are_held(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    hold(sim, "TSLA", "50", "240")
    quote(sim, "TSLA", "200")
    body = order(side="sell", qty="40", reference_price=None, limit_price="250")
    old = polled(api.post("/orders", body).json()["id"], "new")
    _is_in_the_brokers_figures()

    too_many = _replace(api, old, qty="51")

    (violation,) = too_many.json()["violations"]
    assert (violation["code"], violation["actual"]) == ("insufficient_quantity", "11")
    assert heard(sim, "PATCH") == []
    assert _replace(api, old, qty="50").status_code == 201


def test_of_eight_replacements_at_once_one_is_asked_for(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    sim.post("/sim/options", {"replace_delay": 1000})
    together = Barrier(8)

    def replace(number: int) -> int:
        try:
            together.wait()
            code: int = _replace(api, standing, qty=51 + number).status_code
            return code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(replace, range(8)))

    assert codes == [201] + [422] * 7
    assert len(heard(sim, "PATCH")) == 1
    assert Order.objects.count() == 2


def test_a_cancel_of_the_old_order_while_it_is_being_replaced_ends_the_new_one_too(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    sim.post("/sim/options", {"replace_delay": 0.3})
    new = _replace(api, standing, qty="60", client_order_id="new").json()

    answer = api.post(f"/orders/{standing.pk}/cancel")

    assert answer.status_code == 200, answer.content
    polled(standing.pk, "replaced")

    def follow() -> bool:
        jobs.pursue_cancels()
        return bool(at_broker(sim, "new")[0]["status"] == "canceled")

    until(follow, seconds=4, every=0.1)
    polled(new["id"], "canceled")
    assert held() == 0


def test_a_cancel_and_a_replacement_at_the_same_moment_leave_nothing_standing(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    for price in ("201", "202", "203", "204"):
        standing = rest(sim, api, order(reference_price=price))
        together = Barrier(2)

        def ask(path: str, standing: Order = standing, together: Barrier = together) -> int:
            try:
                together.wait()
                code: int = api.post(f"/orders/{standing.pk}/{path}", {"qty": "60"}).status_code
                return code
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            cancelled, replaced = pool.map(ask, ("cancel", "replace"))
        assert cancelled == 200
        assert replaced in (201, 422)

    def nothing_stands() -> bool:
        jobs.poll()
        jobs.pursue_cancels()
        return not Order.objects.exclude(status__in=sorted(statuses.CLOSED)).exists()

    until(nothing_stands, every=0.1)
    assert sim.trading("GET", "/v2/orders?status=open").json() == []


def test_an_order_replaced_twice_and_filled_is_one_line_in_the_book(
    sim: SimulatorServer, api: Api, standing: Order
) -> None:
    second = polled(_replace(api, standing, qty="60").json()["id"], "new")
    third = polled(_replace(api, second, limit_price="250.50").json()["id"], "new")

    quote(sim, "TSLA", "249")

    filled = polled(third.pk, "filled")
    assert (filled.filled_qty, held(), held_at_broker(sim)) == (60, 60, 60)
    assert {second.chain, filled.chain} == {standing.pk}
    assert api.get(f"/orders/{third.pk}").json()["replaces"] == str(second.pk)
    assert len(sent(sim)) == 1


def test_another_strategys_order_can_not_be_replaced(
    sim: SimulatorServer, api: Api, account: BrokerAccount, standing: Order
) -> None:
    stranger = Strategy.objects.create(account=account, name="momentum")
    _, trade = ApiToken.issue(stranger, ("read", "trade"))

    answer = _replace(Api(trade), standing, qty="60")

    assert (answer.status_code, answer.json()["code"]) == (404, "order_not_found")
    assert heard(sim, "PATCH") == []


def test_the_stop_price_of_a_stop_order_is_replaced(sim: SimulatorServer, api: Api) -> None:
    quote(sim, "TSLA", "250")
    hold(sim, "TSLA", "10", "240")
    parent = {"symbol": "TSLA", "side": "buy", "qty": "5", "limit_price": "251"}
    entry = api.post("/orders", {**parent, "stop_loss": {"stop_price": "230"}}).json()

    def stop() -> dict[str, Any]:
        jobs.poll()
        jobs.follow_up()
        *_, found = api.get(f"/orders/{entry['id']}").json()["dependents"]
        return dict(api.get(f"/orders/{found}").json())

    until(lambda: stop()["status"] == "new")
    refused = api.post(f"/orders/{stop()['id']}/replace", {"limit_price": "228"})
    moved = api.post(f"/orders/{stop()['id']}/replace", {"stop_price": "235"})
    assert moved.status_code == 201, moved.content
    until(lambda: stop()["status"] == "new" and stop()["stop_price"] == "235.00")

    assert refused.status_code == 422
    assert moved.status_code == 201, moved.content
    assert stop()["role"] == "stop_loss"
    assert stop()["id"] == moved.json()["id"], "the parent lists what stands now"


def test_a_replacement_on_the_wrong_side_of_the_exits_that_wait_is_refused(
    sim: SimulatorServer, api: Api
) -> None:
    quote(sim, "TSLA", "260")
    body = {"symbol": "TSLA", "side": "buy", "qty": "5", "limit_price": "250"}
    entry = api.post("/orders", {**body, "take_profit": {"limit_price": "255"}}).json()
    jobs.poll()

    answer = api.post(f"/orders/{entry['id']}/replace", {"limit_price": "256"})

    assert (answer.status_code, answer.json()["code"]) == (422, "dependent_price_wrong_side")
    assert Order.objects.filter(replaces__isnull=False).count() == 0
