"""A day in 20 minutes (and a short one): at its end the book is the broker's, each break is traced
to what caused it, and each cause was found within a minute.
"""

import os
import time
from collections.abc import Iterator

import pytest

from tests.incidents.day import IDLE, NEVER_HELD, TRADED, Cause, Day
from tests.processes.conftest import Desk, _prepared, desk, prepared_desk
from tests.waiting import until

__all__ = ["_prepared", "desk", "prepared_desk"]  # fixtures of the processes' tests

_LISTS = r"/v2/(positions|orders|account.*)"


@pytest.fixture
def day(prepared_desk: Desk, request: pytest.FixtureRequest) -> Iterator[Day]:
    """At the cadence of production, or of its parameter."""
    seconds = getattr(request, "param", 30)
    prepared_desk.environment |= {
        "ORDINIS_POLL_SECONDS": "15",
        "ORDINIS_RECONCILE_SECONDS": f"{seconds}",
    }
    command = prepared_desk.start("start")
    command.says("Ctrl-C ends all of it", seconds=60)
    yield Day(prepared_desk, command, seed=20_261_120)
    command.end(seconds=20)


def _evening(day: Day) -> None:
    """What remains is decided and heals; then nothing differs."""
    until(lambda: not day.open_breaks(), seconds=120, every=1)


def _settled(day: Day) -> None:
    def nothing_differs() -> bool:
        report = day.api("POST", "/reconciliation/run", {})
        return bool(report) and report["complete"] and report["differences_count"] == 0

    until(nothing_differs, seconds=60, every=1)
    held = day.api("GET", "/positions")["items"]
    assert held
    assert {row["drift_qty"] for row in held} == {"0"}
    assert day.open_breaks() == []
    verified = day.desk.run("verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def _told(day: Day) -> None:
    for cause in day.causes:
        after = "" if cause.found_after is None else f", found after {cause.found_after:.0f} s"
        print(f"{cause.at:%H:%M:%S} {cause.what}{after}")  # noqa: T201
    found = [cause.found_after for cause in day.causes if cause.found_after is not None]
    print(  # noqa: T201
        f"{day.sent} orders, {len(day.causes)} causes, {len(day.breaks)} breaks; slowest "
        f"{max(found):.0f} s"
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("day", [5], indirect=True)
def test_a_short_day_ends_with_the_brokers_book_and_every_break_traced(day: Day) -> None:
    day.buy_what_lies()
    with day.goes_on():
        zombie = day.close_by_hand(IDLE[0])
        orphan = day.trade_by_hand(NEVER_HELD[0], "buy", 7)
        day.fee()
        busy = day.trade_by_hand(TRADED[0], "buy", 3)
        day.faults({"kind": "list_omit", "path": _LISTS, "count": 3})
        day.kill("worker")
        for cause in (zombie, orphan, busy):
            day.await_found(cause)
        _evening(day)

    _told(day)
    assert day.problems == []
    assert day.unfound() == []
    _settled(day)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_day_in_twenty_minutes(day: Day) -> None:
    """`ORDINIS_DAY_MINUTES` makes it shorter or longer."""
    minutes = float(os.environ.get("ORDINIS_DAY_MINUTES", "20"))
    day.buy_what_lies()
    with day.goes_on():
        _until_evening(day, minutes)
        _evening(day)

    _told(day)
    assert day.problems == []
    assert day.unfound() == []
    _settled(day)


def _until_evening(day: Day, minutes: float) -> None:
    ends = time.monotonic() + 60 * minutes
    orders: list[Cause] = []
    turn = 0
    while time.monotonic() < ends:
        _disturb(day, turn)
        cause = _cause(day, turn)
        if cause is not None and cause.subject:
            day.await_found(cause)
            if cause.subject.startswith("order/"):
                orders.append(cause)
        if len(orders) > 1:
            day.cancel_by_hand(orders.pop(0))
        day.wait(day.random.uniform(1, 5))
        turn += 1
    for cause in orders:
        day.cancel_by_hand(cause)


def _cause(day: Day, turn: int) -> Cause | None:
    """Each in its turn; a symbol's earlier break must be over before it is touched again."""
    free = {row["symbol"] for row in day.open_breaks() if "symbol" in row}
    idle = [symbol for symbol in IDLE if symbol not in free]
    never = [symbol for symbol in NEVER_HELD if symbol not in free]
    busy = [symbol for symbol in TRADED if symbol not in free]
    if not (idle and never and busy):
        return None
    pick = day.random.choice
    match turn % 9:
        case 0:
            return day.trade_by_hand(pick(idle), "buy", day.random.randint(1, 9))
        case 1:
            return day.trade_by_hand(pick(busy), "buy", day.random.randint(1, 5))
        case 2:
            return day.trade_by_hand(pick(never), "buy", day.random.randint(1, 9))
        case 3:
            return day.order_by_hand(pick(idle))
        case 4:
            return day.fee()
        case 5:
            held = {row["symbol"] for row in day.api("GET", "/positions")["items"]}
            there = [symbol for symbol in idle if symbol in held]
            return day.split(pick(there)) if there else None
        case 6:
            held = {row["symbol"] for row in day.api("GET", "/positions")["items"]}
            there = [symbol for symbol in (*idle, *never) if symbol in held]
            return day.close_by_hand(pick(there)) if there else None
        case 7:
            return day.dividend(pick(idle))
        case _:
            return day.transfer(pick(idle), day.random.randint(10, 40))


def _disturb(day: Day, turn: int) -> None:
    """What a broker and a machine do wrong, and no break may come of."""
    match turn % 11:
        case 0:
            day.faults({"kind": "list_omit", "path": _LISTS, "count": 4})
        case 1:
            day.kill("worker")
        case 2:
            day.faults({"kind": "status_before", "path": _LISTS, "count": 20})
        case 3:
            day.faults({"kind": "list_empty", "path": "/v2/positions", "count": 1})
        case 4:
            day.kill("listen")
        case 5:
            day.faults({"kind": "drop_after", "method": "POST", "path": "/v2/orders", "count": 2})
        case 6:
            day.faults({"kind": "stream_gap", "seconds": 3}, seconds=5)
        case 7:
            day.faults({"kind": "list_lag", "path": _LISTS, "seconds": 4, "count": 4})
        case 8:
            day.kill("web")
        case 9:
            day.faults({"kind": "delay_after", "path": "/v2/positions", "seconds": 2, "count": 3})
        case _:
            day.kill("simulator")
