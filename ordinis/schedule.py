"""The periodic jobs, in one list, and how one is run.

Two clocks read the list: APScheduler (`ordinis.clock`) and Celery beat (`ordinis.celery`). Both
queues call `run_job`. Jobs take no arguments, find what is due in the tables, and are safe to run
twice. Must never let a job's failure stop the others, or run one job twice at the same time.
"""

import logging
import threading
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import Error, close_old_connections, connection
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from ordinis import heartbeat
from ordinis.models import JobRun

logger = logging.getLogger(__name__)

# A killed worker's job is free again after this long; a living one renews its lease in time.
LEASE = timedelta(seconds=15)
RENEWED_EVERY = 5.0


@dataclass(frozen=True)
class Job:
    """One periodic job."""

    name: str
    """What it is called in the queue, the logs and the console."""
    function: str
    """Dotted path of a function without arguments."""
    every: float
    """Seconds between two runs."""


JOBS = (
    Job("resolve", "orders.jobs.resolve", every=2),
    Job("pursue_cancels", "orders.jobs.pursue_cancels", every=2),
    Job("follow_up", "orders.jobs.follow_up", every=2),
    Job("breaker", "orders.outcome_jobs.breaker", every=5),
    Job("watch", "orders.jobs.watch", every=30),
    Job("poll", "orders.jobs.poll", every=settings.POLL_SECONDS),
    # Looks whether a run is due: one on demand puts off the next.
    Job("reconcile", "reconciliation.jobs.reconcile", every=min(5, settings.RECONCILE_SECONDS)),
    Job("second_look", "reconciliation.jobs.second_look", every=2),
    Job("after_orders", "reconciliation.jobs.after_orders", every=2),
    Job("calendar", "risk.jobs.calendar", every=3600),
    Job("forget", "orders.jobs.forget", every=3600),
    Job("expire", "reconciliation.jobs.expire", every=60),
    Job("daily", "reconciliation.jobs.daily", every=60),
    Job("escalate", "reconciliation.jobs.escalate", every=60),
    Job("trade", "reconciliation.jobs.trade", every=10),
    Job("forget_evidence", "reconciliation.jobs.forget", every=3600),
    Job("tell", "ordinis.alerts.jobs.tell", every=2),
    Job("silence", "ordinis.alerts.silence.look_at_stream", every=10),
    Job("heartbeat", "ordinis.heartbeat_out.call", every=60),
)


def job_named(name: str) -> Job:
    return next(job for job in JOBS if job.name == name)


def run_job(name: str) -> bool:
    """Runs the job unless it is running already; says whether it ran. Records what came of it."""
    job = job_named(name)
    close_old_connections()
    heartbeat.beat("worker")
    holder = _take_lease(name)
    if holder is None:
        return False
    began = time.monotonic()
    error = ""
    try:
        with _renewed(name, holder):
            import_string(job.function)()
    except Exception:
        error = traceback.format_exc()
        logger.exception("The job %s failed", name)
    except BaseException:
        error = traceback.format_exc()  # the queue's time limit
        raise
    finally:
        _finish(name, holder, seconds=time.monotonic() - began, error=error)
    return True


def _mine(name: str, holder: str) -> Q:
    return Q(name=name, lease_holder=holder)


def _take_lease(name: str) -> str | None:
    """Compare-and-swap on the row, on the database's clock."""
    JobRun.objects.bulk_create([JobRun(name=name)], ignore_conflicts=True)
    holder = uuid.uuid4().hex
    taken = JobRun.objects.filter(Q(lease_until=None) | Q(lease_until__lt=Now()), name=name).update(
        lease_holder=holder, lease_until=Now() + LEASE, last_started_at=Now()
    )
    return holder if taken else None


@contextmanager
def _renewed(name: str, holder: str) -> Iterator[None]:
    """Keeps the lease of a long job; a short one ends before this opens a connection."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED_EVERY):
            try:
                JobRun.objects.filter(_mine(name, holder)).update(lease_until=Now() + LEASE)
            except Error as error:
                logger.warning("The lease of %s was not renewed: %s", name, error)
            finally:
                connection.close()

    thread = threading.Thread(target=renew, name=f"lease of {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _finish(name: str, holder: str, *, seconds: float, error: str) -> None:
    close_old_connections()
    JobRun.objects.filter(_mine(name, holder)).update(
        lease_holder="",
        lease_until=None,
        last_finished_at=Now(),
        last_duration=seconds,
        last_error=error,
        failures=F("failures") + 1 if error else 0,
    )
