"""The order log: every attempt is one line, and keeps whatever the broker answered."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from ordinis.broker import order_log
from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.budget import NoStore, Window
from ordinis.broker.errors import BrokerError, BrokerUnavailable, NotSent, OrderRefused
from ordinis.broker.port import OrderRequest, ReplaceRequest
from ordinis.logging import (
    ContextFilter,
    JsonFormatter,
    LineFile,
    LineFormatter,
    correlation_id,
)
from tests.simulator_server import SimulatorServer

PROJECT = Path(__file__).resolve().parent.parent.parent
ORDERS = {"path": "/v2/orders.*"}
POST = {**ORDERS, "method": "POST"}
GET = {**ORDERS, "method": "GET"}
THREADS = 8

Line = dict[str, Any]
Lines = Callable[[], list[Line]]


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """The log's logger, with the handlers that a test attaches and no other."""
    before, order_log.log.handlers = order_log.log.handlers, []
    yield order_log.log
    order_log.log.handlers = before


@pytest.fixture
def lines(log: logging.Logger, tmp_path: Path) -> Lines:
    """What is in the file so far."""
    file = tmp_path / "log" / "orders.jsonl"
    _attach(log, LineFile(file), JsonFormatter())
    return lambda: _read(file)


def _attach(log: logging.Logger, handler: logging.Handler, formatter: logging.Formatter) -> None:
    handler.setFormatter(formatter)
    handler.addFilter(ContextFilter())
    log.addHandler(handler)


def _read(file: Path) -> list[Line]:
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def _broker(url: str, timeout: float = 10, store: NoStore | None = None) -> AlpacaBroker:
    return AlpacaBroker(url=url, key_id="key", secret_key="secret", timeout=timeout, store=store)


class _SpentBudget(NoStore):
    """Another process was told that nothing is left."""

    def load(self) -> Window:
        return Window(limit=200, remaining=0, reset_at=time.time() + 60)


class _Ended(NoStore):
    """This process is ended while a request is under way."""

    def load(self) -> Window:
        raise SystemExit


def _request(client_order_id: str = "c-1", limit_price: str = "20.10") -> OrderRequest:
    return OrderRequest(
        client_order_id=client_order_id,
        symbol="OKE",
        side="buy",
        qty=Decimal(9),
        type="limit",
        time_in_force="day",
        limit_price=Decimal(limit_price),
        extended_hours=False,
    )


def _requests(sim: SimulatorServer) -> list[dict[str, Any]]:
    """What the broker received about orders."""
    return [seen for seen in sim.get("/sim/log") if seen["path"].startswith("/v2/orders")]


def _try(call: Callable[[], Any]) -> None:
    with contextlib.suppress(BrokerError):
        call()


# --- what a line says -----------------------------------------------------------------------


def test_a_submission_is_a_line_with_the_order_the_answer_and_the_time_it_took(
    sim: SimulatorServer, lines: Lines
) -> None:
    report = _broker(sim.url).submit(_request())

    [line] = lines()
    assert line.pop("time").endswith("Z")
    assert len(line.pop("broker_request_id")) == 32
    assert 0 < line.pop("latency_ms") < 10_000
    answer = line.pop("answer")
    assert json.loads(answer)["id"] == report.broker_order_id
    assert line == {
        "message": "submit answered",
        "action": "submit",
        "outcome": "answered",
        "classification": "ok",
        "correlation_id": "-",
        "client_order_id": "c-1",
        "broker_order_id": report.broker_order_id,
        "symbol": "OKE",
        "side": "buy",
        "qty": "9",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "20.1",
        "status": "pending_new",
        "attempt": 1,
        "http_status": 200,
        "answer_size": len(answer),
    }


