"""Signs of life of the processes, for health and the console.

A beat is given where the work is done, so that a process that hangs is seen, not only one that
died. Must never stop the work it reports on.
"""

import logging
import threading
import time

from django.db import Error, close_old_connections, connection
from django.db.models.functions import Now

from ordinis.models import Heartbeat

EVERY = 5.0  # seconds between two written beats of a process
logger = logging.getLogger(__name__)
_written: dict[str, float] = {}


def beat(name: str) -> None:
    """Writes that the process kind `name` is at work; at most every five seconds."""
    now = time.monotonic()
    if now - _written.get(name, -EVERY) < EVERY:
        return
    _written[name] = now
    try:
        Heartbeat.objects.bulk_create(
            [Heartbeat(name=name, last_seen_at=Now())],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["last_seen_at"],
        )
    except Error as error:
        logger.warning("The sign of life of %s was not written: %s", name, error)


def keep_beating(name: str) -> None:
    """Beats from a thread, for a process whose work happens in its children."""

    def run() -> None:
        while True:
            close_old_connections()
            beat(name)
            connection.close()  # not left open to be copied into forked children
            time.sleep(EVERY)

    threading.Thread(target=run, name="heartbeat", daemon=True).start()
