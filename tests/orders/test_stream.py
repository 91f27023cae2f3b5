"""The stream: every message stored first, worked off once, and every gap closed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from orders import stream_store, stream_worker
from orders.models import Fill, Order, StreamMessage
from ordinis import heartbeat
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.models import Heartbeat
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api, quote
from tests.listening import Listening, fill, filled_at_broker, frame, listeners
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def stream(sim: SimulatorServer, account: BrokerAccount) -> Iterator[Listening]:
    with Listening(account) as listening:
        until(lambda: BrokerAccount.objects.get().opened_at)
        yield listening


def test_a_fill_reaches_the_book_by_the_stream(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    api.post("/orders", order())

    until(lambda: Order.objects.get().status == "filled")

    fill = Fill.objects.get()
    assert (fill.qty, fill.inferred) == (50, False)
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert list(violations()) == []


def test_the_brokers_side_follows_a_fill_so_that_it_is_no_drift(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    api.post("/orders", order())

    seen = until(lambda: [p for p in Position.objects.filter(symbol="TSLA") if p.broker_qty])

    assert seen[0].drift_qty == 0


def test_what_a_broken_stream_missed_is_fetched_when_it_is_back(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order())
    sim.post("/sim/faults", [{"kind": "stream_mute", "count": 100}])
    quote(sim, "TSLA", "249")
    until(lambda: filled_at_broker(sim))
    assert Order.objects.get().status != "filled"

    sim.delete("/sim/faults")
    sim.post("/sim/faults", [{"kind": "stream_close"}])

    until(lambda: Order.objects.get().status == "filled")
    assert Position.objects.get(symbol="TSLA").qty == 50


def test_a_fill_in_the_gap_of_an_order_whose_answer_was_lost_is_found_by_the_fill_activities(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    until(lambda: listeners(sim) == 1)
    sim.post("/sim/faults", [{"kind": "stream_mute"}])
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "POST", "path": "/v2/orders"}])
    assert api.post("/orders", order()).json()["status"] == "unresolved"
    until(lambda: filled_at_broker(sim))

    sim.delete("/sim/faults")
    sim.post("/sim/faults", [{"kind": "stream_close"}])

    until(lambda: Order.objects.get().status == "filled")
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert list(violations()) == []


def test_every_event_is_stored_once_in_the_brokers_words_and_worked_off(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    until(lambda: listeners(sim) == 1)
    sim.post("/sim/faults", [{"kind": "stream_duplicate", "count": 3}])
    api.post("/orders", order())
    until(lambda: Order.objects.get().status == "new")
    fill(sim, Order.objects.get(), "20")
    fill(sim, Order.objects.get(), "30")

    until(lambda: Order.objects.get().status == "filled")
    until(lambda: not StreamMessage.objects.filter(processed_at=None).exists())

    told = [message.body["data"] for message in StreamMessage.objects.order_by("event_id")]
    assert [data["event"] for data in told] == ["pending_new", "new", "partial_fill", "fill"]
    assert told[-1]["order"]["filled_qty"] == "50"
    assert Fill.objects.count() == 2


def test_an_unreadable_message_is_kept_told_and_passed_over(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    stream_store.store(account.pk, [frame(b"\xff<html>")], after_gap=False)
    stream_store.store(account.pk, [frame('{"data":{"order":{"id":"x"}}}')], after_gap=False)

    with Listening(account):
        until(lambda: BrokerAccount.objects.get().opened_at)
        api.post("/orders", order())
        until(lambda: Order.objects.get().status == "filled")

    first, second = StreamMessage.objects.filter(event_id=None).order_by("id")
    assert first.body == {"unreadable": r"b'\xff<html>'"}
    assert first.processed_at
    assert second.processed_at
    alerts = Alert.objects.filter(code="stream_message")
    assert {alert.subject for alert in alerts} == {"unreadable", "x"}


def test_a_message_that_fails_is_tried_again_and_holds_up_no_other_order(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    quote(sim, "KO", "61")
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        api.post("/orders", order(client_order_id="bad"))
        api.post("/orders", order(symbol="KO", client_order_id="good", reference_price="60"))
        until(lambda: set(Order.objects.values_list("status", flat=True)) == {"new"})
    # While nobody listens, so that all come at once.
    for name, qty in (("bad", "20"), ("bad", "30"), ("good", "50")):
        fill(sim, Order.objects.get(client_order_id=name), qty)

    with Listening(account):
        with _refusing("bad"):
            until(lambda: Order.objects.get(client_order_id="good").status == "filled")
            (failed,) = until(lambda: list(StreamMessage.objects.filter(attempts__gt=0)))
            assert failed.processed_at is None
            assert "not now" in failed.error
        until(lambda: Order.objects.get(client_order_id="bad").status == "filled")

    # In their order: neither had to be inferred from the other.
    fills = Fill.objects.filter(order__client_order_id="bad").order_by("id")
    assert [(fill.qty, fill.inferred) for fill in fills] == [(20, False), (30, False)]
    assert list(violations()) == []


def test_a_person_hears_of_a_message_that_keeps_failing_until_it_is_done(
    sim: SimulatorServer,
    stream: Listening,
    api: Api,
    order: MakeOrder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_worker, "_RETRY_SECONDS", 0.01)
    quote(sim, "TSLA", "260")
    until(lambda: listeners(sim) == 1)
    api.post("/orders", order(client_order_id="bad"))
    until(lambda: Order.objects.get().status == "new")

    with _refusing("bad"):
        fill(sim, Order.objects.get(), "50")
        alert = until(lambda: Alert.objects.filter(code="stream_message").first())
        assert alert is not None
        assert (alert.severity, alert.ended_at) == ("critical", None)
        assert alert.subject == Order.objects.get().broker_order_id
    until(lambda: Order.objects.get().status == "filled")

    until(lambda: not Alert.objects.filter(code="stream_message", ended_at=None).exists())


@contextmanager
def _refusing(client_order_id: str) -> Iterator[None]:
    """The database refuses any change of one order."""
    with connection.cursor() as cursor:
        cursor.execute(_REFUSE % client_order_id)
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(_ALLOW)


_REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON orders_order FOR EACH ROW
    WHEN (OLD.client_order_id = '%s') EXECUTE FUNCTION refuse();
"""


