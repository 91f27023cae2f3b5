"""The clock without Redis: APScheduler puts the periodic jobs on django-q2's database queue.

Must never run a job itself, and never let the queue grow while no worker takes from it: a job
that still waits or runs isn't queued again.
"""

import logging
import signal
import threading
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from django.db import close_old_connections
from django.db.models.functions import Now
from django_q.models import OrmQ
from django_q.tasks import async_task

from ordinis import heartbeat
from ordinis.models import JobRun
from ordinis.schedule import JOBS

logger = logging.getLogger(__name__)


def enqueue(name: str) -> bool:
    """Queues the job unless it waits or runs already; says whether it did.

    A row that a worker has taken is not waiting: its worker may be dead, and the lease tells.
    """
    close_old_connections()
    heartbeat.beat("clock")
    waiting = {task.name() for task in OrmQ.objects.filter(lock__lte=Now())}
    if name in waiting or JobRun.objects.filter(name=name, lease_until__gt=Now()).exists():
        return False
    # Not kept when it succeeds: JobRun tells of every run.
    async_task("ordinis.schedule.run_job", name, task_name=name, save=False)
    return True


def run() -> None:
    """Ticks until SIGTERM or SIGINT."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(1)},  # one thread, one database connection
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone="UTC",
    )
    for job in JOBS:
        scheduler.add_job(
            enqueue,
            "interval",
            [job.name],
            seconds=job.every,
            id=job.name,
            next_run_time=datetime.now(UTC),  # the first one at once: what is the state now?
        )
    scheduler.start()
    ended.wait()
    scheduler.shutdown()
