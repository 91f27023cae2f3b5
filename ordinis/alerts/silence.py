"""Processes that give no sign of life, told of by another that lives.

The worker looks at the stream's process. The stream's process looks at the worker, which stands
still too when the clock does; and since nothing would be delivered then, it delivers itself (two
that deliver at once send one message). When both are gone only the heartbeat address is left to
tell. Must never disturb the process it runs in.
"""

import logging
import threading
import time
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import close_old_connections, connection
from django.db.models import Q
from django.db.models.functions import Now

from ordinis.alerts.channels import configured
from ordinis.alerts.jobs import tell
from ordinis.alerts.models import Alert, Severity, end_alert, raise_alert
from ordinis.models import Heartbeat

log = logging.getLogger("ordinis.alerts")

CODE: Final = "process_silent"
_EVERY = 5.0
_WHAT: Final = {
    "worker": (
        "No periodic job has run for {silent:g} seconds: the worker or the clock is down. Nothing "
        "is reconciled, resolved or told meanwhile but what the stream brings. Run manage.py "
        "start, or worker and clock on their own, and read their logs."
    ),
    "listen": (
        "The process that follows the broker's stream has given no sign of life for {silent:g} "
        "seconds. Fills are only noticed by the poll. Run manage.py start, or manage.py listen "
        "on its own, and read its log."
    ),
}
_began = time.monotonic()


def look_at_stream() -> None:
    """The worker's look at the other; after a start of the whole that one has time to begin."""
    if time.monotonic() - _began > settings.PROCESS_SILENT_SECONDS:
        look_at("listen")


def look_at(name: str) -> bool:
    """Keeps the alert about a kind of process true; says whether it is silent."""
    silent = timedelta(seconds=settings.PROCESS_SILENT_SECONDS)
    lives = Heartbeat.objects.filter(name=name, last_seen_at__gt=Now() - silent).exists()
    if lives:
        end_alert(None, code=CODE, subject=name)
    elif not _is_told(name):
        raise_alert(
            None,
            code=CODE,
            subject=name,
            severity=Severity.CRITICAL,
            message=_WHAT[name].format(silent=settings.PROCESS_SILENT_SECONDS),
        )
    return not lives


def _is_told(name: str) -> bool:
    told = Q(account=None, code=CODE, subject=name)
    if name == "listen":  # it lives, and said itself why it gives no sign
        told |= Q(code="stream_down")
    return Alert.objects.filter(told, ended_at=None).exists()


def watch_worker(stop: threading.Event) -> None:
    """For a thread of the stream's process: looks until `stop`, and delivers for a worker that
    does not."""
    began = time.monotonic()
    while not stop.wait(_EVERY):
        try:
            close_old_connections()
            if time.monotonic() - began < settings.PROCESS_SILENT_SECONDS:
                continue
            # Without channels of its own this process must not say that everything was told.
            if look_at("worker") and configured().channels:
                tell()
        except Exception as error:  # the database is away, most likely: the next look tells
            log.warning("the worker was not looked at", extra={"error": type(error).__name__})
        finally:
            connection.close()
