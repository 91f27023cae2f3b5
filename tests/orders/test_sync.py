"""Poll and stream: fills reach the book by both, and what one missed the other tells."""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orders import jobs
from orders.models import Fill, Order
from orders.stream import Reader
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.alpaca_stream import KeysRefused, Message, TradeUpdates
from ordinis.verify import violations
from positions.models import Position
from tests.conftest import Api, quote
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def stream(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    """What `manage.py listen` runs, in threads of this process."""
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    client = TradeUpdates(url=sim.url, key_id="k", secret_key="s", messages=messages)
    reader = Reader(account, messages)
    reader.start()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    following = threading.Thread(target=lambda: loop.run_until_complete(client.follow(stop)))
    following.start()
    until(lambda: BrokerAccount.objects.get().opened_at)
    yield
    loop.call_soon_threadsafe(stop.set)
    following.join(10)
    loop.close()
    reader.stop()


def test_a_fill_reaches_the_book_by_the_stream(
    sim: SimulatorServer, stream: None, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    api.post("/orders", order())

    until(lambda: Order.objects.get().status == "filled")

    fill = Fill.objects.get()
    assert (fill.qty, fill.inferred) == (50, False)
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert list(violations()) == []


def test_the_brokers_side_follows_a_fill_so_that_it_is_no_drift(
    sim: SimulatorServer, stream: None, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    api.post("/orders", order())

    seen = until(lambda: [p for p in Position.objects.filter(symbol="TSLA") if p.broker_qty])

    assert seen[0].drift_qty == 0


def test_what_a_broken_stream_missed_is_fetched_when_it_is_back(
    sim: SimulatorServer, stream: None, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order())
    sim.post("/sim/faults", [{"kind": "stream_mute", "count": 100}])
    quote(sim, "TSLA", "249")
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])
    assert Order.objects.get().status != "filled"

    sim.delete("/sim/faults")
    sim.post("/sim/faults", [{"kind": "stream_close"}])

    until(lambda: Order.objects.get().status == "filled")
    assert Position.objects.get(symbol="TSLA").qty == 50


def test_a_fill_is_noticed_by_the_poll_alone(
    sim: SimulatorServer, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    api.post("/orders", order())
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])

    jobs.poll()

    assert Order.objects.get().status == "filled"
    assert Position.objects.get(symbol="TSLA").qty == 50
    assert Fill.objects.get().inferred


def test_orders_of_others_are_left_alone(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    other = {
        "symbol": "KO",
        "side": "buy",
        "qty": "1",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "1.00",
        "client_order_id": "not-ours",
    }
    sim.trading("POST", "/v2/orders", json=other)

    jobs.poll()

    assert Order.objects.count() == 0
    assert Alert.objects.count() == 0


def test_wrong_keys_end_the_stream_with_a_clear_error() -> None:
    import websockets

    async def refuse(socket: Any) -> None:
        await socket.recv()
        refusal = '{"stream":"authorization","data":{"status":"unauthorized"}}'
        await socket.send(refusal.encode())
        await socket.wait_closed()

    async def run() -> None:
        async with websockets.serve(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = TradeUpdates(
                url=f"http://127.0.0.1:{port}",
                key_id="k",
                secret_key="s",
                messages=queue.SimpleQueue(),
            )
            await asyncio.wait_for(client.follow(asyncio.Event()), 8)

    with pytest.raises(KeysRefused, match="APCA_API_KEY_ID"):
        asyncio.run(run())
