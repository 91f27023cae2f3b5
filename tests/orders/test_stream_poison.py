"""What must not wedge the stream: absurd messages, endless failures, threads that end."""

import json
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from orders import stream_gap, stream_reader, stream_store, stream_worker
from orders.models import Order, StreamMessage
from orders.stream_gap import Gap
from orders.stream_lease import StreamLease
from orders.stream_link import Link
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.alpaca_stream import Mark, Message
from ordinis.broker.errors import BrokerError
from tests.conftest import Api, quote
from tests.listening import Listening, fill, frame, listeners
from tests.orders.test_stream import _refusing
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def _update(event_id: str, **order: Any) -> str:
    told = {
        "id": "x",
        "client_order_id": "x",
        "symbol": "TSLA",
        "side": "buy",
        "type": "limit",
        "status": "new",
        "qty": "1",
        "filled_qty": "0",
        **order,
    }
    data = {"event": "new", "event_id": event_id, "order": told}
    return json.dumps({"stream": "trade_updates", "data": data})


def test_an_absurd_number_is_passed_over_and_told(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        api.post("/orders", order())
        until(lambda: Order.objects.get().status == "new")
        poison = frame(_update("0", qty="1e9999999"))
        stream_store.store(account.pk, [poison], after_gap=False)
        fill(sim, Order.objects.get(), "50")

        until(lambda: Order.objects.get().status == "filled")

    assert Alert.objects.get(code="stream_message").severity == "warning"


def test_a_message_that_has_failed_for_a_day_holds_up_no_other(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    quote(sim, "KO", "61")
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        api.post("/orders", order(client_order_id="bad"))
        api.post("/orders", order(symbol="KO", client_order_id="good", reference_price="60"))
        until(lambda: set(Order.objects.values_list("status", flat=True)) == {"new"})
    bad = Order.objects.get(client_order_id="bad")
    filled = _update(
        "0",
        id=bad.broker_order_id,
        client_order_id="bad",
        qty="50",
        status="filled",
        filled_qty="50",
        filled_avg_price="249",
    )
    stream_store.store(account.pk, [frame(filled)], after_gap=False)
    StreamMessage.objects.filter(event_id="0").update(attempts=32_000)

    with _refusing("bad"), Listening(account):
        until(lambda: listeners(sim) == 1)
        fill(sim, Order.objects.get(client_order_id="good"), "50")

        assert until(lambda: Order.objects.get(client_order_id="good").status == "filled")


def test_a_gap_that_can_not_be_closed_for_hours_is_still_tried(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def fail(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise BrokerError("down")

    monkeypatch.setattr(stream_reader, "_LONGEST_GAP_RETRY", 0.00001)
    monkeypatch.setattr(stream_gap, "close", fail)
    monkeypatch.setattr(stream_reader.log, "disabled", True)
    gap, stopped = Gap(), threading.Event()
    closer = stream_reader._Closer(account, gap, None, stopped, threading.Event())  # type: ignore[arg-type]
    closer.start()
    gap.open()

    until(lambda: tries > 1100)
    assert closer.is_alive()

    stopped.set()
    closer.join(5)


def test_frames_given_up_on_are_not_followed_by_later_ones(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next gap would be closed from behind the hole."""
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    stopped = threading.Event()

    def fail(*_: object, **__: object) -> None:
        stopped.set()
        monkeypatch.undo()
        raise OperationalError("away for a moment")

    monkeypatch.setattr(stream_store, "store", fail)
    for number in range(250):
        messages.put(frame(_update(f"E{number:03}")))
    messages.put(Mark.STOP)
    storer = stream_reader._Storer(
        account, messages, Gap(), Link(account), stopped, threading.Event()
    )

    storer.start()
    storer.join(10)

    assert StreamMessage.objects.count() == 0


def test_who_died_before_telling_of_a_failing_message_is_told_the_next_time(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    order: MakeOrder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_worker, "_RETRY_SECONDS", 0.01)
    told: list[int] = []

    def not_the_first_time(*args: Any, **kwargs: Any) -> None:
        told.append(1)
        if len(told) == 1:
            raise OperationalError("dies here")
        raise_alert(*args, **kwargs)

    monkeypatch.setattr(stream_worker, "raise_alert", not_the_first_time)
    quote(sim, "TSLA", "260")
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        api.post("/orders", order(client_order_id="bad"))
        until(lambda: Order.objects.get().status == "new")
        with _refusing("bad"):
            fill(sim, Order.objects.get(), "50")

            assert until(lambda: Alert.objects.filter(code="stream_message").exists())


def test_a_lease_that_can_not_be_watched_ends_the_consuming(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Listening(account):
        until(lambda: listeners(sim) == 1)

        def fail(_: StreamLease) -> bool:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(StreamLease, "is_held", fail)

        until(lambda: listeners(sim) == 0)
        monkeypatch.undo()
        assert until(lambda: listeners(sim) == 1)
