"""A replacement goes on counting where the order before it had come to: each share is booked once,
in whatever order the reports come, and also when it was replaced in the broker's own app."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders import jobs, lifecycle, statuses, wake
from orders.lifecycle import Origin, Source, observe
from orders.models import Fill, Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.port import OrderReport
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api, quote, sent
from tests.listening import Listening, listeners
from tests.orders.conftest import BROKER, ReportMaker
from tests.orders.standing import at_broker, held, held_at_broker, polled, reaches, rest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

MakeOrder = Callable[..., dict[str, Any]]


# --- at the door -----------------------------------------------------------------------------


@pytest.fixture
def successor(submitted: Order) -> Order:
    """Replaces the buy of 100 OKE at 70 by one of 120 at 70.50; asked for a moment ago."""
    order = Order(
        id=uuid4(),
        account=submitted.account,
        strategy=submitted.strategy,
        client_order_id="oke-2",
        fingerprint="g" * 64,
        replaces=submitted,
        symbol="OKE",
        side="buy",
        qty=Decimal(120),
        type="limit",
        time_in_force="day",
        limit_price=Decimal("70.5"),
        correlation_id="test",
        submitted_at=datetime.now(UTC),
    )
    with transaction.atomic():
        lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, "strategy rsi"))
    return order


# What the chain trades: 30 and 20 shares before it is replaced, 40 and 30 after.
_EXECUTIONS = (("e1", 30, "69.90"), ("e2", 20, "69.80"), ("e3", 40, "70.20"), ("e4", 30, "70.40"))


def _told(report: ReportMaker) -> tuple[list[OrderReport], list[OrderReport]]:
    """Every report on the old and on the new order, those on fills with their execution and
    without."""
    old, new = [report("new")], [report("pending_new", **_OF_THE_NEW)]
    total, cost, average = 0, Decimal(0), "0"
    for at, (execution_id, qty, price) in enumerate(_EXECUTIONS, start=1):
        total, cost = total + qty, cost + qty * Decimal(price)
        average = str(cost / total)
        reports, which = (old, {}) if at <= 2 else (new, _OF_THE_NEW)
        status = "filled" if total == 120 else "partially_filled"
        told = {"filled": str(total), "average": average, "at": at, **which}
        reports.append(report(status, **told))
        reports.append(report(status, execution=(execution_id, str(qty), price), **told))
        if at == 2:
            old.append(report("replaced", filled="50", average=average, at=2.5))
            began = {"filled": "50", "average": average, "at": 2.5, **_OF_THE_NEW}
            new.append(report("partially_filled", **began))
    return old, new


_OF_THE_NEW: dict[str, Any] = {
    "broker_order_id": "broker-oke-2",
    "client_order_id": "oke-2",
    "qty": Decimal(120),
    "limit_price": Decimal("70.5"),
    "replaces": "broker-oke-1",
}


@pytest.mark.django_db
@given(data=st.data())
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_reports_on_both_orders_in_any_order_book_every_share_once(
    submitted: Order, successor: Order, report: ReportMaker, data: st.DataObject
) -> None:
    old, new = _told(report)
    every = [(submitted.pk, each) for each in old] + [(successor.pk, each) for each in new]
    some = data.draw(st.lists(st.sampled_from(every), max_size=14))
    ends = data.draw(st.permutations([(submitted.pk, old[-1]), (successor.pk, new[-1])]))

    with transaction.atomic():
        for order_id, each in (*some, *ends):
            observe(order_id, each, BROKER)
            assert list(violations()) == []
        first, second = Order.objects.get(pk=submitted.pk), Order.objects.get(pk=successor.pk)
        assert (first.status, first.filled_qty) == ("replaced", 50)
        assert (second.status, second.filled_qty) == ("filled", 120)
        assert first.average_fill_price == Decimal("69.86")
        position = Position.objects.get(symbol="OKE")
        assert position.qty == 120
        assert position.average_price is not None
        assert abs(position.average_price - Decimal("70.1083333")) < Decimal("0.000001")
        assert Alert.objects.count() == 0
        transaction.set_rollback(True)


@pytest.mark.django_db
@pytest.mark.parametrize("first", ["predecessor", "successor"])
def test_every_execution_is_recognised_across_the_chain_whichever_order_is_told_of_first(
    submitted: Order, successor: Order, report: ReportMaker, first: str
) -> None:
    old, new = _told(report)
    reports = [(submitted.pk, each) for each in old], [(successor.pk, each) for each in new]
    one, other = reports if first == "predecessor" else reversed(reports)

    for order_id, each in (*one, *other):
        observe(order_id, each, BROKER)

    booked = [(fill.execution_id, fill.qty, fill.inferred) for fill in Fill.objects.order_by("pk")]
    by_execution: dict[str, Decimal] = {}
    for execution_id, qty, _inferred in booked:
        name = str(execution_id).split("+")[0]
        by_execution[name] = by_execution.get(name, Decimal(0)) + qty
    assert by_execution == {name: Decimal(qty) for name, qty, _ in _EXECUTIONS}
    assert not any(inferred for *_, inferred in booked)
    assert list(violations()) == []


@pytest.mark.django_db
def test_after_a_bust_the_executions_of_the_whole_chain_count_by_their_id(
    submitted: Order, successor: Order, report: ReportMaker
) -> None:
    """The broker's figures restart below what is booked: 50 bought, 10 taken back, 40 more."""
    observe(
        submitted.pk,
        report("partially_filled", filled="50", average="69.8", execution=("e1", "50", "69.8")),
        BROKER,
    )
    Order.objects.filter(pk=submitted.pk).update(executions_only=True)
    observe(submitted.pk, report("replaced", filled="40", average="69.8", at=1), BROKER)

    observe(
        successor.pk,
        report(
            "partially_filled",
            filled="80",
            average="70",
            at=2,
            execution=("e2", "40", "70.2"),
            **_OF_THE_NEW,
        ),
        BROKER,
    )

    assert Position.objects.get(symbol="OKE").qty == 90
    assert list(violations()) == []


