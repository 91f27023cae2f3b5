"""Reads the broker's stream and brings each update to the door.

A message is only taken off once it is stored; what a broken connection missed is fetched on the
next one. Never decides anything: the door does.
"""

import logging
import queue
import threading

from django.db import DatabaseError, close_old_connections, connection

from orders.models import OrderHistory
from orders.sync import ensure_open_book, poll, refresh, take_in
from ordinis import heartbeat
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca import parse_trade_update
from ordinis.broker.alpaca_stream import ALIVE, CONNECTED, STOP, Message
from ordinis.broker.errors import BrokerError

log = logging.getLogger("ordinis.stream")

_RETRY_SECONDS = 1.0


class Reader(threading.Thread):
    """Works off the messages of one account's stream, in order, in a thread of its own."""

    def __init__(self, account: BrokerAccount, messages: "queue.SimpleQueue[Message]") -> None:
        super().__init__(name="stream-reader", daemon=True)
        self._account = account
        self._messages = messages
        self._refresher = _Refresher(account)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends both threads; what is not worked off yet is told by the next connection."""
        self._stopped.set()
        self._messages.put(STOP)
        self._refresher.stopped.set()
        self._refresher.wanted.set()
        self.join(10)
        self._refresher.join(10)

    def run(self) -> None:
        self._refresher.start()
        while (message := self._messages.get()) != STOP:
            while not self._stored(message) and not self._stopped.wait(_RETRY_SECONDS):
                pass
            if message != ALIVE:
                self._refresher.wanted.set()
        connection.close()

    def _stored(self, message: Message) -> bool:
        """Whether the message needs no further try."""
        try:
            close_old_connections()
            heartbeat.beat("listen")
            if message == ALIVE:
                return True
            if message == CONNECTED:
                log.info("connected to the broker's stream", extra={"account": self._account.name})
                ensure_open_book(self._account)
                poll(self._account, source=OrderHistory.Source.STREAM)
            else:
                report = parse_trade_update(message)
                take_in(self._account, report, OrderHistory.Source.STREAM)
        except ValueError as error:  # the next poll tells what this message could not
            log.error("unreadable trade update", extra={"error": str(error)})
        except (DatabaseError, BrokerError) as error:
            log.warning("trade update is tried again", extra={"error": str(error)})
            connection.close()
            return False
        return True


class _Refresher(threading.Thread):
    """After updates, brings the broker's side of the book up to date, at most once a second, so
    that a fill does not look like a drift until the next reconciliation."""

    def __init__(self, account: BrokerAccount) -> None:
        super().__init__(name="stream-refresher", daemon=True)
        self._account = account
        self.wanted = threading.Event()
        self.stopped = threading.Event()

    def run(self) -> None:
        while self.wanted.wait() and not self.stopped.wait(1):
            # What came in one burst is answered by one question.
            self.wanted.clear()
            try:
                close_old_connections()
                refresh(self._account)
            except (DatabaseError, BrokerError) as error:
                log.warning("figures not refreshed", extra={"error": str(error)})
                connection.close()
        connection.close()
