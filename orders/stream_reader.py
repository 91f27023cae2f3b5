"""What happens to the stream's messages behind the queue: stored, completed, worked off.

Four threads, so that nothing waits for anything slower than itself: one stores each frame before
all else, one closes the gap after each connection, one works stored messages off
(`stream_worker`), and one refreshes the broker's side. What is stored is safe: when the process
dies, whoever comes next goes on from there. Never makes anything of a frame that is not stored.
"""

import logging
import queue
import threading

from django.db import Error, close_old_connections, connection

from orders import stream_gap, stream_store
from orders.stream_gap import Gap
from orders.stream_link import Link
from orders.stream_worker import StreamWorker
from orders.sync import refresh
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_events import EventHistory
from ordinis.broker.alpaca_stream import Frame, Mark, Message
from ordinis.broker.errors import BrokerError
from ordinis.failpoints import failpoint

log = logging.getLogger("ordinis.stream")

_BATCH = 200
_RETRY_SECONDS = 1.0
_LONGEST_GAP_RETRY = 10.0
_GLANCE_SECONDS = 0.2  # how long a wait for a gap lasts before it looks for the end


class Reader:
    """Everything behind the queue of one account's stream."""

    def __init__(
        self,
        account: BrokerAccount,
        messages: "queue.SimpleQueue[Message]",
        history: EventHistory,
    ) -> None:
        gap, link = Gap(), Link(account)
        stopped, stored, refreshed = threading.Event(), threading.Event(), threading.Event()
        self._messages = messages
        self._stopped = stopped
        self._awaited = (stored, refreshed)
        self._threads = (
            _Storer(account, messages, gap, link, stopped, stored),
            _Closer(account, gap, history, stopped, stored),
            StreamWorker(account, gap, link, stopped, stored, refreshed),
            _Refresher(account, stopped, refreshed),
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def is_whole(self) -> bool:
        """Whether every thread runs: without one of them messages would wait unseen."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Ends all threads. Every frame that came is stored by then, or the database is away and
        the next connection fetches it."""
        self._stopped.set()
        self._messages.put(Mark.STOP)
        for event in self._awaited:
            event.set()
        for thread in self._threads:
            thread.join(10)


class _Storer(threading.Thread):
    """Stores each frame before anything is made of it, in the order in which they came."""

    def __init__(
        self,
        account: BrokerAccount,
        messages: "queue.SimpleQueue[Message]",
        gap: Gap,
        link: Link,
        stopped: threading.Event,
        stored: threading.Event,
    ) -> None:
        super().__init__(name="stream-storer", daemon=True)
        self._account = account
        self._messages = messages
        self._gap = gap
        self._link = link
        self._stopped = stopped
        self._stored = stored

    def run(self) -> None:
        frames: list[Frame] = []
        while True:
            message = self._next(0 if frames else 1)
            if isinstance(message, Frame):
                frames.append(message)
                if len(frames) < _BATCH:
                    continue
            if frames:
                if not self._store(frames):
                    break  # what comes after must not be stored as if these were
                frames = []
            if message is Mark.STOP:
                break
            if message is Mark.CONNECTED:
                self._gap.open()
            if isinstance(message, Mark):
                self._link.heed(message)
            self._report()
        connection.close()

    def _next(self, seconds: float) -> Message | None:
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            return None

    def _store(self, frames: list[Frame]) -> bool:
        """Whether they are stored; not when we are to stop while the database is away. Then the
        next connection starts from the last message that is stored."""
        first = stream_store.event_id_of(frames[0])
        while True:
            try:
                close_old_connections()
                with self._gap.storing(first) as after_gap:
                    stream_store.store(self._account.pk, frames, after_gap=after_gap)
            except Exception as error:  # the database is away; the frames wait here
                log.warning("messages not stored yet", extra={"error": str(error)})
                connection.close()
                if self._stopped.wait(_RETRY_SECONDS):
                    return False
            else:
                failpoint("stream.stored")
                self._stored.set()
                return True

    def _report(self) -> None:
        try:
            self._link.report()
        except Exception as error:  # frames are stored, whatever becomes of the alert
            log.warning("the stream's alert not written", extra={"error": str(error)})
            connection.close()


class _Closer(threading.Thread):
    """Closes the gap after each connection, and tries again until it is closed."""

    def __init__(
        self,
        account: BrokerAccount,
        gap: Gap,
        history: EventHistory,
        stopped: threading.Event,
        stored: threading.Event,
    ) -> None:
        super().__init__(name="stream-closer", daemon=True)
        self._account = account
        self._gap = gap
        self._history = history
        self._stopped = stopped
        self._stored = stored

    def run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            number = self._gap.wait_open(_GLANCE_SECONDS)
            if number is None:
                continue
            try:
                close_old_connections()
                stream_gap.close(self._account, self._gap, number, self._history)
                failures = 0
            except Exception as error:
                # What is not expected, too: a thread that ends would leave all gaps open.
                expected = isinstance(error, BrokerError | Error)
                log.warning("the gap is not closed yet: %s", error, exc_info=not expected)
                connection.close()
                failures += 1
                pause = _RETRY_SECONDS * 2 ** min(failures - 1, 10)
                self._stopped.wait(min(pause, _LONGEST_GAP_RETRY))
            self._stored.set()  # the worker need not wait, or has more to do
        connection.close()


class _Refresher(threading.Thread):
    """After updates, brings the broker's side of the book up to date, at most once a second, so
    that a fill does not look like a drift until the next reconciliation."""

    def __init__(
        self, account: BrokerAccount, stopped: threading.Event, wanted: threading.Event
    ) -> None:
        super().__init__(name="stream-refresher", daemon=True)
        self._account = account
        self._stopped = stopped
        self._wanted = wanted

    def run(self) -> None:
        while not self._stopped.is_set():
            # What came in one burst is answered by one question.
            if not self._wanted.wait(1) or self._stopped.wait(1):
                continue
            self._wanted.clear()
            try:
                close_old_connections()
                refresh(self._account)
            except Exception as error:
                expected = isinstance(error, BrokerError | Error)
                log.warning("figures not refreshed: %s", error, exc_info=not expected)
                connection.close()
        connection.close()
