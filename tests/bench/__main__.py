"""`make bench`: what Ordinis adds to an order, beside the least that any such service must do.

The floor of one order is two durable commits and three loopback calls to the same simulator
(account, positions, order); that of a cancel of all is one DELETE and one list, at a broker that
takes 100 ms to answer. Quote the ratio: absolute times are the machine's.
"""

import logging
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
ROUNDS = 300
WARM_UP = 30


def main() -> None:
    django.setup()
    logging.disable(logging.WARNING)
    from django.conf import settings
    from django.test.utils import setup_databases, teardown_databases

    from tests.simulator_server import SimulatorServer

    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with SimulatorServer(seed=7) as sim:
            sim.post("/sim/price", {"hold": True})
            settings.BROKER_URL = sim.url
            _report("order through Ordinis", "two commits, three calls", *_measure(sim))
            _report("adapter's account()", "the raw HTTP call", *_adapter(sim))
            _throughput(sim)
            _cancelling(sim)
    finally:
        teardown_databases(databases, verbosity=0)


def _measure(sim: Any) -> tuple[list[float], list[float]]:
    """Own times and floor times of as many orders, taken in turn, in seconds."""
    from django.test import Client

    from ordinis.accounts.models import SCOPES, BrokerAccount
    from ordinis.accounts.setup import issue_token
    from risk.limits import change

    _, token = issue_token(strategy="bench", account="main", scopes=SCOPES)
    change(
        account=BrokerAccount.objects.get(),
        strategy=None,
        values={"duplicate_guard": False},
        reason="The same order is sent again and again.",
        actor="bench",
    )
    client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})
    body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "1.00"}
    floor = _floor(sim)

    def order() -> None:
        answer = client.post("/api/v1/orders", body, content_type="application/json")
        assert answer.status_code == 201, answer.content

    own_times, floor_times = [], []
    for round_number in range(WARM_UP + ROUNDS):
        own, least = _timed(order), _timed(floor)
        if round_number >= WARM_UP:
            own_times.append(own)
            floor_times.append(least)
    return own_times, floor_times


def _floor(sim: Any) -> Callable[[], None]:
    """Two durable commits and three loopback calls, with nothing around them."""
    import requests
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_floor (n bigint)")
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"APCA-API-KEY-ID": "bench", "APCA-API-SECRET-KEY": "bench"})
    body = {
        "symbol": "KO",
        "side": "buy",
        "qty": "1",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "1.00",
    }

    def once() -> None:
        with connection.cursor() as cursor:
            session.get(f"{sim.url}/v2/account", timeout=5).raise_for_status()
            session.get(f"{sim.url}/v2/positions", timeout=5).raise_for_status()
            cursor.execute("INSERT INTO bench_floor VALUES (1)")
            session.post(f"{sim.url}/v2/orders", json=body, timeout=5).raise_for_status()
            cursor.execute("INSERT INTO bench_floor VALUES (2)")

    return once


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _adapter(sim: Any) -> tuple[list[float], list[float]]:
    """What the adapter adds to the bare call, retries, budget and parsing included."""
    import requests

    from ordinis.broker.alpaca import AlpacaBroker

    broker = AlpacaBroker(url=sim.url, key_id="bench", secret_key="bench", timeout=5)
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"APCA-API-KEY-ID": "bench", "APCA-API-SECRET-KEY": "bench"})

    def raw() -> None:
        session.get(f"{sim.url}/v2/account", timeout=5).json()

    def adapted() -> None:
        broker.account()

    own, floor = [], []
    for _ in range(WARM_UP + ROUNDS):
        own.append(_timed(adapted))
        floor.append(_timed(raw))
    return own[WARM_UP:], floor[WARM_UP:]


def _throughput(sim: Any) -> None:
    """Orders a second, so that the simulator is known not to be what limits a test."""
    import requests
    from django.db import connection
    from django.test import Client

    from ordinis.accounts.setup import issue_token

    callers, each = 8, 60
    body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "1.00"}
    bare = {**body, "type": "limit", "time_in_force": "day"}
    _, token = issue_token(strategy="bench", account="main")

    def through_ordinis(_: int) -> None:
        client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})
        for _ in range(each):
            answer = client.post("/api/v1/orders", body, content_type="application/json")
            assert answer.status_code == 201, answer.content
        connection.close()

    def to_the_simulator(_: int) -> None:
        session = requests.Session()
        session.trust_env = False
        session.headers.update({"APCA-API-KEY-ID": "bench", "APCA-API-SECRET-KEY": "bench"})
        for _ in range(each):
            session.post(f"{sim.url}/v2/orders", json=bare, timeout=5).raise_for_status()

    def rate(work: Callable[[int], None]) -> float:
        with ThreadPoolExecutor(callers) as pool:
            seconds = _timed(lambda: list(pool.map(work, range(callers))))
        return callers * each / seconds

    own, exchange = rate(through_ordinis), rate(to_the_simulator)
    print(  # noqa: T201
        f"{callers} callers in one process: {own:.0f} orders a second through Ordinis, "
        f"{exchange:.0f} to the simulator alone, ratio {exchange / own:.1f}"
    )


def _cancelling(sim: Any) -> None:
    """Seconds from the request to cancel all until each order is confirmed cancelled."""
    from django.test import Client

    from ordinis.accounts.models import SCOPES, BrokerAccount
    from ordinis.accounts.setup import issue_token
    from tests.listening import Listening, listeners
    from tests.waiting import until

    _, token = issue_token(strategy="bench", account="main", scopes=SCOPES)
    client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})

    def rest(count: int) -> None:
        for number in range(count):
            price = f"{2 + number // 100}.{number % 100:02}"
            body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": price}
            answer = client.post("/api/v1/orders", body, content_type="application/json")
            assert answer.status_code == 201, answer.content

    def cancel_all() -> None:
        body = {"reason": "bench"}
        answer = client.post("/api/v1/orders/cancel-all", body, content_type="application/json")
        assert {each["outcome"] for each in answer.json()["results"]} <= {"canceled"}

    def floor() -> None:
        sim.trading("DELETE", "/v2/orders").raise_for_status()
        sim.trading("GET", "/v2/orders?status=all&limit=500").raise_for_status()

    def timed(work: Callable[[], object]) -> float:
        sim.post("/sim/options", {"latency": 0.1})
        seconds = _timed(work)
        sim.post("/sim/options", {"latency": 0})
        return seconds

    cancel_all()  # what the measurements before have left
    account = BrokerAccount.objects.get()
    for count in (25, 500):
        rest(count)
        least = timed(floor)
        cancel_all()
        rest(count)
        alone = timed(cancel_all)
        rest(count)
        with Listening(account):
            until(lambda: listeners(sim) == 1)
            streamed = timed(cancel_all)
        print(  # noqa: T201
            f"{count} orders cancelled, broker at 100 ms: {alone:.2f} s, with the stream listening "
            f"{streamed:.2f} s; DELETE and list {least:.2f} s, ratio {alone / least:.1f}"
        )


def _report(what: str, beside: str, own: list[float], floor: list[float]) -> None:
    ratios = [a / b for a, b in zip(own, floor, strict=True)]
    for name, values, unit in (
        (what, [value * 1000 for value in own], "ms"),
        (beside, [value * 1000 for value in floor], "ms"),
        ("ratio", ratios, ""),
    ):
        p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[18]
        print(f"{name:26} P50 {p50:6.2f} {unit:2}  P95 {p95:6.2f} {unit}")  # noqa: T201


if __name__ == "__main__":
    main()