def test_the_exits_of_a_pair_are_a_line_with_both_prices(lines: Lines) -> None:
    body = {
        "symbol": "OKE",
        "take_profit": {"limit_price": "30"},
        "stop_loss": {"stop_price": "15", "limit_price": "14"},
    }
    call = order_log.Call(method="POST", path="/orders", data=body, attempt=1)

    order_log.write(call, order_log.Ending(), {})

    [line] = lines()
    assert (line["limit_price"], line["stop_price"]) == ("30", "15")


def test_replace_cancel_and_queries_are_lines_of_their_own_action(
    sim: SimulatorServer, lines: Lines
) -> None:
    broker = _broker(sim.url)
    order = broker.submit(_request()).broker_order_id
    change = ReplaceRequest(client_order_id="c-2", limit_price=Decimal("20.20"))
    _try(lambda: broker.replace(order, change))
    broker.order(order)
    broker.order_by_client_id("c-1")
    broker.open_orders()
    _try(lambda: broker.cancel(order))  # the replacement may still be under way
    broker.cancel_all()

    said = [(line["action"], line.get("broker_order_id")) for line in lines()]

    assert said == [
        ("submit", order),
        ("replace", order),
        ("query", order),
        ("query", order),
        ("query", None),
        ("cancel", order),
        ("cancel_all", None),
    ]
    replace = lines()[1]
    assert (replace["client_order_id"], replace["limit_price"]) == ("c-2", "20.2")


def test_what_is_not_about_orders_is_no_line(sim: SimulatorServer, lines: Lines) -> None:
    broker = _broker(sim.url)
    broker.account()
    broker.positions()
    broker.clock()
    broker.suspend_trade(False)

    assert lines() == []


def test_a_list_is_counted_and_not_kept(sim: SimulatorServer, lines: Lines) -> None:
    broker = _broker(sim.url)
    for number in range(3):
        broker.submit(_request(f"c-{number}"))
    broker.open_orders()

    line = lines()[-1]

    assert (line["count"], line["query"]["status"]) == (3, "open")
    assert line["answer_size"] > 1000
    assert "answer" not in line


def test_that_there_is_no_such_order_is_an_answer_and_no_failure(
    sim: SimulatorServer, lines: Lines
) -> None:
    broker = _broker(sim.url)

    assert broker.order_by_client_id("never") is None

    [line] = lines()
    assert (line["outcome"], line["classification"], line["http_status"]) == ("absent", "ok", 404)
    assert line["client_order_id"] == "never"
    assert "not found" in line["answer"]
    assert "account_figures" not in line


def test_who_calls_adds_what_the_broker_is_not_told(sim: SimulatorServer, lines: Lines) -> None:
    broker = _broker(sim.url)
    token = correlation_id.set("desk-42")
    with (
        order_log.about(order="o-1", strategy="rsi", symbol="XXX"),
        order_log.about(order_attempt=2),
    ):
        broker.submit(_request())
    correlation_id.reset(token)
    broker.open_orders()

    inside, outside = lines()

    assert (inside["order"], inside["strategy"], inside["order_attempt"]) == ("o-1", "rsi", 2)
    assert inside["symbol"] == "OKE", "what was sent goes before what the caller says"
    assert inside["correlation_id"] == "desk-42"
    assert outside.keys().isdisjoint({"order", "strategy", "order_attempt", "symbol"})


