"""A job runs once at a time, whatever happens to it, and what came of it is known."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django_q.models import OrmQ
from django_q.tasks import async_task

from ordinis import clock, heartbeat, schedule, worker
from ordinis.models import Heartbeat, JobRun
from ordinis.schedule import JOBS, Job, run_job

pytestmark = pytest.mark.django_db(transaction=True)

entered, may_end = threading.Event(), threading.Event()


def slow() -> None:
    entered.set()
    assert may_end.wait(10)


def fails() -> None:
    raise RuntimeError("the broker sent a riddle")


def succeeds() -> None:
    pass


@pytest.fixture(autouse=True)
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("slow", "fails", "succeeds")
    made = tuple(Job(name, f"{__name__}.{name}", every=1) for name in names)
    monkeypatch.setattr(schedule, "JOBS", made)
    heartbeat._written.clear()
    entered.clear()
    may_end.clear()
    yield
    may_end.set()


def test_every_job_of_the_schedule_can_be_found() -> None:
    from django.utils.module_loading import import_string

    assert all(callable(import_string(job.function)) for job in JOBS)
    assert len({job.name for job in JOBS}) == len(JOBS)


def test_a_job_that_runs_is_not_run_a_second_time() -> None:
    def run_it() -> None:
        assert run_job("slow")
        connection.close()

    running = threading.Thread(target=run_it)
    running.start()
    assert entered.wait(10)

    assert run_job("slow") is False
    assert clock.enqueue("slow") is False

    may_end.set()
    running.join()
    row = JobRun.objects.get(name="slow")
    assert row.lease_until is None
    assert row.last_finished_at is not None
    assert run_job("slow") is True


def test_a_long_job_keeps_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LEASE", timedelta(seconds=0.5))
    monkeypatch.setattr(schedule, "RENEWED_EVERY", 0.1)

    def run_it() -> None:
        run_job("slow")
        connection.close()

    running = threading.Thread(target=run_it)
    running.start()
    assert entered.wait(10)
    first = JobRun.objects.get(name="slow").lease_until
    assert first is not None

    from tests.waiting import until

    until(lambda: (JobRun.objects.get(name="slow").lease_until or first) - first > LONGER)
    assert run_job("slow") is False
    may_end.set()
    running.join()


LONGER = timedelta(seconds=0.6)


def test_the_lease_of_a_killed_worker_ends_by_itself() -> None:
    JobRun.objects.create(name="succeeds", lease_holder="killed", lease_until=Now())

    assert run_job("succeeds") is True


def test_a_failure_is_recorded_and_counted_until_it_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_job("fails") is True
    assert run_job("fails") is True
    row = JobRun.objects.get(name="fails")
    assert "the broker sent a riddle" in row.last_error
    assert row.failures == 2
    assert row.lease_until is None

    monkeypatch.setattr(f"{__name__}.fails", succeeds)
    run_job("fails")
    row.refresh_from_db()
    assert (row.last_error, row.failures) == ("", 0)


def test_a_run_is_a_sign_of_life_of_the_worker() -> None:
    run_job("succeeds")

    assert Heartbeat.objects.filter(name="worker").exists()


def test_a_job_that_waits_is_not_queued_again() -> None:
    assert clock.enqueue("succeeds") is True
    assert clock.enqueue("succeeds") is False
    assert clock.enqueue("fails") is True
    assert OrmQ.objects.count() == 2


def test_a_job_whose_worker_was_killed_is_queued_again() -> None:
    clock.enqueue("succeeds")
    # Taken by a worker that then died: the queue itself would wait two minutes.
    OrmQ.objects.update(lock=Now() + timedelta(minutes=2))

    assert clock.enqueue("succeeds") is True


def test_a_task_that_nobody_takes_shows_that_the_queue_is_stuck() -> None:
    async_task("ordinis.schedule.run_job", "succeeds")
    assert worker.is_stuck() is False

    OrmQ.objects.update(lock=Now() - timedelta(minutes=1))
    assert worker.is_stuck() is True

    JobRun.objects.create(name="slow", lease_until=Now() + timedelta(minutes=1))
    assert worker.is_stuck() is False
