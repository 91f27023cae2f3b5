"""The stream's wire and the history of events: nothing the broker does there is fatal or lost."""

import asyncio
import contextlib
import json
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import websockets
from django.conf import settings

from ordinis.broker import alpaca_stream
from ordinis.broker.alpaca_events import EventHistory, NotReplayed, Seen
from ordinis.broker.alpaca_stream import (
    FAREWELL_SECONDS,
    Frame,
    KeysRefused,
    Mark,
    Message,
    TradeUpdates,
)
from tests.history_server import HistoryServer, event
from tests.simulator_server import SimulatorServer

Talk = Callable[[Any], Awaitable[None]]
AUTHORIZED = b'{"stream":"authorization","data":{"status":"authorized","action":"authenticate"}}'
LISTENING = b'{"stream":"listening","data":{"streams":["trade_updates"]}}'


class Client:
    """A stream on a server of the test, and what it has put on its queue."""

    def __init__(self, url: str, **options: float) -> None:
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.stream = TradeUpdates(
            url=url, key_id="k", secret_key="s", messages=self.messages, **options
        )

    async def next(self, *, seconds: float = 8) -> Message:
        """The next message that is not only a sign of life."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(queue.Empty):
                message = self.messages.get_nowait()
                if message is not Mark.ALIVE:
                    return message
            assert time.monotonic() < deadline, "nothing more came"
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(client: Client) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.ensure_future(client.stream.follow(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


@contextlib.asynccontextmanager
async def broker(talk: Talk) -> AsyncIterator[str]:
    async def connected(socket: Any) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await talk(socket)
            await socket.wait_closed()

    async with websockets.serve(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answers(*frames: str | bytes, after_listen: tuple[str | bytes, ...] = ()) -> Talk:
    """A broker that says `frames` to the keys and the rest to the wish to listen."""

    async def talk(socket: Any) -> None:
        await socket.recv()
        for frame in frames:
            await socket.send(frame)
        if after_listen:
            await socket.recv()
            for frame in after_listen:
                await socket.send(frame)

    return talk


def in_turn(*talks: Talk) -> Talk:
    """Another conversation on each connection."""
    left = iter(talks)

    async def talk(socket: Any) -> None:
        await next(left)(socket)

    return talk


GOOD = answers(AUTHORIZED, after_listen=(LISTENING,))


def test_wrong_keys_end_the_stream_with_a_clear_error() -> None:
    refused = b'{"stream":"authorization","data":{"status":"unauthorized","action":"authenticate"}}'

    async def run() -> None:
        async with broker(answers(refused)) as url:
            await asyncio.wait_for(Client(url).stream.follow(asyncio.Event()), 8)

    with pytest.raises(KeysRefused, match="APCA_API_KEY_ID"):
        asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>bad gateway</html>",
        b"\x81\xa6stream",
        b'{"stream":"authorization","data":{"status":"internal error"}}',
        b'{"stream":"authorization","data":null}',
        b"[]",
    ],
)
def test_an_answer_to_the_keys_that_is_no_refusal_is_asked_for_again(answer: bytes) -> None:
    async def run() -> None:
        async with broker(in_turn(answers(answer), GOOD)) as url:
            client = Client(url)
            async with following(client):
                assert await client.next() is Mark.CONNECTED

    asyncio.run(run())


def test_a_broker_that_is_not_there_is_a_line_in_the_log_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with following(Client("http://127.0.0.1:1")):
            while "not connected" not in caplog.text:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 8))

    assert not any(record.exc_info for record in caplog.records)


def test_a_broker_that_is_silent_to_the_keys_or_the_wish_to_listen_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alpaca_stream, "_HANDSHAKE_SECONDS", 0.2)
    monkeypatch.setattr(alpaca_stream, "_LONGEST_WAIT", 0.5)
    silent = in_turn(answers(), answers(AUTHORIZED), GOOD)

    async def run() -> None:
        async with broker(silent) as url:
            client = Client(url)
            async with following(client):
                assert await client.next() is Mark.CONNECTED

    asyncio.run(run())


def test_a_broker_that_leaves_trade_updates_out_is_left() -> None:
    deaf = answers(AUTHORIZED, after_listen=(b'{"stream":"listening","data":{"streams":[]}}',))

    async def run() -> None:
        async with broker(in_turn(deaf, GOOD)) as url:
            client = Client(url)
            async with following(client):
                assert await client.next() is Mark.CONNECTED
                assert client.messages.empty()

    asyncio.run(run())


def test_every_frame_but_answers_to_commands_is_handed_on_to_the_letter() -> None:
    odd = (b"\xff\x00", "<html>", b'{"stream":"error"}', b'{"stream":"trade_updates","data":7}')
    early = b'{"stream":"trade_updates","data":{"event":"new"}}'

    async def run() -> None:
        async with broker(answers(AUTHORIZED, after_listen=(early, LISTENING, *odd))) as url:
            client = Client(url)
            async with following(client):
                # What comes before the broker's word that it listens is not lost either, nor taken
                # for what comes after a closed gap.
                assert await client.next() is Mark.CONNECTED
                first = await client.next()
                rest = [await client.next() for _ in odd]
        assert [m.data for m in (first, *rest) if isinstance(m, Frame)] == [early, *odd]
        assert await client.next() is Mark.DISCONNECTED

    asyncio.run(run())


@pytest.mark.parametrize(
    ("interval", "timeout"),
    [
        (0.2, 0.4),
        pytest.param(
            settings.STREAM_PING_INTERVAL, settings.STREAM_PING_TIMEOUT, marks=pytest.mark.long
        ),
    ],
)
def test_a_connection_whose_other_end_went_silent_is_noticed_and_made_anew(
    interval: float, timeout: float
) -> None:
    async def run(sim: SimulatorServer) -> float:
        client = Client(sim.url, ping_interval=interval, ping_timeout=timeout)
        async with following(client):
            assert await client.next() is Mark.CONNECTED
            sim.post("/sim/faults", [{"kind": "stream_freeze"}])
            began = time.monotonic()
            assert await client.next(seconds=20) is Mark.DISCONNECTED
            noticed = time.monotonic() - began
            assert await client.next() is Mark.CONNECTED
        return noticed

    with SimulatorServer() as sim:
        noticed = asyncio.run(run(sim))
    print(f"a silent peer was noticed after {noticed:.1f} s")  # noqa: T201
    assert noticed < interval + timeout + 3 * FAREWELL_SECONDS < 15


def test_a_quiet_account_does_not_wait_longer_and_longer_to_be_connected_again() -> None:
    client = Client("http://127.0.0.1:1")

    assert max(client.stream._reconnect_delay(tries) for tries in range(1, 60)) <= 4


def test_a_connection_that_brought_something_is_made_anew_at_once_however_often_it_breaks() -> None:
    async def talk_and_leave(socket: Any) -> None:
        await GOOD(socket)
        await socket.send(b'{"stream":"trade_updates","data":{}}')
        await socket.close()

    async def run() -> float:
        async with broker(talk_and_leave) as url:
            client = Client(url)
            async with following(client):
                began = time.monotonic()
                while await client.next() is not Mark.CONNECTED:
                    pass
                for _ in range(4):
                    assert isinstance(await client.next(), Frame)
                    assert await client.next() is Mark.DISCONNECTED
                    assert await client.next() is Mark.CONNECTED
                return time.monotonic() - began

    assert asyncio.run(run()) < 3  # seconds; else the waits add up to 3.75 at the least


# --- the history of events -----------------------------------------------------------------


def sse(number: int) -> bytes:
    return event({"event_id": f"E{number}", "event": "new"})


class Taker:
    """What replay hands out. `known` is E1's number, as if the stream had told that one."""

    def __init__(self, *, known: int = 1, live: int | None = None) -> None:
        self.ids: list[str] = []
        self._known = f"E{known}"
        self._live = f"E{live}"

    def __call__(self, frames: list[Frame]) -> Seen:
        self.ids += [json.loads(frame.data)["data"]["event_id"] for frame in frames]
        return Seen(known=self._known in self.ids, reached=self._live in self.ids)


