"""The Celery application, used where REDIS_URL is set: the same jobs on another clock and queue.

Must never hold a schedule of its own: it's made from `ordinis.schedule`.
"""

import os
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.beat import Scheduler
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
app = Celery("ordinis", broker=settings.REDIS_URL)
QUEUE = "ordinis"


def _beat_schedule() -> dict[str, Any]:
    from ordinis.schedule import JOBS

    return {
        job.name: {
            "task": "ordinis.run_job",
            "schedule": job.every,
            "args": (job.name,),
            # Long ago: the first run is due at once. What is the state now?
            "last_run_at": datetime(2000, 1, 1, tzinfo=UTC),
            # One that no worker took in time is worthless: the next is due.
            "options": {"expires": job.every},
        }
        for job in JOBS
    }


app.conf.update(
    beat_scheduler="ordinis.celery:BoundedScheduler",
    broker_connection_retry_on_startup=True,
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_time_limit=70,
    task_soft_time_limit=60,
    timezone="UTC",
    worker_concurrency=2,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=1,
    worker_redirect_stdouts=False,
)


@app.task(name="ordinis.run_job")  # type: ignore[untyped-decorator]
def run_job(name: str) -> None:
    from ordinis import schedule

    schedule.run_job(name)


@app.on_after_finalize.connect  # type: ignore[untyped-decorator]
def _set_schedule(sender: Any, **_: object) -> None:
    sender.conf.beat_schedule = _beat_schedule()


class BoundedScheduler(Scheduler):  # type: ignore[misc]
    """Beat's scheduler in memory, which stops sending while nobody takes from the queue."""

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kw: Any) -> Any:
        from ordinis import heartbeat
        from ordinis.schedule import JOBS

        heartbeat.beat("beat")
        with self.app.connection_for_write() as connection:
            declared = connection.default_channel.queue_declare(QUEUE, passive=False)
            if declared.message_count >= 2 * len(JOBS):
                return None
        return super().apply_async(entry, producer=producer, advance=advance, **kw)
