"""A desk's day in minutes: real processes, strategies that trade, people who trade past Ordinis,
a broker that fails and lies, processes that are killed, and an operator who decides what is
proposed. Everything over HTTP, and each cause noted with its time.
"""

import contextlib
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psutil
import requests

from tests.processes.conftest import Command, Desk
from tests.waiting import until

TRADED = ("AAPL", "MSFT", "KO", "PEP")
# Bought at the beginning, and left alone by the strategies.
IDLE = ("OKE", "ET", "JPM", "XOM", "CAT", "BAC", "UNH", "MRK")
NEVER_HELD = ("WMT", "CVX", "HD", "PG", "V", "MA")


@dataclass
class Cause:
    """Something that happened past Ordinis; `subject` is what must be found, None for nothing."""

    what: str
    subject: str | None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    found_after: float | None = None


class Day:
    """One day; `problems` collects what must not have happened."""

    def __init__(self, desk: Desk, start: Command, *, seed: int) -> None:
        self.desk, self._start = desk, start
        self.random = random.Random(seed)
        self.causes: list[Cause] = []
        self.breaks: dict[int, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.sent = 0
        self._ended = threading.Event()
        self._faulty = threading.Event()
        made = desk.run("create_token", "--strategy", "day", "--scopes", "read,trade,operate")
        assert made.returncode == 0, made.stderr
        self._token = made.stdout.strip().splitlines()[-1]
        wide = ("max_position_pct=100", "max_sector_pct=300", "max_orders_per_minute=100000")
        calm = ("breaker_error_rate_pct=100", "breaker_consecutive_failures=1000")
        done = desk.run("limits", *wide, *calm, "duplicate_guard=no", "--reason", "a day")
        assert done.returncode == 0, done.stderr

    # --- talking -------------------------------------------------------------------------------

    def api(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer's JSON; None while nobody answers."""
        url = f"http://127.0.0.1:{self.desk.port}/api/v1{path}"
        with contextlib.suppress(requests.RequestException, ValueError), _session() as http:
            http.headers["Authorization"] = f"Bearer {self._token}"
            return http.request(method, url, json=body, params=query, timeout=20).json()
        return None

    def sim(self, path: str, body: Any = None, method: str = "") -> Any:
        """Commands of the simulator; waits while it is down."""
        method = method or ("GET" if body is None else "POST")
        url = f"http://127.0.0.1:{self.desk.simulator_port}{path}"

        def tell() -> Any:
            with contextlib.suppress(requests.ConnectionError), _session() as http:
                answer = http.request(method, url, json=body, timeout=10)
                answer.raise_for_status()
                return (answer.json() if answer.content else None,)
            return None

        return until(tell, seconds=30, every=0.2)[0]

    def trade_at_the_broker(self, method: str, path: str, body: Any = None) -> Any:
        keys = {"APCA-API-KEY-ID": "test", "APCA-API-SECRET-KEY": "test"}
        url = f"http://127.0.0.1:{self.desk.simulator_port}{path}"
        with _session() as http:
            answer = http.request(method, url, json=body, headers=keys, timeout=10)
        return answer.json() if answer.content else {}

    # --- strategies and operator ---------------------------------------------------------------

    def buy_what_lies(self) -> None:
        for symbol in IDLE:
            order = self._order(symbol, "buy", 20)
            assert order, symbol
            until(partial(self._is_filled, order["id"]), seconds=30, every=0.2)

    def _is_filled(self, key: str) -> bool:
        order = self.api("GET", f"/orders/{key}")
        return bool(order) and order["status"] == "filled"

    def _order(self, symbol: str, side: str, qty: int) -> Any:
        price = self.sim("/sim/state")["prices"][symbol]
        reference = float(price["ask"] if side == "buy" else price["bid"])
        limit = reference * (1.004 if side == "buy" else 0.996)
        body = {
            "symbol": symbol,
            "side": side,
            "qty": str(qty),
            "limit_price": f"{limit:.2f}",
            "reference_price": f"{reference:.2f}",
        }
        answer = self.api("POST", "/orders", body)
        if not answer or "id" not in answer:
            return None
        self.sent += 1
        return answer

    def _strategy(self, symbols: tuple[str, ...]) -> None:
        draw = random.Random(symbols[0])
        held = dict.fromkeys(symbols, 0)
        while not self._ended.wait(draw.uniform(0.5, 2)):
            symbol = draw.choice(symbols)
            buys = held[symbol] < 5 or (held[symbol] < 30 and draw.random() < 0.6)
            qty = draw.randint(1, 4)
            with contextlib.suppress(AssertionError, requests.RequestException):
                if self._order(symbol, "buy" if buys else "sell", qty):
                    held[symbol] += qty if buys else -qty

    def _watch(self) -> None:
        """Notes every break when it is first listed."""
        while not self._ended.wait(1):
            page = self.api("GET", "/reconciliation/breaks", status="all", limit=500)
            for row in (page or {}).get("items", []):
                if row["id"] not in self.breaks:
                    self._trace(row)
                self.breaks[row["id"]] = row

    def _trace(self, row: dict[str, Any]) -> None:
        first = datetime.fromisoformat(row["first_seen"].replace("Z", "+00:00"))
        for cause in self.causes:
            early = (first - cause.at).total_seconds()
            if cause.subject == row["subject"] and cause.found_after is None and early > -1.5:
                cause.found_after = (datetime.now(UTC) - cause.at).total_seconds()
                what = f"{row['kind']}, {row['local']} / {row['broker']}. {row['explanation']}"
                print(f"{cause.what}: after {cause.found_after:.0f} s {what}")  # noqa: T201
                return
        self.problems.append(f"no cause of this break: {row}")
        print(self.problems[-1])  # noqa: T201

    def _operate(self) -> None:
        """Approves what is proposed, through the console."""
        http = _session()
        while not self._ended.wait(2):
            waiting = [row for row in list(self.breaks.values()) if row["status"] == "correcting"]
            for row in waiting:
                with contextlib.suppress(requests.RequestException, AssertionError):
                    self._approve(http, row["correction"])

    def _approve(self, http: requests.Session, correction: int) -> None:
        address = f"/reconciliation/correction/{correction}/decide/"
        if self._form(http, address, decision="approve", comment="seen in the app") == 302:
            found = re.search(r"operator (\w+), password (\S+)", self._start.said)
            assert found
            self._form(http, "/login/", username=found[1], password=found[2])

    def _form(self, http: requests.Session, address: str, **values: str) -> int:
        url = f"http://127.0.0.1:{self.desk.port}{address}"
        page = http.get(url, timeout=10, allow_redirects=False)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        if page.status_code != 200 or token is None:
            return page.status_code
        values["csrfmiddlewaretoken"] = token[1]
        return http.post(url, data=values, timeout=20).status_code

    # --- causes --------------------------------------------------------------------------------

    def cause(self, what: str, subject: str | None, act: Callable[[], object]) -> Cause:
        """Noted before it happens: nothing may be found earlier."""
        self.sim("/sim/options")  # it may have been killed just now
        cause = Cause(what, subject)
        self.causes.append(cause)
        try:
            act()
        except requests.HTTPError as error:  # the venue does not take it: nothing has happened
            print(f"{what}: {error.response.text}")  # noqa: T201
            cause.subject = None
        return cause

    def trade_by_hand(self, symbol: str, side: str, qty: int) -> Cause:
        body = {"symbol": symbol, "side": side, "qty": str(qty)}
        what = f"{side} {qty} {symbol} by hand"
        return self.cause(what, f"position/{symbol}", lambda: self.sim("/sim/trade", body))

    def close_by_hand(self, symbol: str) -> Cause:
        body = {"symbol": symbol}
        what, subject = f"{symbol} closed by hand", f"position/{symbol}"
        return self.cause(what, subject, lambda: self.sim("/sim/close", body))

    def transfer(self, symbol: str, qty: int) -> Cause:
        body = {"symbol": symbol, "qty": str(qty), "average_price": "50"}
        what, subject = f"{symbol} transferred", f"position/{symbol}"
        return self.cause(what, subject, lambda: self.sim("/sim/position", body))

    def split(self, symbol: str) -> Cause:
        body = {"symbol": symbol, "new_rate": "2", "old_rate": "1"}
        what, subject = f"{symbol} split", f"position/{symbol}"
        return self.cause(what, subject, lambda: self.sim("/sim/split", body))

    def order_by_hand(self, symbol: str) -> Cause:
        body = {
            "symbol": symbol,
            "side": "buy",
            "qty": "1",
            "type": "limit",
            "limit_price": "1",
            "time_in_force": "gtc",
        }
        self.sim("/sim/options")
        at = datetime.now(UTC)
        order = self.trade_at_the_broker("POST", "/v2/orders", body)
        cause = Cause(f"an order for {symbol} by hand", f"order/{order['id']}", at)
        self.causes.append(cause)
        return cause

    def cancel_by_hand(self, cause: Cause) -> None:
        assert cause.subject
        self.trade_at_the_broker("DELETE", f"/v2/orders/{cause.subject.partition('/')[2]}")

    def fee(self) -> Cause:
        body = {"activity_type": "FEE", "net_amount": "-12.34", "description": "ADR fee"}
        return self.cause("a fee", None, lambda: self.sim("/sim/activity", body))

    def dividend(self, symbol: str) -> Cause:
        body = {"symbol": symbol, "per_share": "0.5"}
        return self.cause("a dividend", None, lambda: self.sim("/sim/dividend", body))

    def faults(self, *faults: dict[str, Any], seconds: float = 4) -> Cause:
        def act() -> None:
            self.sim("/sim/faults", list(faults))
            self._ended.wait(seconds)
            self.sim("/sim/faults", method="DELETE")

        return self.cause(", ".join(str(fault["kind"]) for fault in faults), None, act)

    def kill(self, name: str) -> Cause:
        def act() -> None:
            child = self.desk.child(name)
            if child is not None:
                with contextlib.suppress(psutil.Error):
                    child.send_signal(signal.SIGKILL)

        return self.cause(f"kill -9 of {name}", None, act)

    # --- the whole -----------------------------------------------------------------------------

    @contextmanager
    def goes_on(self) -> Iterator[None]:
        work = [
            lambda: self._strategy(TRADED[:2]),
            lambda: self._strategy(TRADED[2:]),
            self._watch,
            self._operate,
        ]
        threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(timeout=30)

    def wait(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def unfound(self) -> list[Cause]:
        return [cause for cause in self.causes if cause.subject and cause.found_after is None]

    def await_found(self, cause: Cause, *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while cause.found_after is None and time.monotonic() < deadline:
            self.wait(0.2)
        if cause.found_after is None:
            self.problems.append(f"not found within {seconds} s: {cause}")

    def open_breaks(self) -> list[dict[str, Any]]:
        page = self.api("GET", "/reconciliation/breaks", status="open", limit=500)
        return list(page["items"]) if page else [{"nobody": "answers"}]


def _session() -> requests.Session:
    http = requests.Session()
    http.trust_env = False
    return http
