"""Both clocks and both queues run the same jobs, each with its real processes."""

import pytest
import redis

from ordinis.celery import QUEUE, BoundedScheduler, app
from ordinis.schedule import JOBS
from tests.processes.conftest import Command, Desk
from tests.waiting import until

OFTEN = {"resolve", "poll", "reconcile"}  # due within two seconds on these desks


def finished(desk: Desk) -> set[str]:
    return {
        name
        for name, error in desk.rows(
            "SELECT name, last_error FROM ordinis_jobrun WHERE last_finished_at IS NOT NULL"
        )
        if not error
    }


def seen(desk: Desk) -> set[str]:
    return {name for (name,) in desk.rows("SELECT name FROM ordinis_heartbeat")}


def run_both(desk: Desk, **environment: str) -> tuple[Command, Command]:
    return desk.start("worker", **environment), desk.start("clock", **environment)


def test_apscheduler_and_django_q_run_the_schedule(prepared_desk: Desk) -> None:
    desk = prepared_desk
    worker, clock = run_both(desk)

    until(lambda: finished(desk) >= OFTEN, seconds=20)
    until(lambda: seen(desk) >= {"worker", "clock"})

    assert clock.end() == 0
    assert worker.end() == 0
    until(lambda: not desk.processes())


def test_celery_beat_and_worker_run_the_schedule(prepared_desk: Desk, redis_url: str) -> None:
    desk = prepared_desk
    worker, beat = run_both(desk, REDIS_URL=redis_url)

    until(lambda: finished(desk) >= OFTEN, seconds=20)
    until(lambda: seen(desk) >= {"worker", "beat"})

    assert beat.end() == 0
    assert worker.end() == 0
    until(lambda: not desk.processes())


@pytest.mark.django_db
def test_the_beat_stops_filling_a_queue_that_nobody_empties(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = redis.Redis.from_url(redis_url)
    client.delete(QUEUE)
    monkeypatch.setattr(app.conf, "broker_url", redis_url)
    beat = BoundedScheduler(app, lazy=True)
    entry = beat.Entry(
        name="resolve", task="ordinis.run_job", args=("resolve",), schedule=2, app=app
    )

    for _ in range(5 * len(JOBS)):
        beat.apply_async(entry)

    assert client.llen(QUEUE) == 2 * len(JOBS)
    client.delete(QUEUE)