_ALLOW = "DROP TRIGGER refuse ON orders_order; DROP FUNCTION refuse();"


def test_an_order_that_somebody_holds_does_not_hold_up_the_others(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    until(lambda: listeners(sim) == 1)
    for name, price in (("held", "249"), ("free", "248")):
        api.post("/orders", order(client_order_id=name, reference_price=None, limit_price=price))
    until(lambda: set(Order.objects.values_list("status", flat=True)) == {"new"})

    with transaction.atomic():
        Order.objects.select_for_update(no_key=True).get(client_order_id="held")
        fill(sim, Order.objects.get(client_order_id="held"), "50")
        fill(sim, Order.objects.get(client_order_id="free"), "50")
        until(lambda: Order.objects.get(client_order_id="free").status == "filled", seconds=5)

    assert until(lambda: Order.objects.get(client_order_id="held").status == "filled")


def test_messages_of_an_order_pass_one_that_keeps_failing(account: BrokerAccount) -> None:
    now = datetime.now(UTC)
    for number in (1, 2):
        body = f'{{"data":{{"event_id":"E{number}","order":{{"id":"o1"}}}}}}'
        stream_store.store(account.pk, [frame(body)], after_gap=False)
    failing = StreamMessage.objects.get(event_id="E1")

    def due() -> list[str | None]:
        rows = stream_store.due(account.pk, now, patience=2, most=10)
        return [row.event_id for row in rows]

    assert due() == ["E1", "E2"]
    stream_store.mark_failed(failing, now + timedelta(seconds=5), "no")
    assert due() == []
    for _ in range(2):
        stream_store.mark_failed(failing, now + timedelta(seconds=5), "no")
    assert due() == ["E2"]


def test_what_a_killed_process_had_stored_is_worked_off_by_the_next_without_the_broker(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    order: MakeOrder,
    settings: LazySettings,
) -> None:
    settings.STREAM_DOWN_SECONDS = 0.3
    heartbeat._written.clear()  # else the sign of life of the test before holds this one back
    quote(sim, "TSLA", "249")
    api.post("/orders", order())
    filled = until(lambda: filled_at_broker(sim))[0]
    execution = sim.trading("GET", "/v2/account/activities/FILL").json()[0]
    told = {
        "stream": "trade_updates",
        "data": {
            "event": "fill",
            "event_id": "E1",
            "timestamp": execution["transaction_time"],
            "order": filled,
            "price": execution["price"],
            "qty": execution["qty"],
            "execution_id": execution["id"],
        },
    }
    stream_store.store(account.pk, [frame(json.dumps(told))], after_gap=True)
    sim.stop()

    with Listening(account):
        until(lambda: Order.objects.get().status == "filled")
        until(lambda: Alert.objects.filter(code="stream_down", ended_at=None).exists())
        assert not Heartbeat.objects.filter(name="listen").exists()

        sim.start()
        until(lambda: Heartbeat.objects.filter(name="listen").exists())
        until(lambda: not Alert.objects.filter(code="stream_down", ended_at=None).exists())

    assert Fill.objects.get().execution_id == execution["id"]
    assert Alert.objects.get(code="stream_down").severity == "critical"
