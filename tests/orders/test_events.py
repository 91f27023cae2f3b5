"""The event feed: everything once, in one order, without a gap, whoever writes and reads."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from orders import events, lifecycle, statuses
from orders.lifecycle import Origin, Source, observe
from orders.models import Event, Order
from orders.sync import poll
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from tests import other_process
from tests.conftest import Api, quote
from tests.orders.conftest import BROKER, ReportMaker
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
ORIGIN = Origin(Source.API, "test")
T = TypeVar("T")


def _events(api: Api, **query: Any) -> list[dict[str, Any]]:
    return list(api.get("/events", **query).json()["events"])


def _another(order: Order, client_order_id: str, **changes: Any) -> Order:
    """A new order with the content of `order`."""
    values = {"id": uuid4(), "client_order_id": client_order_id, "history_length": 0}
    for name, value in {**values, "history_hash": "", **changes}.items():
        setattr(order, name, value)
    with transaction.atomic():
        lifecycle.record_intent(order, statuses.SUBMITTING, ORIGIN)
    return order


def test_an_orders_life_is_told_step_by_step_with_its_figures(
    api: Api, submitted: Order, report: ReportMaker
) -> None:
    observe(submitted.pk, report("new"), BROKER)
    for at, filled, execution in ((1, "40", ("e1", "40", "69.25")), (2, "50", ("e2", "10", "69"))):
        part = report("partially_filled", filled=filled, at=at, execution=execution)
        observe(submitted.pk, part, BROKER)
    observe(submitted.pk, report("filled", filled="100", average="69.4", at=3), BROKER)

    answer = api.get("/events")

    moved = ("seq", "kind", "from", "to", "execution_id", "qty", "price")
    columns = (*moved, "status", "filled_qty", "average_fill_price")
    told = [tuple(event[column] for column in columns) for event in answer.json()["events"]]
    new, some, all_ = "new", "partially_filled", "filled"
    assert told == [
        (1, "transition", None, "submitting", None, None, None, "submitting", "0", None),
        (2, "transition", "submitting", new, None, None, None, new, "0", None),
        (3, "fill", None, None, "e1", "40", "69.25", some, "40", "69.25"),
        (4, "transition", new, some, None, None, None, some, "40", "69.25"),
        (5, "fill", None, None, "e2", "10", "69.00", some, "50", "69.20"),
        (6, "fill", None, None, None, "50", "69.60", all_, "100", "69.40"),
        (7, "transition", some, all_, None, None, None, all_, "100", "69.40"),
    ]
    assert answer.json()["next"] == 7
    fill = answer.json()["events"][2]
    assert (fill["order"], fill["client_order_id"]) == (str(submitted.pk), "oke-1")
    assert fill["occurred_at"] == "2026-11-20T15:00:01Z"
    assert fill["received_at"] > submitted.created_at.isoformat()


def test_an_execution_that_was_inferred_before_is_no_second_event(
    api: Api, submitted: Order, report: ReportMaker
) -> None:
    observe(submitted.pk, report("partially_filled", filled="40", average="69.25"), BROKER)
    (fill,) = (event for event in _events(api) if event["kind"] == "fill")

    recognised = report("partially_filled", filled="40", at=1, execution=("e1", "40", "69.25"))
    observe(submitted.pk, recognised, BROKER)

    assert (fill["execution_id"], fill["qty"]) == (None, "40")
    assert submitted.fills.get().execution_id == "e1"
    assert _events(api, after=fill["seq"] + 1) == []
    assert len(_events(api)) == 3


def test_a_token_is_told_of_its_own_strategy_alone_even_when_it_may_operate(
    api: Api, submitted: Order, account: BrokerAccount
) -> None:
    other = Strategy.objects.create(account=account, name="momentum")
    _, token = ApiToken.issue(other, ("read", "operate"))
    _, blind = ApiToken.issue(other, ("trade", "operate"))
    first = _events(api)
    _another(submitted, "theirs", strategy=other)

    theirs = _events(Api(token))

    assert [(e["seq"], e["client_order_id"]) for e in theirs] == [(1, "theirs")]
    assert _events(api) == first
    assert Api(blind).get("/events").status_code == 403


def test_who_passes_next_back_is_told_everything_once(
    api: Api, submitted: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST", 4)
    told: list[str] = []
    after = 0
    for number in range(6):
        _another(submitted, f"o-{number}")
        if number == 3:  # further ahead than one answer reaches
            continue
        page = api.get("/events", after=after).json()
        told += [event["client_order_id"] for event in page["events"]]
        assert page["next"] == len(told)
        after = page["next"]

    assert told == ["oke-1", *(f"o-{number}" for number in range(6))]
    assert api.get("/events", after=after).json() == {"events": [], "next": after}


def test_a_long_backlog_is_told_in_pages_even_from_before_the_first_reader(
    api: Api, submitted: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        _another(submitted, f"o-{number}")
    monkeypatch.setattr(events, "MOST", 4)

    pages = []
    after = 0
    while (page := api.get("/events", after=after).json())["events"]:
        pages.append([(event["seq"], event["client_order_id"]) for event in page["events"]])
        after = page["next"]

    assert [len(page) for page in pages] == [4, 4, 3]
    named = ["oke-1", *(f"o-{number}" for number in range(10))]
    assert [told for page in pages for told in page] == list(enumerate(named, start=1))


def test_what_is_rolled_back_is_not_told_and_leaves_no_gap(api: Api, submitted: Order) -> None:
    before = Event.objects.get().pk
    with transaction.atomic():
        _another(submitted, "undone")
        transaction.set_rollback(True)
    _another(submitted, "done")

    assert [(e["seq"], e["client_order_id"]) for e in _events(api)] == [(1, "oke-1"), (2, "done")]
    assert Event.objects.latest("id").pk > before + 1, "a number of the database's own was skipped"


@pytest.mark.parametrize(
    "query",
    [
        *({"after": wrong} for wrong in ("", "-1", "x", "1.5", "9" * 30)),
        *({"wait": wrong} for wrong in ("", "-1", "30.1", "nan", "inf", "soon")),
    ],
)
def test_a_wrong_query_is_422(api: Api, query: dict[str, str]) -> None:
    answer = api.get("/events", **query)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_a_look_that_finds_nothing_is_one_query_and_takes_no_lock(
    strategy: Strategy, submitted: Order, django_assert_num_queries: Callable[[int], Any]
) -> None:
    with CaptureQueriesContext(connection) as queries:
        assert len(events.read(strategy.pk, 0)) == 1

    # What is new costs a transaction with a lock and an update, and a second look.
    words = [query["sql"].split()[0].lstrip("(") for query in queries]
    assert words == ["SELECT", "BEGIN", "SELECT", "WITH", "COMMIT", "SELECT"]
    with django_assert_num_queries(1):
        assert len(events.read(strategy.pk, 0)) == 1
    with CaptureQueriesContext(connection) as queries:
        assert events.read(strategy.pk, 1) == []
    (look,) = queries
    assert "lock" not in look["sql"]
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE orders_event")  # of what other tests had left
        cursor.execute("SET enable_seqscan = off")  # five rows are read faster without an index
        cursor.execute(f"EXPLAIN {look['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("SET enable_seqscan TO DEFAULT")
    assert "event_seq_unique" in plan
    assert "Seq Scan on orders_event" not in plan


def test_a_waiting_reader_hears_of_a_fill_within_0_3_s(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: Callable[..., dict[str, Any]]
) -> None:
    quote(sim, "TSLA", "260")
    api.post("/orders", order(client_order_id="a-1"))
    poll(account)
    last = api.get("/events").json()["next"]

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_waited, api, after=last, wait=20)
        until(_are_waiting)
        sim.post("/sim/fill", {"client_order_id": "a-1", "qty": "20", "price": "249.90"})
        poll(account)
        booked = time.monotonic()
        answer, ended = waiting.result()

    assert ended - booked < 0.3
    fill = answer["events"][0]
    assert (fill["kind"], fill["qty"], fill["price"]) == ("fill", "20", "249.90")
    assert not _are_waiting()


def test_a_wait_that_ends_answers_nothing_and_the_same_next(api: Api, submitted: Order) -> None:
    last = api.get("/events").json()["next"]
    began = time.monotonic()

    answer = api.get("/events", after=last, wait="0.25").json()

    assert answer == {"events": [], "next": last}
    assert 0.25 <= time.monotonic() - began < 0.6


def test_of_nine_long_polls_the_ninth_is_answered_at_once(api: Api, submitted: Order) -> None:
    last = api.get("/events").json()["next"]
    with ThreadPoolExecutor(events.LONG_POLLS) as pool:
        waiting = [pool.submit(_waited, api, after=last, wait=20) for _ in range(events.LONG_POLLS)]
        until(lambda: _are_waiting() == events.LONG_POLLS)
        began = time.monotonic()

        ninth = api.get("/events", after=last, wait=20).json()

        assert time.monotonic() - began < 0.3
        assert ninth == {"events": [], "next": last}
        assert _sessions("state = 'idle in transaction'") == 0
        _another(submitted, "o-1")
        told = [future.result()[0] for future in waiting]
    assert all(answer == told[0] for answer in told)
    assert [event["client_order_id"] for event in told[0]["events"]] == ["o-1"]
    assert _are_waiting() == 0


def _feed(*arguments: str) -> "subprocess.Popen[str]":
    return other_process.start("tests.orders.feed", *arguments, broker="http://127.0.0.1:9")


def _closing(work: Callable[[], T]) -> T:
    """Does `work` in a thread, and leaves no connection behind."""
    try:
        return work()
    finally:
        connection.close()


def _waited(api: Api, **query: Any) -> tuple[dict[str, Any], float]:
    return _closing(lambda: (api.get("/events", **query).json(), time.monotonic()))


def _are_waiting() -> int:
    return events.LONG_POLLS - events._long_polls._value


def _sessions(which: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {which}"  # noqa: S608 of this file
        )
        return int(cursor.fetchone()[0])


@pytest.mark.parametrize("when", ["during", "after"])
def test_a_reader_that_dies_before_it_answers_loses_nothing(
    api: Api, strategy: Strategy, submitted: Order, when: str
) -> None:
    _another(submitted, "o-1")
    reader = _feed("die", str(strategy.pk), when)
    reader.communicate(timeout=60)
    assert reader.returncode == -signal.SIGKILL
    numbered = Event.objects.exclude(seq=None).count()

    _another(submitted, "o-2")

    assert numbered == (2 if when == "after" else 0)
    told = [(event["seq"], event["client_order_id"]) for event in _events(api, wait=5)]
    assert told == [(1, "oke-1"), (2, "o-1"), (3, "o-2")]


def test_an_event_that_is_committed_late_is_told_after_those_that_were_told_before_it(
    api: Api, submitted: Order
) -> None:
    commit = _begun(lambda: _another(Order.objects.get(), "slow"))
    _another(submitted, "quick")
    first = api.get("/events").json()
    commit()
    second = api.get("/events", after=first["next"]).json()

    assert [event["client_order_id"] for event in first["events"]] == ["oke-1", "quick"]
    assert [(e["seq"], e["client_order_id"]) for e in second["events"]] == [(3, "slow")]
    assert list(Event.objects.order_by("id").values_list("seq", flat=True)) == [1, 3, 2]


def test_of_two_readers_who_number_at_once_the_second_goes_on_from_the_first(
    strategy: Strategy, submitted: Order
) -> None:
    """Else the second, who sees an event with a smaller id, would number what was told anew."""

    def told() -> list[tuple[int | None, str]]:
        found = events.read(strategy.pk, 0)
        return [(event.seq, event.order.client_order_id) for event in found]

    commit = _begun(lambda: _another(Order.objects.get(), "slow"))
    _another(submitted, "quick")
    answer = _begun(told)
    commit()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(_closing, told)
        until(lambda: _sessions("wait_event_type = 'Lock'"))

        assert answer() == [(1, "oke-1"), (2, "quick")]

    assert second.result() == [(1, "oke-1"), (2, "quick"), (3, "slow")]


def _begun(work: Callable[[], T]) -> Callable[[], T]:
    """Does `work` in a transaction of another thread. What it gives back commits, and says what
    came of the work."""
    done, end = threading.Event(), threading.Event()

    def run() -> T:
        with transaction.atomic():
            result = work()
            done.set()
            end.wait(20)
            return result

    def commit() -> T:
        end.set()
        with pool:
            return future.result()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(_closing, run)
    assert done.wait(20)
    return commit


@pytest.mark.parametrize("orders", [20, pytest.param(300, marks=pytest.mark.long)])
def test_four_writers_and_three_readers_make_one_sequence_the_same_for_all(
    strategy: Strategy, submitted: Order, orders: int
) -> None:
    _, token = ApiToken.issue(strategy, ("read",))

    readers = [_feed("read", token, "end") for _ in range(3)]
    writers = []
    try:
        assert all(reader.stdout and reader.stdout.readline() for reader in readers)
        writers = [_feed("write", str(strategy.pk), str(seed), str(orders)) for seed in range(4)]
        assert [writer.wait(timeout=100) for writer in writers] == [0, 0, 0, 0]
        _another(submitted, "end")
        told = [json.loads(reader.communicate(timeout=60)[0]) for reader in readers]
    finally:
        for process in (*readers, *writers):
            process.kill()

    assert told[0] == told[1] == told[2]
    happened = Event.objects.order_by("seq").values_list("seq", "order__client_order_id", "status")
    assert [tuple(event) for event in told[0]] == list(happened)
    assert [seq for seq, _, _ in told[0]] == list(range(1, len(told[0]) + 1))
    steps: dict[str, list[str]] = {}
    for _, client_order_id, status in told[0]:
        steps.setdefault(client_order_id, []).append(status)
    assert steps.pop("oke-1") == steps.pop("end") == ["submitting"]
    assert set(map(tuple, steps.values())) == {("submitting", "unresolved", "failed")}
    assert len(steps) == Order.objects.count() - 2 < 4 * orders
    in_order_of_seq = Event.objects.order_by("seq").values_list("pk", flat=True)
    assert list(in_order_of_seq) != sorted(in_order_of_seq), "ids became visible in their order"


def test_the_figures_of_an_event_never_change(
    api: Api, submitted: Order, report: ReportMaker
) -> None:
    told = _events(api)

    observe(submitted.pk, report("filled", filled="100", average="69.4"), BROKER)

    assert _events(api)[:1] == told
    assert Order.objects.get().filled_qty == Decimal(100)


def test_verify_names_a_gap_in_the_sequence(strategy: Strategy, submitted: Order) -> None:
    events.read(strategy.pk, 0)
    assert list(violations()) == []

    Event.objects.update(seq=2)

    assert list(violations()) == [f"strategy {strategy.pk}: 1 events, but the last is 2"]
