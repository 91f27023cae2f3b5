"""Follows the broker's stream, one consumer per account.

Whoever holds the lease connects and reads; a second process waits and takes over when the first
is gone. Never consumes without the lease, and never decides anything about an order: the door
does.
"""

import asyncio
import contextlib
import logging
import queue

from django.conf import settings

from orders.stream_lease import LeaseUnavailable, StreamLease
from orders.stream_reader import Reader
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_events import EventHistory
from ordinis.broker.alpaca_stream import Message, TradeUpdates

log = logging.getLogger("ordinis.stream")

_LEASE_SECONDS = 1.0


class Consumer:
    """The consumer of one account's stream."""

    def __init__(self, account: BrokerAccount, *, key_id: str, secret_key: str) -> None:
        self._account = account
        self._key_id = key_id
        self._secret_key = secret_key
        # Here, since what the broker does not have is remembered as long as the process lives.
        self._history = EventHistory(
            url=settings.BROKER_URL,
            key_id=key_id,
            secret_key=secret_key,
            quiet=settings.STREAM_QUIET_SECONDS,
        )
        self._lease = StreamLease(account.pk)

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes until `stop`, whenever the lease is held. Raises KeysRefused."""
        said = ""
        try:
            while not stop.is_set():
                reason = await self._take()
                if not reason:
                    await self._consume(stop)
                elif reason != said:
                    self._say(reason)
                said = reason
                await _pause(stop)
        finally:
            self._lease.release()

    async def _take(self) -> str:
        """Why the lease is not ours; nothing when it is."""
        try:
            if await asyncio.to_thread(self._lease.take):
                return ""
        except LeaseUnavailable as error:
            return f"the database does not answer; waiting: {error}"
        return "another process consumes the stream; waiting to take over"

    async def _consume(self, stop: asyncio.Event) -> None:
        self._say("consuming the stream")
        messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        stream = TradeUpdates(
            url=settings.BROKER_URL,
            key_id=self._key_id,
            secret_key=self._secret_key,
            messages=messages,
            ping_interval=settings.STREAM_PING_INTERVAL,
            ping_timeout=settings.STREAM_PING_TIMEOUT,
        )
        reader = Reader(self._account, messages, self._history)
        reader.start()
        over = asyncio.Event()
        guard = asyncio.ensure_future(self._guard(stop, over, reader))
        try:
            await stream.follow(over)
        finally:
            guard.cancel()
            await asyncio.to_thread(reader.stop)

    async def _guard(self, stop: asyncio.Event, over: asyncio.Event, reader: Reader) -> None:
        """Says when it is over: when we are to stop, the lease is not ours any more, a thread of
        the reader has ended, or none of that can be known."""
        try:
            while not stop.is_set():
                if not await asyncio.to_thread(self._lease.is_held):
                    self._say("the lease is gone; nothing is consumed until it is held again")
                    break
                if not reader.is_whole():
                    log.error("a thread of the stream's reader ended; all are started anew")
                    break
                await _pause(stop)
        except Exception:
            log.exception("the lease can't be watched; nothing is consumed until it can")
        finally:
            over.set()

    def _say(self, what: str) -> None:
        log.info(what, extra={"account": self._account.name})


async def _pause(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), _LEASE_SECONDS)
