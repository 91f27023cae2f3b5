"""The worker without Redis: django-q2's cluster, and a watch over it.

A pool process that is killed while it waits for work takes the queue's lock with it, and the rest
of the pool then waits for ever. So a task that nobody takes, while no job runs, ends the cluster,
for whoever started it to start it again. Must never be stopped by a signal to its process group:
that hangs it.
"""

import logging
import os
import time
from datetime import timedelta

import psutil
from django.db import Error, close_old_connections, connection
from django.db.models.functions import Now
from django_q.cluster import Cluster
from django_q.models import OrmQ

from ordinis.models import JobRun

STUCK_AFTER = timedelta(seconds=10)  # a task that waited this long has no taker
LOOKS_EVERY = 2.0
logger = logging.getLogger(__name__)


def run() -> None:
    """Runs the cluster until SIGTERM or SIGINT, which it handles itself."""
    connection.close()  # the cluster's processes are forked, and must not share it
    began = time.monotonic()
    cluster = Cluster()
    cluster.start()
    while cluster.sentinel.is_alive():
        cluster.sentinel.join(LOOKS_EVERY)
        if time.monotonic() - began > STUCK_AFTER.total_seconds() and is_stuck():
            logger.critical("The task queue is stuck, and is ended to be started again.")
            for process in psutil.Process().children(recursive=True):
                process.kill()
            os._exit(1)


def is_stuck() -> bool:
    try:
        close_old_connections()
        waits = OrmQ.objects.filter(lock__lt=Now() - STUCK_AFTER).exists()
        return waits and not JobRun.objects.filter(lease_until__gt=Now()).exists()
    except Error as error:
        logger.warning("The task queue could not be looked at: %s", error)
        return False
