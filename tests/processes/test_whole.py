"""The main job as a newcomer sees it: all processes, real HTTP, and any of them killed."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.processes.conftest import Command, Desk
from tests.waiting import until


class Visitor:
    """Whoever uses a running desk over HTTP: a strategy, the broker's app, an operator."""

    def __init__(self, desk: Desk, start: Command) -> None:
        self._desk = desk
        self._http = requests.Session()
        self._http.trust_env = False
        self._start = start
        made = desk.run("create_token", "--strategy", "watcher", "--scopes", "read,trade,operate")
        assert made.returncode == 0, made.stderr
        self._token = made.stdout.strip().splitlines()[-1]

    def api(self, path: str, **query: Any) -> Any:
        answer = self._http.get(
            f"http://127.0.0.1:{self._desk.port}/api/v1{path}",
            params=query,
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def sim(self, path: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self._desk.simulator_port}{path}"
        answer = self._http.request("GET" if body is None else "POST", url, json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def filled(self) -> int:
        """Orders of every strategy that the book believes filled; 0 while nobody answers."""
        try:
            page = self.api("/orders", status="closed", limit=500)
        except (requests.RequestException, AssertionError):
            return 0
        return sum(order["status"] == "filled" for order in page["items"])

    def log_in(self) -> None:
        """Through Django's own login form, with the password that `start` printed."""
        found = re.search(r"operator (\w+), password (\S+)", self._start.said)
        assert found
        self._form("/login/", username=found[1], password=found[2])

    def decide(self, correction: int, comment: str) -> None:
        address = f"/reconciliation/correction/{correction}/decide/"
        self._form(address, decision="approve", comment=comment)

    def _form(self, address: str, **values: str) -> None:
        url = f"http://127.0.0.1:{self._desk.port}{address}"
        page = self._http.get(url, timeout=10)
        assert page.status_code == 200, page.text
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token
        answer = self._http.post(url, data={**values, "csrfmiddlewaretoken": token[1]}, timeout=10)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def visitor(prepared_desk: Desk) -> Visitor:
    command = prepared_desk.start("start")
    command.says("Ctrl-C ends all of it")
    visitor = Visitor(prepared_desk, command)
    until(visitor.filled, seconds=30, every=0.1)
    return visitor


def test_a_hand_trade_becomes_a_break_and_its_approval_puts_the_book_right(
    visitor: Visitor,
) -> None:
    visitor.sim("/sim/trade", {"symbol": "NVDA", "side": "buy", "qty": "12"})

    def correction() -> int | None:
        rows = visitor.api("/reconciliation/breaks")["items"]
        return next((row["correction"] for row in rows if row["symbol"] == "NVDA"), None)

    waiting = until(correction, seconds=60, every=0.2)
    assert waiting
    assert visitor.api("/positions/NVDA")["drift_qty"] == "12"
    visitor.log_in()
    visitor.decide(waiting, "bought by hand in the broker's app")

    position = visitor.api("/positions/NVDA")
    assert (position["qty"], position["drift_qty"]) == ("12", "0")
    assert visitor.api("/reconciliation/breaks")["items"] == []
    entries = visitor._desk.rows(
        "SELECT qty, cause FROM positions_ledgerentry WHERE kind = 'correction'"
    )
    assert entries == [(12, f"correction/{waiting}")]


def test_each_child_killed_while_orders_flow_comes_back_and_nothing_is_lost_or_doubled(
    visitor: Visitor,
) -> None:
    desk = visitor._desk
    for name in ("web", "listen", "clock", "worker", "simulator"):
        before, child = visitor.filled(), desk.child(name)
        assert child, name
        child.kill()
        until(_another(desk, name, child.pid), seconds=10)
        until(lambda: visitor.filled() > before, seconds=30, every=0.2)  # noqa: B023 used at once

    demo = desk.child("demo_strategy")
    assert demo
    demo.suspend()
    until(lambda: _settled(visitor), seconds=60, every=0.5)
    at_broker = [order["client_order_id"] for order in visitor.sim("/sim/state")["orders"]]
    ours = [row[0] for row in desk.rows("SELECT client_order_id FROM orders_order")]
    assert len(at_broker) == len(set(at_broker))
    assert set(at_broker) == set(ours)
    assert desk.run("verify").stdout == "All invariants hold.\n"
    demo.resume()


def _another(desk: Desk, name: str, pid: int) -> Callable[[], bool]:
    def running() -> bool:
        child = desk.child(name)
        return child is not None and child.pid != pid

    return running


def _settled(visitor: Visitor) -> bool:
    """No order is unproved, and every position is the broker's."""
    unproved = visitor._desk.rows(
        "SELECT 1 FROM orders_order WHERE status IN ('submitting', 'unresolved')"
    )
    held = {p["symbol"]: float(p["qty"]) for p in visitor.sim("/sim/state")["positions"]}
    book = {p["symbol"]: float(p["qty"]) for p in visitor.api("/positions")["items"]}
    return not unproved and held == {s: qty for s, qty in book.items() if qty}
