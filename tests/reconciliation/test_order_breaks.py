"""Trades taken back and orders that filled too much: breaks for a person, the book untouched."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from orders import jobs, lifecycle
from orders.lifecycle import Origin, Source
from orders.models import Bust, Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.port import ExecutionReport, OrderReport
from ordinis.verify import violations
from positions.models import LedgerEntry, Position
from reconciliation.models import Break
from reconciliation.run import reconcile
from tests.conftest import Api, quote
from tests.listening import Listening, fill, listeners
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def bought(sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount) -> Order:
    """50 TSLA, ordered; nothing has filled yet."""
    quote(sim, "TSLA", "260")
    answer = api.post("/orders", order(client_order_id="bust-1"))
    assert answer.status_code == 201
    return Order.objects.get()


@pytest.mark.parametrize(
    ("price", "kind", "broker"), [(None, "trade_bust", "30"), ("249", "trade_correct", "50")]
)
def test_a_trade_taken_back_or_corrected_is_a_break_for_a_person_and_moves_no_book(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    bought: Order,
    price: str | None,
    kind: str,
    broker: str,
) -> None:
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        for qty in ("30", "20"):
            fill(sim, bought, qty)
        until(lambda: bought.fills.filter(inferred=False).count() == 2)
        taken_back = bought.fills.get(qty=20)
        bust = {"execution_id": taken_back.execution_id}
        sim.post("/sim/bust", {**bust, **({"price": price} if price else {})})
        until(lambda: Bust.objects.count() == 1)
    for _ in range(3):
        reconcile(account)

    row = Break.objects.get(kind="trade_bust")
    assert (row.symbol, row.order_id, row.severity) == ("TSLA", bought.pk, "critical")
    assert (row.local, row.broker) == (50, Decimal(broker))
    assert Bust.objects.get().kind == kind
    assert Alert.objects.filter(code=kind).count() == 1
    assert Position.objects.get(symbol="TSLA").qty == 50
    booked = LedgerEntry.objects.values_list("qty", "price")
    assert sum(qty for qty, _ in booked) == 50
    told = api.get("/reconciliation/breaks").json()["items"]
    assert str(bought.pk) in [each["order"] for each in told]
    report = api.post("/reconciliation/run").json()
    assert [each["kind"] for each in report["order_breaks"]] == ["trade_bust"]
    assert list(violations()) == []


def _report(order: Order, filled: str, execution: tuple[str, str] | None = None) -> OrderReport:
    now = datetime.now(UTC)
    return OrderReport(
        broker_order_id=order.broker_order_id or "",
        client_order_id=order.client_order_id,
        symbol=order.symbol,
        side=order.side,
        qty=order.qty,
        type=order.type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
        stop_price=None,
        status="partially_filled",
        filled_qty=Decimal(filled),
        average_fill_price=Decimal("249.93"),
        updated_at=now,
        execution=execution
        and ExecutionReport(
            execution_id=execution[0],
            qty=Decimal(execution[1]),
            price=Decimal("249.93"),
            occurred_at=now,
        ),
        raw={},
    )


def test_after_a_bust_only_single_executions_count_and_each_once(
    sim: SimulatorServer, account: BrokerAccount, bought: Order
) -> None:
    stream = Origin(Source.STREAM, "broker")
    lifecycle.observe(bought.pk, _report(bought, "30", ("e1", "30")), stream)
    Order.objects.update(executions_only=True)

    for _ in range(2):  # the cumulative figure can mean anything now
        lifecycle.observe(bought.pk, _report(bought, "45"), stream)
        lifecycle.observe(bought.pk, _report(bought, "20", ("e2", "10")), stream)

    assert Order.objects.get().filled_qty == 40
    assert list(violations()) == []


def test_an_order_that_filled_beyond_its_quantity_is_a_break_and_its_shares_are_in_the_book(
    sim: SimulatorServer, account: BrokerAccount, bought: Order
) -> None:
    over = _report(bought, "60", ("e1", "60"))

    for _ in range(2):
        lifecycle.observe(bought.pk, over, Origin(Source.STREAM, "broker"))
        reconcile(account)

    assert Position.objects.get(symbol="TSLA").qty == 60
    row = Break.objects.get(kind="order_fill")
    assert (row.order_id, row.local, row.broker) == (bought.pk, 50, 60)
    assert Alert.objects.get(code="overfill").severity == "critical"
    assert list(violations()) == []


def test_a_report_lower_than_what_is_booked_takes_nothing_back(
    sim: SimulatorServer, account: BrokerAccount, bought: Order
) -> None:
    for filled in ("30", "10", "0"):
        lifecycle.observe(bought.pk, _report(bought, filled), Origin(Source.POLL, "broker"))
    jobs.poll()

    assert Order.objects.get().filled_qty == 30
    assert list(violations()) == []
