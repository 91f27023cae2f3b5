"""Works off the stored messages of a stream: each to the door, then marked as done.

A message that fails comes again and holds up no other order; one that can't be read is told and
passed over. Never takes a message for done before the door has had it, and never asks the broker.
"""

import logging
import threading
from datetime import UTC, datetime, timedelta

from django.db import Error, close_old_connections, connection

from orders import lifecycle, stream_store
from orders.lifecycle import Origin, Source
from orders.models import StreamMessage
from orders.stream_gap import Gap
from orders.stream_link import Link
from orders.sync import order_of
from ordinis import heartbeat
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.parsing import parse_trade_update
from ordinis.broker.port import OrderReport
from ordinis.failpoints import failpoint

log = logging.getLogger("ordinis.stream")

_ALERT = "stream_message"
_BATCH = 200
# Live messages wait for the gap to close, but not for ever: the door takes any order.
_GAP_PATIENCE = 8.0
_GLANCE_SECONDS = 0.2  # how long a wait for the gap lasts before it looks for the end
_RETRY_SECONDS = 1.0
_LONGEST_RETRY = 60.0
# Failures of a message until those of its own order pass it, and a person is told.
_FAILURE_PATIENCE = 4


class StreamWorker(threading.Thread):
    """Brings each stored message to the door and marks it done, oldest event first."""

    def __init__(
        self,
        account: BrokerAccount,
        gap: Gap,
        link: Link,
        stopped: threading.Event,
        stored: threading.Event,
        refreshed: threading.Event,
    ) -> None:
        super().__init__(name="stream-worker", daemon=True)
        self._account = account
        self._gap = gap
        self._link = link
        self._stopped = stopped
        self._stored = stored
        self._refreshed = refreshed

    def run(self) -> None:
        while not self._stopped.is_set():
            self._stored.clear()
            try:
                close_old_connections()
                _wait_briefly_for_locks()
                more = self._gap.lets_pass(_GLANCE_SECONDS, _GAP_PATIENCE) and self._round()
                self._beat()
            except Exception as error:  # the database is away: nothing is wrong with the messages
                log.warning(
                    "messages not worked off: %s", error, exc_info=not isinstance(error, Error)
                )
                connection.close()
                self._stopped.wait(_RETRY_SECONDS)
            else:
                if not more and self._gap.is_closed:
                    self._stored.wait(1)
        connection.close()

    def _beat(self) -> None:
        if self._link.stands:
            heartbeat.beat("listen")

    def _round(self) -> bool:
        """One batch; whether there may be more."""
        messages = stream_store.due(
            self._account.pk, datetime.now(UTC), patience=_FAILURE_PATIENCE, most=_BATCH
        )
        for message in messages:
            if self._stopped.is_set():
                break
            if not self._process(message):
                return True  # asked anew: those of its order wait behind it now
            self._beat()
        return len(messages) == _BATCH

    def _process(self, message: StreamMessage) -> bool:
        try:
            report = parse_trade_update(message.body)
        except Exception as error:  # whatever it holds, it must not be read first for ever
            self._pass_over(message, str(error) or type(error).__name__)
            return True
        try:
            _bring(self._account, report)
        except Exception as error:
            if not connection.is_usable():
                raise
            self._put_off(message, error)
            return False
        failpoint("stream.taken_in")
        stream_store.mark_processed(message, datetime.now(UTC))
        if message.attempts > _FAILURE_PATIENCE:
            end_alert(self._account.pk, code=_ALERT, subject=_subject(message))
        self._refreshed.set()
        return True

    def _pass_over(self, message: StreamMessage, why: str) -> None:
        log.error("unreadable trade update", extra={"stream_message": message.pk, "error": why})
        raise_alert(
            self._account.pk,
            code=_ALERT,
            subject=_subject(message),
            severity=Alert.Severity.WARNING,
            message=(
                f"The broker sent an order update that can't be read ({why}). It is kept as "
                f"stream message {message.pk}; polls tell what it could not."
            ),
        )
        stream_store.mark_processed(message, datetime.now(UTC), error=why)

    def _put_off(self, message: StreamMessage, error: Exception) -> None:
        # The exponent is bounded, too: after a day of failures it would be no number any more.
        seconds = min(_RETRY_SECONDS * 2 ** min(message.attempts, 10), _LONGEST_RETRY)
        why = f"{type(error).__name__}: {error}"
        log.warning(
            "trade update is tried again",
            extra={"stream_message": message.pk, "error": why},
            exc_info=not isinstance(error, Error),
        )
        retry_at = datetime.now(UTC) + timedelta(seconds=seconds)
        stream_store.mark_failed(message, retry_at, why)
        if message.attempts > _FAILURE_PATIENCE:  # each time: the first may not have been told
            raise_alert(
                self._account.pk,
                code=_ALERT,
                subject=_subject(message),
                severity=Alert.Severity.CRITICAL,
                message=(
                    f"An order update has failed {message.attempts} times ({why}). It is kept as "
                    f"stream message {message.pk} and tried again every minute."
                ),
            )


def _bring(account: BrokerAccount, report: OrderReport) -> None:
    """As `sync.take_in`, but a failure is not passed over: the message is kept for another try."""
    order = order_of(account, report)
    if order is None:
        return  # not one of ours
    try:
        lifecycle.observe(order.pk, report, Origin(Source.STREAM, "broker"))
    except lifecycle.MismatchedReport as mismatch:  # it will never be ours
        log.error("mismatched report", extra={"order": str(order.pk), "error": str(mismatch)})


def _wait_briefly_for_locks() -> None:
    """An order that somebody holds must not hold up the others; its message comes again."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '2s'")


def _subject(message: StreamMessage) -> str:
    return message.broker_order_id or "unreadable"
