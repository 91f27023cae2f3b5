"""The stream: every message stored first, worked off once, and every gap closed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from orders import stream_gap, stream_store, stream_worker
from orders.models import Fill, Order, StreamMessage
from orders.stream_gap import Gap
from orders.stream_lease import LeaseUnavailable, StreamLease
from ordinis import heartbeat
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.alpaca_events import EventHistory
from ordinis.broker.alpaca_stream import Frame
from ordinis.broker.errors import BrokerUnavailable
from ordinis.models import Heartbeat
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api, quote
from tests.history_server import HistoryServer, event
from tests.listening import Listening
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
    until(lambda: _filled_at_broker(sim))
    assert Order.objects.get().status != "filled"

    sim.delete("/sim/faults")
    sim.post("/sim/faults", [{"kind": "stream_close"}])

    until(lambda: Order.objects.get().status == "filled")
    assert Position.objects.get(symbol="TSLA").qty == 50


def test_a_fill_in_the_gap_of_an_order_whose_answer_was_lost_is_found_by_the_fill_activities(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    until(lambda: _listeners(sim) == 1)
    sim.post("/sim/faults", [{"kind": "stream_mute"}])
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "POST", "path": "/v2/orders"}])
    assert api.post("/orders", order()).json()["status"] == "unresolved"
    until(lambda: _filled_at_broker(sim))

    sim.delete("/sim/faults")
    sim.post("/sim/faults", [{"kind": "stream_close"}])

    until(lambda: Order.objects.get().status == "filled")
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert list(violations()) == []


def test_every_event_is_stored_once_in_the_brokers_words_and_worked_off(
    sim: SimulatorServer, stream: Listening, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    until(lambda: _listeners(sim) == 1)
    sim.post("/sim/faults", [{"kind": "stream_duplicate", "count": 3}])
    api.post("/orders", order())
    until(lambda: Order.objects.get().status == "new")
    _fill(sim, Order.objects.get(), "20")
    _fill(sim, Order.objects.get(), "30")

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
    stream_store.store(account.pk, [_frame(b"\xff<html>")], after_gap=False)
    stream_store.store(account.pk, [_frame('{"data":{"order":{"id":"x"}}}')], after_gap=False)

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
        until(lambda: _listeners(sim) == 1)
        api.post("/orders", order(client_order_id="bad"))
        api.post("/orders", order(symbol="KO", client_order_id="good", reference_price="60"))
        until(lambda: set(Order.objects.values_list("status", flat=True)) == {"new"})
    # While nobody listens, so that all come at once.
    for name, qty in (("bad", "20"), ("bad", "30"), ("good", "50")):
        _fill(sim, Order.objects.get(client_order_id=name), qty)

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
    until(lambda: _listeners(sim) == 1)
    api.post("/orders", order(client_order_id="bad"))
    until(lambda: Order.objects.get().status == "new")

    with _refusing("bad"):
        _fill(sim, Order.objects.get(), "50")
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
    until(lambda: _listeners(sim) == 1)
    for name in ("held", "free"):
        api.post("/orders", order(client_order_id=name))
    until(lambda: set(Order.objects.values_list("status", flat=True)) == {"new"})

    with transaction.atomic():
        Order.objects.select_for_update(no_key=True).get(client_order_id="held")
        _fill(sim, Order.objects.get(client_order_id="held"), "50")
        _fill(sim, Order.objects.get(client_order_id="free"), "50")
        until(lambda: Order.objects.get(client_order_id="free").status == "filled", seconds=5)

    until(lambda: Order.objects.get(client_order_id="held").status == "filled")


def test_messages_of_an_order_pass_one_that_keeps_failing(account: BrokerAccount) -> None:
    now = datetime.now(UTC)
    for number in (1, 2):
        body = f'{{"data":{{"event_id":"E{number}","order":{{"id":"o1"}}}}}}'
        stream_store.store(account.pk, [_frame(body)], after_gap=False)
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
    filled = until(lambda: _filled_at_broker(sim))[0]
    execution = sim.trading("GET", "/v2/account/activities/FILL").json()[0]
    frame = {
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
    stream_store.store(account.pk, [_frame(json.dumps(frame))], after_gap=True)
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


@pytest.fixture
def missed(sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder) -> list[bytes]:
    """An order has filled while nobody listened: its events E1, E2 and E3, of which the first
    two had come by the stream, and E9 after the gap."""
    quote(sim, "TSLA", "249")
    api.post("/orders", order())
    filled = until(lambda: _filled_at_broker(sim))[0]
    execution = sim.trading("GET", "/v2/account/activities/FILL").json()[0]
    common = {"at": execution["transaction_time"], "order": {**filled, "filled_qty": "0"}}
    bodies: list[dict[str, Any]] = [
        {**common, "event_id": "E1", "event": "pending_new"},
        {**common, "event_id": "E2", "event": "new"},
        {
            **common,
            "event_id": "E3",
            "event": "fill",
            "order": filled,
            "price": execution["price"],
            "qty": execution["qty"],
            "execution_id": "the-execution",
            "timestamp": execution["transaction_time"],
        },
        {**common, "event_id": "E9", "event": "restated"},
    ]
    for body in (*bodies[:2], bodies[3]):
        frame = _frame(json.dumps({"stream": "trade_updates", "data": body}))
        stream_store.store(account.pk, [frame], after_gap=body["event_id"] == "E9")
    account.refresh_from_db()  # its book was opened by the order
    sim.delete("/sim/log")
    return [event(body) for body in bodies]


def _history(server: HistoryServer) -> EventHistory:
    return EventHistory(url=server.url, key_id="k", secret_key="s", quiet=0.1, longest=1)


def _asked_for_orders(sim: SimulatorServer) -> bool:
    return bool(sim.get("/sim/log", path="/v2/orders", method="GET"))


def test_the_brokers_event_history_closes_the_gap_with_what_was_missed_and_asks_nothing_else(
    sim: SimulatorServer, account: BrokerAccount, missed: list[bytes]
) -> None:
    gap = Gap()
    gap.open()
    with HistoryServer(*missed[1:]) as server:
        assert stream_gap.close(account, gap, 1, _history(server))

    # From before the last event that it was not after a gap, so that it can be recognised.
    assert server.asked == ["E1"]
    rows = StreamMessage.objects.order_by("event_id").values_list("event_id", "after_gap")
    assert list(rows) == [("E1", False), ("E2", False), ("E3", False), ("E9", False)]
    assert gap.is_closed
    assert not _asked_for_orders(sim)


def test_a_history_that_does_not_know_our_events_is_not_believed(
    sim: SimulatorServer, account: BrokerAccount, missed: list[bytes]
) -> None:
    gap = Gap()
    gap.open()
    with HistoryServer(missed[2]) as server:
        assert stream_gap.close(account, gap, 1, _history(server))

    assert gap.is_closed
    assert _asked_for_orders(sim)


def test_a_gap_that_can_not_be_closed_stays_open_and_the_next_replay_starts_before_it(
    sim: SimulatorServer, account: BrokerAccount, missed: list[bytes]
) -> None:
    gap = Gap()
    gap.open()
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/orders", "count": None}])

    with HistoryServer(status=503) as server, pytest.raises(BrokerUnavailable):
        stream_gap.close(account, gap, 1, _history(server))

    assert not gap.is_closed
    assert StreamMessage.objects.get(event_id="E9").after_gap
    assert stream_store.cursor(account.pk) == stream_store.Cursor(since_id="E1", known_id="E2")


def test_a_closing_that_a_new_connection_has_overtaken_settles_nothing(
    sim: SimulatorServer, account: BrokerAccount, missed: list[bytes]
) -> None:
    gap = Gap()
    gap.open()
    gap.open()
    with HistoryServer(*missed[1:]) as server:
        assert not stream_gap.close(account, gap, 1, _history(server))
        assert StreamMessage.objects.get(event_id="E3").after_gap

        assert stream_gap.close(account, gap, 2, _history(server))

    assert not StreamMessage.objects.filter(after_gap=True).exists()


def test_a_late_event_that_comes_first_does_not_end_the_replay_before_what_was_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gap = Gap()
    gap.open()
    with gap.storing("E3"):
        pass
    assert not gap.is_reached_by("E3")

    monkeypatch.setattr(stream_gap, "_LATENESS", 0)
    with gap.storing("E8"):
        pass
    assert not gap.is_reached_by("E7")
    assert not gap.is_reached_by(None)
    assert gap.is_reached_by("E8")


def test_live_messages_wait_while_a_gap_is_closed_but_not_for_ever() -> None:
    gap = Gap()
    assert gap.lets_pass(0, patience=60)
    gap.open()
    assert not gap.lets_pass(0, patience=60)
    assert gap.lets_pass(0.01, patience=0)

    assert gap.close(1, lambda: None)
    assert gap.lets_pass(0, patience=60)


def test_a_second_consumer_waits_and_takes_over(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    order: MakeOrder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ordinis.stream")
    quote(sim, "TSLA", "249")
    with Listening(account) as first:
        until(lambda: _listeners(sim) == 1)
        with Listening(account):
            until(lambda: "waiting to take over" in caplog.text)
            assert _listeners(sim) == 1

            first.stop()
            until(lambda: _listeners(sim) == 1)
            api.post("/orders", order())
            until(lambda: Order.objects.get().status == "filled")

    assert not Fill.objects.get().inferred


def test_a_lease_whose_connection_is_gone_is_not_held_and_can_be_taken_anew(
    account: BrokerAccount,
) -> None:
    lease = StreamLease(account.pk)
    assert not lease.is_held()
    assert lease.take()
    assert lease.is_held()
    _end_all_leases()
    assert not lease.is_held()

    assert lease.take()
    _end_all_leases()
    with pytest.raises(LeaseUnavailable):
        lease.take()

    assert lease.take()
    lease.release()


def test_losing_the_lease_stops_the_consumer_until_it_is_held_again(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    other = StreamLease(account.pk)
    with Listening(account):
        until(lambda: _listeners(sim) == 1)
        assert not other.take()

        _end_all_leases()
        until(other.take, every=0.001)
        until(lambda: _listeners(sim) == 0)
        other.release()

        until(lambda: _listeners(sim) == 1)
        api.post("/orders", order())
        until(lambda: Order.objects.get().status == "filled")


def test_secrets_are_masked_in_what_is_stored_and_identifiers_are_not(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "hush-hush")
    order = {"id": "o1", "client_order_id": "ord_1234567890", "note": ["ord_1234567890"]}
    for text in (json.dumps({"data": {"event": "hush-hush", "order": order}}), "hush-hush{"):
        stream_store.store(account.pk, [_frame(text)], after_gap=False)

    readable, unreadable = StreamMessage.objects.order_by("id")

    assert readable.body["data"] == {
        "event": "•••",
        "order": {"id": "o1", "client_order_id": "ord_1234567890", "note": ["ord_•••"]},
    }
    assert unreadable.body == {"unreadable": "'•••{'"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04",
        '{"a": NaN, "b": 1e400000, "c": 0.1000000000000000000001}',
        r'{"stream": "a\u0000b\ud800", "data": []}',
        r'{"key\u0000": 1}',
        "[" * 100_000,
        '{"data": {"event_id": "' + "E" * 65 + '", "order": 7}}',
        "null",
    ],
)
def test_whatever_a_frame_holds_is_stored_and_so_is_its_neighbour(
    account: BrokerAccount, data: str | bytes
) -> None:
    stream_store.store(
        account.pk, [_frame(data), _frame('{"data":{"event_id":"E1"}}')], after_gap=False
    )

    odd, neighbour = StreamMessage.objects.order_by("id")

    assert odd.event_id is None
    assert odd.body != {}
    assert neighbour.event_id == "E1"


def test_characters_that_the_database_refuses_do_not_make_a_message_unreadable(
    account: BrokerAccount,
) -> None:
    stream_store.store(
        account.pk,
        [_frame(r'{"data": {"event_id": "E1", "note": "a\u0000b\ud800"}}')],
        after_gap=False,
    )

    assert StreamMessage.objects.get(event_id="E1").body["data"]["note"] == "ab?"


def test_numbers_are_kept_to_the_last_digit(account: BrokerAccount) -> None:
    stream_store.store(account.pk, [_frame('{"price": 0.1000000000000000000001}')], after_gap=False)

    assert StreamMessage.objects.get().body == {"price": "0.1000000000000000000001"}


def test_old_messages_are_forgotten_but_never_unprocessed_ones_nor_the_newest(
    account: BrokerAccount,
) -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=15)
    rows = [
        StreamMessage(
            account=account, event_id=f"E{n:03}", body={}, received_at=old, processed_at=old
        )
        for n in range(150)
    ]
    rows[7].processed_at = None
    rows[8].received_at = now - timedelta(days=13)
    StreamMessage.objects.bulk_create(rows)

    assert stream_store.forget(now) == 48

    left = StreamMessage.objects.order_by("event_id").values_list("event_id", flat=True)
    assert list(left)[:4] == ["E007", "E008", "E050", "E051"]


def _frame(data: str | bytes) -> Frame:
    return Frame(data, datetime.now(UTC))


def _end_all_leases() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_database d "
            "ON d.oid = database AND datname = current_database() "
            "WHERE locktype = 'advisory' AND granted"
        )


def _listeners(sim: SimulatorServer) -> int:
    return int(sim.get("/sim/state")["stream_listeners"])


def _filled_at_broker(sim: SimulatorServer) -> list[dict[str, Any]]:
    return [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"]


def _fill(sim: SimulatorServer, order: Order, qty: str) -> None:
    sim.post("/sim/fill", {"client_order_id": order.client_order_id, "qty": qty})
