"""The event sources: what happened as server-sent events, history first, then as it comes.

`/v2/events/trades` tells what the order stream tells, under the same ids, and
`/v2beta1/events/activities` what moved shares and money. Nothing falls between history and live:
both are taken up in one step. Comment lines begin with a colon.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from ordinis.simulator import refusals
from ordinis.simulator.faults import Faults
from ordinis.simulator.history import ACTIVITIES, TRADES, History, Told
from ordinis.simulator.moments import SECOND, Clock
from ordinis.simulator.options import Options
from ordinis.simulator.query import HEADERS, moment
from ordinis.simulator.wire import ACCOUNT_ID

_QUEUE_LIMIT = 10_000
_END = b""
_ULID_DIGITS = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@dataclass(frozen=True, slots=True)
class Span:
    """What a listener asked for."""

    since: int | None = None
    until: int | None = None
    since_id: str | None = None
    until_id: str | None = None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "Span":
        """Raises Refusal."""
        span = cls(
            since=moment(query, "since"),
            until=moment(query, "until"),
            since_id=_ulid(query, "since_id"),
            until_id=_ulid(query, "until_id"),
        )
        if span.since is not None and span.since_id is not None:
            raise refusals.malformed("since and since_id cannot be used together")
        if span.until is not None and span.since is None:
            raise refusals.malformed("since is required with until")
        if span.until_id is not None and span.since_id is None:
            raise refusals.malformed("since_id is required with until_id")
        return span

    def past(self, history: History) -> list[Told]:
        if self.since_id is not None:
            return history.between(self.since_id, self.until_id)
        if self.since is not None:
            return history.during(self.since, self.until)
        return []

    def is_over(self, event: Told) -> bool:
        """Whether the event lies beyond the end."""
        if self.until_id is not None:
            return event.id > self.until_id
        return self.until is not None and event.moment > self.until


def _ulid(query: Mapping[str, str], name: str) -> str | None:
    text = query.get(name)
    if not text:
        return None
    if len(text) != 26 or not _ULID_DIGITS.issuperset(text.upper()):
        raise refusals.malformed(f"invalid {name}: {text}")
    return text.upper()


def _line(event: Told) -> bytes:
    if event.channel == TRADES:
        return b'data: {"account_id":"%s",%s\n\n' % (ACCOUNT_ID.encode(), event.body[1:])
    return b"data: %s\n\n" % event.body


class _Listener:
    """One open request; a queue that overflows loses all it holds, and says so."""

    def __init__(self, channel: str, span: Span, transport: asyncio.BaseTransport | None) -> None:
        self.channel = channel
        self.span = span
        self.transport = transport
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()

    def offer(self, event: Told) -> None:
        if self.span.is_over(event):
            self.queue.put_nowait(_END)
            return
        if self.queue.qsize() >= _QUEUE_LIMIT:
            dropped = 0
            while not self.queue.empty():
                self.queue.get_nowait()
                dropped += 1
            self.say_dropped(dropped)
        self.queue.put_nowait(_line(event))

    def say_dropped(self, count: int) -> None:
        self.queue.put_nowait(
            b": you are reading too slowly, dropped %d messages\n\n" % count,
        )


class EventSources:
    """Both event sources, with all who listen to them."""

    def __init__(self, faults: Faults, clock: Clock) -> None:
        self._faults = faults
        self._clock = clock
        self._listeners: set[_Listener] = set()
        self.options = Options()
        self.histories = {TRADES: History(), ACTIVITIES: History()}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/events/trades", self.trades),
            web.get("/v2beta1/events/activities", self.activities),
        ]

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def publish(self, events: list[Told]) -> None:
        for event in events:
            self.histories[event.channel].add(event)
            for listener in self._listeners:
                if listener.channel != event.channel:
                    continue
                if not self._faults.idle and self._faults.for_event("sse_slow", str(event.body)):
                    listener.say_dropped(1)
                else:
                    listener.offer(event)

    def forget(self) -> None:
        """All histories anew; who listens goes on listening."""
        self.histories = {channel: History() for channel in self.histories}

    def abort(self) -> None:
        """Cut every connection without a farewell."""
        for listener in self._listeners:
            if isinstance(listener.transport, asyncio.Transport):
                listener.transport.abort()
            listener.queue.put_nowait(_END)

    def fail(self) -> None:
        """End every connection with the comment that tells of the server's own error."""
        for listener in self._listeners:
            listener.queue.put_nowait(b": internal server error\n\n")
            listener.queue.put_nowait(_END)

    async def trades(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request, TRADES)

    async def activities(self, request: web.Request) -> web.StreamResponse:
        return await self._tell(request, ACTIVITIES)

    async def _tell(self, request: web.Request, channel: str) -> web.StreamResponse:
        if not self.options.sse:
            raise refusals.Refusal(404, None, "endpoint not found")
        span = Span.read(request.query)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                **request.get(HEADERS, {}),
            }
        )
        await response.prepare(request)
        listener = _Listener(channel, span, request.transport)
        # No other task runs between these two: nothing is missed, nothing comes twice.
        past = span.past(self.histories[channel])
        if not self._ends_now(span, channel):
            self._listeners.add(listener)
        try:
            for event in past:
                await response.write(_line(event))
            if listener in self._listeners:
                await self._follow(response, listener)
        except ConnectionError:
            pass  # the listener went away
        finally:
            self._listeners.discard(listener)
        return response

    def _ends_now(self, span: Span, channel: str) -> bool:
        """Whether the end that was asked for lies in the past."""
        if span.until_id is not None:
            return bool(self.histories[channel].between(span.until_id, None))
        return span.until is not None and span.until <= self._clock()

    async def _follow(self, response: web.StreamResponse, listener: _Listener) -> None:
        """Tell what comes, until the end; now and then a sign of life."""
        until = listener.span.until
        while True:
            wait = self.options.sse_heartbeat
            if until is not None:
                wait = min(wait, max(until - self._clock(), 0) / SECOND)
            try:
                line = await asyncio.wait_for(listener.queue.get(), wait)
            except TimeoutError:
                if until is not None and until <= self._clock():
                    return
                line = b": heartbeat\n\n"
            if line == _END:
                return
            await response.write(line)