@pytest.fixture
def asked() -> "Asked":
    def make(url: str) -> EventHistory:
        return EventHistory(url=url, key_id="k", secret_key="s", quiet=0.1, longest=0.6)

    return make


Asked = Callable[[str], EventHistory]


def test_the_history_is_read_until_it_is_quiet(asked: Asked) -> None:
    whole = b": heartbeat\n\n" + b"".join(sse(n) for n in (1, 2, 3))
    taker = Taker()

    # In pieces that end anywhere.
    with HistoryServer(*(whole[i : i + 7] for i in range(0, len(whole), 7))) as server:
        asked(server.url).replay("E0", taker)

    assert taker.ids == ["E1", "E2", "E3"]
    assert server.asked == ["E0"]


def test_the_history_of_a_busy_account_is_read_until_it_reaches_the_live_events(
    asked: Asked,
) -> None:
    taker = Taker(live=5)

    with HistoryServer(*(sse(n) for n in range(1, 200))) as server:
        asked(server.url).replay("E0", taker)

    assert taker.ids[:5] == ["E1", "E2", "E3", "E4", "E5"]
    assert len(taker.ids) < 100


def test_a_history_that_never_ends_closes_no_gap(asked: Asked) -> None:
    with (
        HistoryServer(*(sse(n) for n in range(1, 200))) as server,
        pytest.raises(NotReplayed, match="its end"),
    ):
        asked(server.url).replay("E0", Taker())


@pytest.mark.parametrize(
    ("pieces", "stays"),
    [
        ((sse(1), b": you are reading too slowly, dropped 10000 messages\n"), True),
        ((sse(1), b": internal server error\n"), True),
        ((sse(1), sse(2)[:-3]), False),
        ((sse(1),), False),
    ],
)
def test_a_history_that_lost_something_closes_no_gap(
    asked: Asked, pieces: tuple[bytes, ...], stays: bool
) -> None:
    with HistoryServer(*pieces, stays=stays) as server:
        history = asked(server.url)
        with pytest.raises(NotReplayed):
            history.replay("E0", Taker())

    assert history.supported


@pytest.mark.parametrize(
    "server", [HistoryServer(status=404), HistoryServer(status=302), HistoryServer(sse(7))]
)
def test_a_broker_without_a_usable_history_is_not_asked_again(
    asked: Asked, server: HistoryServer
) -> None:
    with server:
        history = asked(server.url)
        for _ in range(2):
            with pytest.raises(NotReplayed):
                history.replay("E0", Taker())

    assert not history.supported
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_history_that_fails_once_is_asked_again(asked: Asked, status: int) -> None:
    with HistoryServer(status=status) as server:
        history = asked(server.url)
        for _ in range(2):
            with pytest.raises(NotReplayed, match=str(status)):
                history.replay("E0", Taker())

    assert len(server.asked) == 2


def test_a_broker_that_can_not_be_reached_closes_no_gap(asked: Asked) -> None:
    with pytest.raises(NotReplayed, match="broke off"):
        asked("http://127.0.0.1:1").replay("E0", Taker())