# --- end to end ------------------------------------------------------------------------------


@pytest.fixture
def right_books(
    transactional_db: None, sim: SimulatorServer, account: BrokerAccount
) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []


end_to_end = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("right_books")]


class TestEndToEnd:
    pytestmark = end_to_end

    @pytest.mark.parametrize("by", ["poll", "stream"])
    def test_fills_before_between_and_after_a_replacement_are_each_booked_once(
        self, sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder, by: str
    ) -> None:
        quote(sim, "TSLA", "260")
        sim.post("/sim/options", {"replace_delay": 0.3})

        def fill(client_order_id: str, qty: str, price: str) -> None:
            body = {"client_order_id": client_order_id, "qty": qty, "price": price}
            sim.post("/sim/fill", body)

        def play(at_last: Callable[..., Order]) -> Order:
            old = at_last(api.post("/orders", order(client_order_id="old")).json()["id"], "new")
            fill("old", "20", "249.90")
            at_last(old.pk, "partially_filled")
            answer = api.post(f"/orders/{old.pk}/replace", {"qty": "60", "client_order_id": "new"})
            assert answer.status_code == 201, answer.content
            fill("old", "5", "249.80")  # while it is being replaced
            new = at_last(answer.json()["id"], "partially_filled")
            assert (new.filled_qty, at_last(old.pk, "replaced").filled_qty) == (25, 25)
            fill("new", "15", "249.70")
            fill("new", "20", "249.60")
            return at_last(new.pk, "filled")

        if by == "poll":
            filled = play(polled)
        else:
            with Listening(account):
                until(lambda: listeners(sim) == 1)
                filled = play(reaches)
            assert sorted(fill.qty for fill in Fill.objects.all()) == [5, 15, 20, 20]
            assert not Fill.objects.filter(inferred=True).exists()

        assert (filled.filled_qty, held(), held_at_broker(sim)) == (60, 60, 60)
        average = at_broker(sim, "new")[0]["filled_avg_price"]
        assert filled.average_fill_price is not None
        assert abs(filled.average_fill_price - Decimal(average)) < Decimal("0.0001")

    @pytest.mark.parametrize("by", ["poll", "stream"])
    def test_an_order_replaced_in_the_brokers_own_app_goes_on_in_the_book(
        self, sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder, by: str
    ) -> None:
        old = rest(sim, api, order())
        sim.post("/sim/fill", {"client_order_id": old.client_order_id, "qty": "10"})
        polled(old.pk, "partially_filled")

        def adopted() -> Order | None:
            if by == "poll":
                jobs.poll()
            return Order.objects.filter(replaces=old, status="partially_filled").first()

        if by == "stream":
            with Listening(account):
                until(lambda: listeners(sim) == 1)
                _replace_in_the_app(sim, old.broker_order_id, qty="70")
                new = until(adopted)
        else:
            _replace_in_the_app(sim, old.broker_order_id, qty="70")
            new = until(adopted)
        assert new is not None
        quote(sim, "TSLA", "249")
        polled(new.pk, "filled")

        told = api.get(f"/orders/{new.pk}").json()
        assert (told["replaces"], told["qty"], told["filled_qty"]) == (str(old.pk), "70", "70")
        assert Order.objects.get(pk=old.pk).status == "replaced"
        assert (held(), held_at_broker(sim)) == (70, 70)
        first = api.get(f"/orders/{new.pk}/history").json()[0]
        assert "at the broker, without Ordinis" in first["reason"]
        assert len(sent(sim)) == 1

    def test_a_successor_that_had_filled_before_anybody_looked_is_found_through_its_predecessor(
        self, sim: SimulatorServer, api: Api, order: MakeOrder
    ) -> None:
        """Twice replaced and filled; no list of open orders names any of them."""
        old = rest(sim, api, order())
        # A replacement of ours that came to nothing must not pass for the one in the app.
        sim.post("/sim/account", {"buying_power": "0"})
        assert api.post(f"/orders/{old.pk}/replace", {"qty": "5000"}).status_code == 422
        sim.post("/sim/account", {"buying_power": None})
        second = _replace_in_the_app(sim, old.broker_order_id, qty="60")
        until(lambda: _status_there(sim, second) == "new")
        third = _replace_in_the_app(sim, second, qty="70")
        until(lambda: _status_there(sim, third) == "new")
        quote(sim, "TSLA", "249")
        until(lambda: _status_there(sim, third) == "filled")
        unread = {"kind": "status_before", "method": "GET", "path": f"/v2/orders/{second}"}
        sim.post("/sim/faults", [{**unread, "count": 3}])  # nor is it found at the first try

        def is_booked() -> bool:
            jobs.poll()
            return bool(held() == 70)

        until(is_booked)
        assert held_at_broker(sim) == 70
        line = Order.objects.filter(chain=old.pk).exclude(status="rejected").order_by("created_at")
        assert [each.status for each in line] == ["replaced", "replaced", "filled"]

    def test_a_cancel_wanted_of_an_order_is_wanted_of_what_replaced_it_in_the_app(
        self, sim: SimulatorServer, api: Api, order: MakeOrder
    ) -> None:
        old = rest(sim, api, order())
        sim.post("/sim/options", {"replace_delay": 0.2})
        new = _replace_in_the_app(sim, old.broker_order_id, qty="60")

        assert api.post(f"/orders/{old.pk}/cancel").status_code == 200

        def is_canceled() -> bool:
            jobs.poll()
            jobs.pursue_cancels()
            return _status_there(sim, new) == "canceled"

        until(is_canceled, every=0.1)
        polled(Order.objects.get(replaces=old).pk, "canceled")


def _replace_in_the_app(sim: SimulatorServer, broker_order_id: str | None, **change: str) -> str:
    """The broker's id of the new order, once it is asked for."""
    answer = sim.trading("PATCH", f"/v2/orders/{broker_order_id}", json=change)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def _status_there(sim: SimulatorServer, broker_order_id: str) -> str:
    return str(sim.trading("GET", f"/v2/orders/{broker_order_id}").json()["status"])
