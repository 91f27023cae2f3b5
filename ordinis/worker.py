"""The worker without Redis: django-q2's cluster, and a watch over it.

A pool process that is killed while it waits for work takes the queue's lock with it, and the rest
of the pool then waits for ever. So a task that nobody takes ends the cluster, for whoever started
it to start it again. Must never be stopped by a signal to its process group, which hangs it.
"""

import logging
import os
from datetime import timedelta

import psutil
from django.db import DatabaseError, close_old_connections, connection
from django.db.models.functions import Now
from django_q.cluster import Cluster
from django_q.models import OrmQ

STUCK_AFTER = timedelta(seconds=20)  # a task that waited this long has no taker
LOOKS_EVERY = 2.0
logger = logging.getLogger(__name__)


def run() -> None:
    """Runs the cluster until SIGTERM or SIGINT, which it handles itself."""
    connection.close()  # the cluster's processes are forked, and must not share it
    since = psutil.Process().create_time()
    cluster = Cluster()
    cluster.start()
    while cluster.sentinel.is_alive():
        cluster.sentinel.join(LOOKS_EVERY)
        if _is_stuck(since):
            logger.critical("The task queue is stuck, and is ended to be started again.")
            for process in psutil.Process().children(recursive=True):
                process.kill()
            os._exit(1)


def _is_stuck(since: float) -> bool:
    """Whether a task has waited too long since we are there to take it."""
    import time

    if time.time() - since < STUCK_AFTER.total_seconds():
        return False
    try:
        close_old_connections()
        return OrmQ.objects.filter(lock__lt=Now() - STUCK_AFTER).exists()
    except DatabaseError as error:
        logger.warning("The task queue could not be looked at: %s", error)
        return False
