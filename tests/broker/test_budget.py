"""The request budget: who waits when little is left, and one word for all processes."""

import threading
import time
from datetime import UTC, datetime

import pytest
from django.test import Client

from orders import jobs
from orders.sync import ensure_open_book
from ordinis.accounts import brokers
from ordinis.accounts.brokers import SharedBudget, broker_for
from ordinis.accounts.models import BrokerAccount, RequestBudget
from ordinis.alerts.models import Alert
from ordinis.broker.budget import Budget, NoStore, Priority, Window, priority
from ordinis.broker.errors import NotSent
from tests.conftest import Api
from tests.simulator_server import SimulatorServer
from tests.waiting import for_a_fresh_minute


def _headers(remaining: int, *, limit: int = 200, seconds: float = 60) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(int(time.time() + seconds)),
    }


def _passes(budget: Budget, value: Priority) -> bool:
    try:
        with priority(value):
            budget.take()
    except NotSent:
        return False
    return True


@pytest.mark.parametrize(
    ("remaining", "passing"),
    [
        (71, {Priority.CANCEL, Priority.SUBMIT, Priority.READ, Priority.POLL}),
        (70, {Priority.CANCEL, Priority.SUBMIT, Priority.READ}),
        (31, {Priority.CANCEL, Priority.SUBMIT, Priority.READ}),
        (30, {Priority.CANCEL, Priority.SUBMIT}),
        (11, {Priority.CANCEL, Priority.SUBMIT}),
        (10, {Priority.CANCEL}),
        (1, {Priority.CANCEL}),
        (0, set()),
    ],
)
def test_what_is_left_goes_to_the_most_urgent(remaining: int, passing: set[Priority]) -> None:
    for value in Priority:
        budget = Budget(NoStore())
        budget.note(_headers(remaining))

        assert _passes(budget, value) == (value in passing), value.name


def test_without_the_brokers_word_nothing_is_held_back() -> None:
    budget = Budget(NoStore())
    budget.note({"X-RateLimit-Limit": "many"})

    assert _passes(budget, Priority.POLL)


def test_requests_under_way_count_before_their_answers_do() -> None:
    budget = Budget(NoStore())
    budget.note(_headers(13))

    taken = [_passes(budget, Priority.SUBMIT) for _ in range(5)]

    assert taken == [True, True, True, False, False]


def test_a_new_window_starts_anew() -> None:
    budget = Budget(NoStore())
    budget.note(_headers(0, seconds=-1))

    assert _passes(budget, Priority.POLL)


@pytest.mark.parametrize("seconds", [86_400, 1e9, 1e12])
def test_a_window_that_would_end_in_hours_is_not_believed(seconds: float) -> None:
    budget = Budget(NoStore())
    budget.note(_headers(0, seconds=seconds))

    assert _passes(budget, Priority.POLL)


def test_an_answer_that_comes_late_does_not_give_back_what_is_spent() -> None:
    budget = Budget(NoStore())
    late = _headers(50)
    budget.note({**late, "X-RateLimit-Remaining": "10"})
    budget.note(late)

    assert not _passes(budget, Priority.SUBMIT)


@pytest.mark.django_db
def test_processes_share_one_word_and_an_older_one_changes_nothing(
    account: BrokerAccount,
) -> None:
    first, second = Budget(SharedBudget(account.pk)), Budget(SharedBudget(account.pk))
    first.note(_headers(5))
    SharedBudget(account.pk).save(Window(limit=200, remaining=90, reset_at=time.time() + 1))

    assert not _passes(second, Priority.SUBMIT)
    row = RequestBudget.objects.get()
    assert (row.remaining, row.held_back) == (5, 1)
    assert row.last_held_back_at is not None
    assert row.last_held_back_at <= datetime.now(UTC)


@pytest.mark.django_db(transaction=True)
def test_with_little_left_polls_wait_and_orders_still_go(
    sim: SimulatorServer, api: Api, account: BrokerAccount, client: Client
) -> None:
    ensure_open_book(account)
    for_a_fresh_minute()
    sim.post("/sim/options", {"rate_limit": 20})
    broker_for(account).account()
    body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "1.00"}

    statuses = [
        api.post("/orders", {**body, "limit_price": f"1.0{n}"}).status_code for n in range(9)
    ]
    sim.delete("/sim/log")
    jobs.poll()

    assert statuses == [201] * 9
    assert sim.get("/sim/log") == [], "the poll waited"
    assert RequestBudget.objects.get().held_back > 0
    alert = Alert.objects.get(code="polls_held_back")
    assert alert.ended_at is None
    metrics = client.get("/metrics").content.decode()
    assert 'ordinis_broker_requests_limit{account="main"} 20.0' in metrics
    held_back = float(metrics.split('held_back_total{account="main"} ')[1].split()[0])
    assert held_back > 0

    sim.post("/sim/options", {"rate_limit": 0})
    RequestBudget.objects.all().delete()
    brokers._adapter.cache_clear()
    jobs.poll()
    alert.refresh_from_db()
    assert alert.ended_at is not None


def test_threads_never_take_more_than_there_is() -> None:
    budget = Budget(NoStore())
    budget.note(_headers(100))
    taken: list[bool] = []

    def take() -> None:
        for _ in range(20):
            taken.append(_passes(budget, Priority.CANCEL))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(taken) == 100
