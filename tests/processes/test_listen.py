"""`manage.py listen` as a process: killed in the middle of messages, and with a second one."""

from typing import Any

import psycopg
import pytest
import requests

from ordinis.database.keeper import socket_folder
from tests.processes.conftest import Command, Desk
from tests.waiting import until

ORDERS = 12


class Trader:
    """A strategy on a desk of its own, and the hand that moves the simulated broker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._http = requests.Session()
        self._http.trust_env = False
        self.broker = self.start_broker()
        made = desk.run("create_token", "--strategy", "storm")
        assert made.returncode == 0, made.stderr
        self._token = made.stdout.strip().splitlines()[-1]

    def start_broker(self) -> Command:
        broker = self._desk.start("simulator")
        broker.says("listens on")
        self.sim("/sim/price", {"hold": True})
        self.sim("/sim/price", {"symbol": "KO", "bid": "61", "ask": "61"})
        return broker

    def sim(self, path: str, body: Any) -> None:
        url = f"http://127.0.0.1:{self._desk.simulator_port}{path}"
        self._http.post(url, json=body, timeout=10).raise_for_status()

    def buy(self, client_order_id: str) -> None:
        # A price of its own, else it is taken for the one before, sent again.
        price = f"60.{int(client_order_id.rpartition('-')[2]):02}"
        body = {"symbol": "KO", "side": "buy", "qty": "10", "limit_price": price}
        answer = self._http.post(
            f"http://127.0.0.1:{self._desk.port}/api/v1/orders",
            json={**body, "client_order_id": client_order_id},
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=10,
        )
        assert answer.status_code == 201, answer.text

    def fill(self, client_order_id: str) -> None:
        self.sim("/sim/fill", {"client_order_id": client_order_id, "price": "60"})


@pytest.fixture
def trader(prepared_desk: Desk) -> Trader:
    return Trader(prepared_desk)


def test_messages_that_a_killed_process_had_not_worked_off_are_not_lost_and_count_once(
    prepared_desk: Desk, trader: Trader
) -> None:
    desk, names = prepared_desk, [f"order-{number}" for number in range(ORDERS)]
    listen = desk.start("listen")
    listen.says("connected to the broker's stream")
    web = desk.start("web")
    until(lambda: _answers(desk))
    for name in names:
        trader.buy(name)
    until(lambda: _count(desk, "orders_order WHERE status = 'new'") == ORDERS)
    until(lambda: not _unprocessed(desk))

    # Somebody holds the first order, so that its message waits, and those behind it.
    host = str(socket_folder(desk.var / "postgres/data"))
    with psycopg.connect(host=host, user="postgres", dbname="ordinis") as holder:
        holder.execute("SELECT 1 FROM orders_order WHERE client_order_id = 'order-0' FOR UPDATE")
        for name in names[:-2]:
            trader.fill(name)
        until(lambda: _unprocessed(desk))
        listen.process.kill()
        listen.process.wait(10)
    assert _unprocessed(desk)
    assert _filled(desk) < len(names[:-2])
    trader.fill(names[-2])  # nobody listens
    trader.broker.process.kill()
    trader.broker.process.wait(10)

    # What had been stored needs no broker.
    stored = _count(desk, "orders_streammessage WHERE body->'data'->>'event' = 'fill'")
    listen = desk.start("listen")
    until(lambda: not _unprocessed(desk))
    assert _filled(desk) >= stored > 0

    trader.start_broker()
    until(lambda: _filled(desk) == ORDERS - 1)
    listen.says("the gap in the stream is closed by the broker's event history")
    trader.fill(names[-1])
    until(lambda: _filled(desk) == ORDERS)

    assert desk.rows("SELECT sum(qty), count(*) FROM orders_fill") == [(10 * ORDERS, ORDERS)]
    assert desk.rows("SELECT sum(qty) FROM positions_ledgerentry") == [(10 * ORDERS,)]
    assert desk.run("verify").stdout == "All invariants hold.\n"
    assert listen.end() == 0
    assert web.end() == 0


def test_a_second_process_waits_and_takes_over_from_one_that_was_killed(
    prepared_desk: Desk, trader: Trader
) -> None:
    first = prepared_desk.start("listen")
    first.says("connected to the broker's stream")
    second = prepared_desk.start("listen")
    second.says("another process consumes the stream; waiting to take over")
    third = prepared_desk.start("listen")
    third.says("waiting to take over")
    assert "connected" not in second.said

    first.process.kill()
    until(lambda: "connected to the broker" in second.said + third.said)

    assert ("connected" in second.said) != ("connected" in third.said)
    assert (second.end(), third.end()) == (0, 0)


def _answers(desk: Desk) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{desk.port}/healthz", timeout=5).ok
    except requests.ConnectionError:
        return False


def _count(desk: Desk, what: str) -> int:
    return int(desk.rows(f"SELECT count(*) FROM {what}")[0][0])  # noqa: S608 of this file


def _unprocessed(desk: Desk) -> int:
    return _count(desk, "orders_streammessage WHERE processed_at IS NULL")


def _filled(desk: Desk) -> int:
    return _count(desk, "orders_order WHERE status = 'filled'")
