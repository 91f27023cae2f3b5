"""Alpaca's history of order events (`GET /v2/events/trades`, server-sent events), to close a gap
in the stream with exactly what was missed.

It is documented for another product than ours (ALPACA.md 1.5), so it is believed only when it
repeats an event that we know; whatever else it does is `NotReplayed`, and the caller asks in
another way. The history has no end mark, live events follow it: it is read until it is quiet or
has reached a given event, never longer than a bound.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from ordinis.broker.alpaca_stream import Frame

log = logging.getLogger("ordinis.stream")

_TRANSIENT = (408, 429)
_LARGEST_EVENT = 16 * 1024 * 1024  # bytes


class NotReplayed(Exception):
    """The history was not read to its end; nothing may be concluded from what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the taker has recognised so far."""

    known: bool
    """An event that the stream had told as well."""
    reached: bool
    """An event that happened after the stream was connected, which tells all that follow it."""


Take = Callable[[list[Frame]], Seen]


class EventHistory:
    """One account's history. `supported` is False once the broker has shown that it has none
    that we could use; it is not asked for again then."""

    def __init__(
        self, *, url: str, key_id: str, secret_key: str, quiet: float = 1.0, longest: float = 8.0
    ) -> None:
        self._url = f"{url}/v2/events/trades"
        self._headers = {
            "APCA-API-KEY-ID": key_id,
            "APCA-API-SECRET-KEY": secret_key,
            "Accept": "text/event-stream",
        }
        self._quiet = quiet  # seconds without an event after which the history counts as drained
        self._longest = longest  # seconds
        self.supported = True

    def replay(self, since_id: str, take: Take) -> None:
        """Hands every event after `since_id` to `take`, in the frames of the stream.

        Returns when the history is drained. Raises NotReplayed.
        """
        if not self.supported:
            raise NotReplayed("the broker has no event history that we can use")
        try:
            # The loop only runs while a piece is awaited, so that `take` may use the database.
            with asyncio.Runner() as runner:
                self._read(runner, since_id, take)
        except (aiohttp.ClientError, OSError) as error:  # OSError: timeouts too
            reason = str(error) or type(error).__name__
            raise NotReplayed(f"the event history broke off: {reason}") from error

    def _read(self, runner: asyncio.Runner, since_id: str, take: Take) -> None:
        deadline = time.monotonic() + self._longest
        session = runner.run(self._session())
        try:
            response = runner.run(asyncio.wait_for(self._ask(session, since_id), self._longest))
            self._check(response)
            self._drain(runner, response, take, deadline)
        finally:
            runner.run(session.close())

    async def _session(self) -> aiohttp.ClientSession:
        # Live events go on for ever: the reads are bounded, not the whole.
        timeout = aiohttp.ClientTimeout(total=None)
        return aiohttp.ClientSession(timeout=timeout, headers=self._headers)

    async def _ask(self, session: aiohttp.ClientSession, since_id: str) -> aiohttp.ClientResponse:
        query = {"since_id": since_id}
        return await session.get(self._url, params=query, allow_redirects=False)

    def _check(self, response: aiohttp.ClientResponse) -> None:
        status, kind = response.status, response.content_type
        if status == 200 and kind == "text/event-stream":
            return
        if status in _TRANSIENT or status >= 500:
            raise NotReplayed(f"the event history was answered with {status}")
        self._give_up(f"{status} {kind}")

    def _drain(
        self,
        runner: asyncio.Runner,
        response: aiohttp.ClientResponse,
        take: Take,
        deadline: float,
    ) -> None:
        lines, seen = _Lines(), Seen(known=False, reached=False)
        while not (seen.known and seen.reached):
            left = max(deadline - time.monotonic(), 0)
            # Before anything that we know has come, silence may be the broker still searching.
            patience = min(self._quiet, left) if seen.known else left
            try:
                data = runner.run(_piece(response, patience))
            except TimeoutError:
                if not seen.known:
                    self._give_up("it does not repeat what the stream told")
                if patience < self._quiet:
                    raise NotReplayed("the event history did not come to its end") from None
                return
            if not data:
                raise NotReplayed("the event history was cut off")
            if events := list(lines.events(data)):
                seen = take(events)

    def _give_up(self, why: str) -> None:
        self.supported = False
        log.warning("the broker's event history is not used: %s", why)
        raise NotReplayed(why)


async def _piece(response: aiohttp.ClientResponse, seconds: float) -> bytes:
    return await asyncio.wait_for(response.content.readany(), seconds)


class _Lines:
    """Server-sent events out of bytes that come in any pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def events(self, piece: bytes) -> Iterator[Frame]:
        """The events that this piece completes. Raises NotReplayed when the broker says that it
        left some out."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LARGEST_EVENT:
            raise NotReplayed("an event of the history is too large")
        for line in lines:
            text = line.rstrip(b"\r")
            if text.startswith(b":"):
                _heed(text)
            elif text.startswith(b"data:"):
                self._data.append(text[5:].removeprefix(b" "))
            elif not text and self._data:
                body, self._data = b"\n".join(self._data), []
                # The history tells the event alone, the stream wraps it.
                yield Frame(b'{"stream":"trade_updates","data":' + body + b"}", datetime.now(UTC))


def _heed(comment: bytes) -> None:
    """Alpaca reports its faults in comments: `you are reading too slowly, dropped 10000
    messages`, `internal server error`."""
    if b"dropped" in comment or b"error" in comment:
        raise NotReplayed(comment.decode(errors="replace").lstrip(": "))