# --- answers that are lost, or no answer ------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "outcome", "classification", "http_status", "answer"),
    [
        ({"kind": "drop_before"}, "unresolved", "retriable", None, None),
        ({"kind": "drop_after"}, "unresolved", "retriable", None, None),
        ({"kind": "stall", "seconds": 3}, "unresolved", "retriable", None, None),
        ({"kind": "delay_after", "seconds": 3}, "unresolved", "retriable", None, None),
        ({"kind": "drip_after", "seconds": 10}, "unresolved", "retriable", 200, '{"'),
        ({"kind": "cut_after"}, "unresolved", "retriable", 200, '"client_order_id": "c-1"'),
        ({"kind": "truncated_after"}, "unresolved", "retriable", 200, '"client_order_id": "c-1"'),
        ({"kind": "empty_after"}, "unresolved", "retriable", 200, None),
        ({"kind": "html_after"}, "unresolved", "retriable", 502, "<html>"),
        ({"kind": "html_after", "status": 200}, "unresolved", "retriable", 200, "<html>"),
        ({"kind": "redirect_after"}, "unresolved", "retriable", 302, None),
        ({"kind": "status_after", "status": 504}, "unresolved", "retriable", 504, "50010000"),
        ({"kind": "rate_limited"}, "unresolved", "retriable", 429, "rate limit"),
        ({"kind": "unauthorized"}, "unresolved", "fatal", 401, "unauthorized"),
        ({"kind": "no_funds"}, "definitely_refused", "fatal", 403, "insufficient"),
        ({"kind": "duplicate_id"}, "unresolved", "fatal", 422, "must be unique"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_a_submission_is_one_line_whatever_becomes_of_its_answer(
    sim: SimulatorServer,
    lines: Lines,
    fault: dict[str, Any],
    outcome: str,
    classification: str,
    http_status: int | None,
    answer: str | None,
) -> None:
    sim.post("/sim/faults", {**POST, **fault})

    with pytest.raises(BrokerError) as raised:
        _broker(sim.url, timeout=1.5 if "seconds" in fault else 10).submit(_request())

    [line] = lines()
    assert line["outcome"] == outcome
    assert line["classification"] == classification
    assert line.get("http_status") == http_status
    assert line["error"] == raised.value.message
    assert line.get("broker_code", "") == raised.value.code
    if answer is None:
        assert not line.get("answer")
    else:
        assert answer in line["answer"]


def test_every_attempt_of_a_query_is_a_line_also_when_the_last_one_fails(
    sim: SimulatorServer, lines: Lines
) -> None:
    faults = [{"kind": "status_before"}, {"kind": "html_before"}, {"kind": "truncated_after"}]
    sim.post("/sim/faults", [{**GET, **fault} for fault in faults])

    with pytest.raises(BrokerUnavailable):
        _broker(sim.url).open_orders()

    assert [(line["attempt"], line["outcome"], line["http_status"]) for line in lines()] == [
        (1, "unavailable", 503),
        (2, "unavailable", 502),
        (3, "unavailable", 200),
    ]
    assert lines()[1]["answer"].startswith("<html>")


def test_a_broker_that_asks_for_a_long_wait_is_asked_once(
    sim: SimulatorServer, lines: Lines
) -> None:
    sim.post("/sim/faults", {**GET, "kind": "status_before", "retry_after": 6, "count": 3})

    _try(_broker(sim.url).open_orders)

    [line] = lines()
    assert (line["classification"], line["retry_after"]) == ("retriable", 6)


def test_a_cancel_that_got_through_at_last_tells_of_each_attempt(
    sim: SimulatorServer, lines: Lines
) -> None:
    broker = _broker(sim.url)
    order = broker.submit(_request()).broker_order_id
    sim.post("/sim/faults", {**ORDERS, "kind": "status_before", "method": "DELETE", "count": 2})

    broker.cancel(order)

    assert [(line["attempt"], line["outcome"]) for line in lines()[1:]] == [
        (1, "unresolved"),
        (2, "unresolved"),
        (3, "answered"),
    ]


def test_the_brokers_wish_to_wait_is_kept(sim: SimulatorServer, lines: Lines) -> None:
    sim.post("/sim/faults", {**POST, "kind": "rate_limited", "headers": False, "retry_after": 7})

    _try(lambda: _broker(sim.url).submit(_request()))

    assert lines()[0]["retry_after"] == 7


def test_what_never_left_is_a_line_too(sim: SimulatorServer, lines: Lines) -> None:
    with pytest.raises(NotSent):
        _broker("http://127.0.0.1:9").submit(_request("c-gone"))
    with pytest.raises(NotSent):
        _broker(sim.url, store=_SpentBudget()).submit(_request("c-held"))

    gone, held = lines()

    assert _requests(sim) == []
    assert [line["client_order_id"] for line in (gone, held)] == ["c-gone", "c-held"]
    for line in (gone, held):
        assert (line["outcome"], line["classification"]) == ("denied_locally", "retriable")
        assert line.keys().isdisjoint({"http_status", "answer", "answer_size"})
    assert held["retry_after"] > 0


def test_an_attempt_that_we_cut_off_ourselves_is_a_line(sim: SimulatorServer, lines: Lines) -> None:
    with pytest.raises(SystemExit):
        _broker(sim.url, store=_Ended()).submit(_request())

    [line] = lines()
    assert (line["outcome"], line["error"]) == ("unresolved", "SystemExit")


def test_a_refusal_stays_fatal_whatever_time_to_wait_it_names(
    sim: SimulatorServer, lines: Lines
) -> None:
    sim.post("/sim/faults", {**GET, "kind": "status_before", "status": 401, "retry_after": 1})

    _try(_broker(sim.url).open_orders)

    [line] = lines()
    assert (line["outcome"], line["classification"]) == ("definitely_refused", "fatal")


def test_a_header_of_a_thousand_digits_leaves_the_line_readable(lines: Lines) -> None:
    call = order_log.Call(method="GET", path="/orders", data={}, attempt=1)
    error = BrokerError("later", retry_after=float("9" * 1000))

    order_log.write(call, order_log.Ending(error=error, classification="retriable"), {})

    assert lines()[0]["retry_after"] == 1e9


def test_beside_a_failure_stand_the_last_known_figures_of_the_account(
    sim: SimulatorServer, lines: Lines
) -> None:
    broker = _broker(sim.url)
    broker.account()
    sim.delete("/sim/log")
    broker.submit(_request())
    sim.post("/sim/faults", {**POST, "kind": "no_funds"})
    with pytest.raises(OrderRefused):
        broker.submit(_request("c-2"))

    answered, refused = lines()

    assert "account_figures" not in answered
    figures = refused["account_figures"]
    assert (figures["equity"], figures["buying_power"]) == ("1000000", "4000000")
    assert figures["as_of"] < refused["time"]
    assert [seen["path"] for seen in sim.get("/sim/log")] == ["/v2/orders"] * 2, "none asked for"


# --- secrets and size -------------------------------------------------------------------------


def test_a_secret_in_an_answer_is_masked_also_where_the_answer_is_cut(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cr3t-of-the-desk"
    monkeypatch.setenv("APCA_API_SECRET_KEY", secret)
    page = "<" * (order_log.LONGEST_ANSWER - 6) + secret + " ord_0123456789abcdef"
    call = order_log.Call(method="POST", path="/orders", data={"symbol": secret}, attempt=1)
    response = requests.Response()
    response.status_code, response._content = 502, page.encode()
    error = BrokerError("<" * 495 + secret)

    order_log.write(
        call, order_log.Ending(error=error, classification="fatal", response=response), {}
    )

    [line] = lines()
    assert line["answer"].endswith("<••• or")
    assert len(line["answer"]) == order_log.LONGEST_ANSWER
    assert line["answer_size"] == len(page)
    assert line["error"] == "<" * 495 + "•••"
    assert "s3cr3" not in json.dumps(line)


# --- nothing lost, nothing mixed --------------------------------------------------------------


def _mixed_day(sim: SimulatorServer) -> None:
    """Two requests in five meet a fault, for as long as it lasts."""
    kinds = ("drop_after", "html_after", "truncated_after", "status_after", "status_before")
    sim.post(
        "/sim/faults",
        [{**ORDERS, "kind": kind, "probability": 0.1, "count": None} for kind in kinds],
    )


def _work(broker: AlpacaBroker, name: str) -> None:
    for number in range(5):
        client_order_id = f"{name}-{number}"
        _try(partial(broker.submit, _request(client_order_id)))
        _try(partial(broker.order_by_client_id, client_order_id))
        _try(broker.open_orders)
    _try(broker.cancel_all)


def _assert_a_line_for_each_request(sim: SimulatorServer, lines: list[Line]) -> None:
    """As many lines as requests, and of each kind of request and answer as many."""
    actions = {"GET": "query", "POST": "submit", "DELETE": "cancel_all"}
    seen = Counter((actions[row["method"]], row["status"]) for row in _requests(sim))
    said = Counter((line["action"], line.get("http_status")) for line in lines)
    assert said == seen
    assert any(line["attempt"] == 3 for line in lines), "no query was tried to the end"


def test_eight_threads_in_a_storm_write_as_many_lines_as_the_broker_saw_requests(
    sim: SimulatorServer, lines: Lines
) -> None:
    _mixed_day(sim)
    broker = _broker(sim.url)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: _work(broker, f"t{number}"), range(THREADS)))

    _assert_a_line_for_each_request(sim, lines())


PROCESS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from django.conf import settings
from django.utils.log import configure_logging

configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
from ordinis.broker import transport
from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.errors import BrokerError
from ordinis.broker.port import OrderRequest
from ordinis.logging import correlation_id
from decimal import Decimal

_, url, name = sys.argv
transport.BACKOFF = 0.005
broker = AlpacaBroker(url=url, key_id="key", secret_key="secret", timeout=10)

def work(thread):
    correlation_id.set(name)
    for number in range(5):
        order = OrderRequest(
            client_order_id=f"{name}-{thread}-{number}", symbol="OKE", side="buy", qty=Decimal(9),
            type="limit", time_in_force="day", limit_price=Decimal("20.10"), extended_hours=False,
        )
        for call in (lambda: broker.submit(order), broker.open_orders):
            try:
                call()
            except BrokerError:
                pass

with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
"""


def test_two_processes_write_to_one_file_under_the_var_folder_and_mix_no_line(
    sim: SimulatorServer, tmp_path: Path
) -> None:
    _mixed_day(sim)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "ordinis.settings",
        "ORDINIS_VAR_DIR": str(tmp_path),
    }

    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, sim.url, name],
            cwd=PROJECT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("p1", "p2")
    ]
    consoles = [process.communicate(timeout=60)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], consoles
    lines = _read(tmp_path / "log" / "orders.jsonl")
    _assert_a_line_for_each_request(sim, lines)
    assert {line["correlation_id"] for line in lines} == {"p1", "p2"}
    for console in consoles:
        assert console.count("ordinis.broker.calls") == 20, "a line for each submission"
        assert "query" not in console


# --- the console, and trouble with the log ----------------------------------------------------


class _Console(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))


def test_the_console_shows_a_short_line_without_the_answer(
    sim: SimulatorServer, log: logging.Logger
) -> None:
    console = _Console()
    _attach(log, console, LineFormatter())
    sim.post("/sim/faults", {**POST, "kind": "no_funds"})
    broker = _broker(sim.url)
    broker.account()

    with order_log.about(order="o-1"):
        _try(lambda: broker.submit(_request()))
    broker.open_orders()

    [text] = console.text
    assert " INFO ordinis.broker.calls [-] submit definitely_refused order=o-1 " in text
    assert "symbol=OKE side=buy qty=9" in text
    assert "http_status=403 classification=fatal error='insufficient buying power'" in text
    assert "{" not in text


def test_a_log_that_fails_changes_nothing_for_the_order(
    sim: SimulatorServer, log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("no such luck")

    log.addHandler(Broken())

    report = _broker(sim.url).submit(_request())

    assert report.client_order_id == "c-1"
    assert "A line of the order log is lost." in caplog.text


def test_a_full_disk_changes_nothing_for_the_order(
    sim: SimulatorServer, log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    _attach(log, LineFile("/dev/full"), JsonFormatter())

    report = _broker(sim.url).submit(_request())

    assert report.client_order_id == "c-1"
    assert "No space left on device" in capfd.readouterr().err
