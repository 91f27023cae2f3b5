"""What a broken stream missed is fetched: from the broker's event history, or orders and fills."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from orders import stream_gap, stream_store
from orders.models import StreamMessage
from orders.stream_gap import Gap
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_events import EventHistory
from ordinis.broker.errors import BrokerUnavailable
from tests.conftest import Api, quote
from tests.history_server import HistoryServer, event
from tests.listening import filled_at_broker, frame
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def missed(sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder) -> list[bytes]:
    """An order has filled while nobody listened: its events E1, E2 and E3, of which the first
    two had come by the stream, and E9 after the gap."""
    quote(sim, "TSLA", "249")
    api.post("/orders", order())
    filled = until(lambda: filled_at_broker(sim))[0]
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
        told = frame(json.dumps({"stream": "trade_updates", "data": body}))
        stream_store.store(account.pk, [told], after_gap=body["event_id"] == "E9")
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
