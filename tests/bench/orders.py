"""What Ordinis adds to an order: its own time, and from end to end through the web process."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from tests.bench.measure import beside, timed, told

ROUNDS, WARM_UP, CALLERS = 300, 30, 8
BODY = {"symbol": "KO", "side": "buy", "qty": "1"}
_prices = iter(range(100, 10**9))


def body() -> dict[str, str]:
    """An order like no other, so that it is not taken for one that stands already."""
    number = next(_prices)
    return {
        **BODY,
        "limit_price": f"{1 + number % 5000 / 100:.2f}",
        "client_order_id": f"b-{number}",
    }


class BrokersTime:
    """Adds up how long the broker's answers took, in the thread that asked."""

    def __init__(self) -> None:
        from ordinis.broker import transport

        self._local = threading.local()
        inner = transport._Adapter.send

        def send(adapter: Any, request: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(adapter, request, **kwargs)
            finally:
                self._local.seconds = self.seconds + time.perf_counter() - started

        transport._Adapter.send = send  # type: ignore[assignment, method-assign]

    @property
    def seconds(self) -> float:
        return float(getattr(self._local, "seconds", 0.0))


def measure_own_time(sim: Any, token: str) -> None:
    """All but the broker's answers, one caller and eight, beside two durable commits and two
    loopback calls."""
    from django.db import connection
    from django.test import Client

    broker = BrokersTime()
    headers = {"Authorization": f"Bearer {token}"}
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_floor (n bigint)")

    def caller(rounds: int) -> tuple[list[float], list[float]]:
        client = Client(SERVER_NAME="localhost", headers=headers)
        floor = _floor(sim)

        def order() -> None:
            answer = client.post("/api/v1/orders", body(), content_type="application/json")
            assert answer.status_code == 201, answer.content

        own, least = [], []
        for _ in range(rounds):
            before = broker.seconds
            seconds = timed(order)
            own.append(seconds - (broker.seconds - before))
            least.append(timed(floor))
        connection.close()
        return own[WARM_UP:], least[WARM_UP:]

    what = "two commits, two loopback calls"
    beside("own time of an order, 1 caller", *_flat(caller, 1, ROUNDS + WARM_UP, what))
    name = f"own time of an order, {CALLERS} callers, one process"
    beside(name, *_flat(caller, CALLERS, ROUNDS // 4 + WARM_UP, what))


def _flat(
    caller: Callable[[int], tuple[list[float], list[float]]], count: int, rounds: int, what: str
) -> tuple[list[float], str, list[float]]:
    with ThreadPoolExecutor(count) as pool:
        parts = list(pool.map(caller, [rounds] * count))
    own = [value for part, _ in parts for value in part]
    return own, what, [value for _, part in parts for value in part]


def _floor(sim: Any) -> Callable[[], None]:
    from django.db import connection

    session = requests.Session()
    session.trust_env = False
    session.headers.update({"APCA-API-KEY-ID": "bench", "APCA-API-SECRET-KEY": "bench"})

    def once() -> None:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO bench_floor VALUES (1)")
            session.get(f"{sim.url}/v2/account", timeout=5).raise_for_status()
            session.get(f"{sim.url}/v2/account", timeout=5).raise_for_status()
            cursor.execute("INSERT INTO bench_floor VALUES (2)")

    return once


def measure_end_to_end(sim: Any, token: str) -> None:
    """Through the web process, with a broker that takes 40 ms to answer."""
    from tests import other_process

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    web = subprocess.Popen(
        [sys.executable, "manage.py", "web", "--port", str(port)],
        cwd=other_process.PROJECT,
        env={**other_process.environment(broker=sim.url), "ORDINIS_BROKER_TIMEOUT": "10"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/healthz")
        sim.post("/sim/options", {"latency": 0.04})

        def caller(rounds: int) -> list[float]:
            session = requests.Session()
            session.trust_env = False
            session.headers.update({"Authorization": f"Bearer {token}"})

            def order() -> None:
                answer = session.post(f"{url}/api/v1/orders", json=body(), timeout=20)
                assert answer.status_code == 201, answer.text

            return [timed(order) for _ in range(rounds)][5:]

        for count in (1, CALLERS):
            with ThreadPoolExecutor(count) as pool:
                parts = list(pool.map(caller, [60] * count))
            values = [value for part in parts for value in part]
            told(f"end to end, broker at 40 ms, {count} callers", values)
    finally:
        sim.post("/sim/options", {"latency": 0})
        web.terminate()
        web.wait(20)


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            requests.get(url, timeout=1).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")
