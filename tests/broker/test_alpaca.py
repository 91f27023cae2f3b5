"""The adapter against answers that no healthy broker gives: nothing is concluded from them."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ordinis.broker import transport
from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DuplicateClientOrderId,
    NotSent,
    OrderRefused,
    OutcomeUnknown,
)
from ordinis.broker.parsing import parse_order, parse_position, parse_trade_update
from ordinis.broker.port import OrderRequest
from tests.conftest import hold
from tests.simulator_server import SimulatorServer

Answer = tuple[int, str]
Answers = Callable[[str, str], Answer]  # from method and path


class Stub:
    """A server that answers what a test tells it to."""

    def __init__(self) -> None:
        self.answers: Answers = lambda method, path: (200, "[]")
        self.seen: list[tuple[str, str, str]] = []
        self.headers: dict[str, str] = {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                stub.seen.append((self.command, self.path, body))
                status, text = stub.answers(self.command, self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                for name, value in stub.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = _answer

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr(transport, "BACKOFF", 0.001)
    stub = Stub()
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def _broker(url: str) -> AlpacaBroker:
    return AlpacaBroker(url=url, key_id="key", secret_key="secret", timeout=1)


def _request(**changes: Any) -> OrderRequest:
    values: dict[str, Any] = {
        "client_order_id": "c-1",
        "symbol": "OKE",
        "side": "buy",
        "qty": Decimal(9),
        "type": "limit",
        "time_in_force": "day",
        "limit_price": Decimal("70.10"),
        "extended_hours": False,
    }
    return OrderRequest(**{**values, **changes})


def _order(**changes: Any) -> dict[str, Any]:
    values = {
        "id": "b-1",
        "client_order_id": "c-1",
        "symbol": "OKE",
        "side": "buy",
        "qty": "9",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "70.1",
        "status": "new",
        "filled_qty": "0",
        "updated_at": "2026-11-20T14:42:50.129256359Z",
    }
    return {**values, **changes}


@pytest.mark.parametrize(
    "answer",
    [
        (500, '{"code":50010000,"message":"internal server error occurred"}'),
        (503, "<html>Service Unavailable</html>"),
        (200, "<html>Welcome</html>"),
        (200, ""),
        (200, '{"positions": []}'),
        (200, '[{"symbol": "OKE", "qty": '),
        (302, ""),
        (404, "<html>Not Found</html>"),
        (429, '{"code":42910000,"message":"rate limit exceeded"}'),
    ],
)
def test_an_unusable_answer_is_never_an_empty_account(stub: Stub, answer: Answer) -> None:
    stub.answers = lambda method, path: answer

    with pytest.raises(BrokerUnavailable):
        _broker(stub.url).positions()
    with pytest.raises(BrokerUnavailable):
        _broker(stub.url).position("OKE")
    with pytest.raises(BrokerUnavailable):
        _broker(stub.url).open_orders()


def test_a_404_in_the_brokers_words_means_there_is_none(stub: Stub) -> None:
    stub.answers = lambda method, path: (
        404,
        '{"code":40410000,"message":"position does not exist"}',
    )

    assert _broker(stub.url).position("OKE") is None


def test_wrong_keys_are_refused_with_what_to_check(stub: Stub) -> None:
    stub.answers = lambda method, path: (401, '{"message": "unauthorized."}')

    with pytest.raises(BrokerRefused, match="APCA_API_KEY_ID"):
        _broker(stub.url).account()


def test_one_unreadable_position_makes_the_list_incomplete_and_keeps_its_neighbours(
    stub: Stub,
) -> None:
    good = {"symbol": "OKE", "qty": "9", "side": "long", "qty_available": "9"}
    stub.answers = lambda method, path: (200, json.dumps([good, {"symbol": "ET", "qty": None}]))

    answer = _broker(stub.url).positions()

    assert [item.symbol for item in answer.items] == ["OKE"]
    assert (answer.complete, answer.reason) == (False, "qty is missing")


def test_an_unknown_status_does_not_cost_a_neighbour(stub: Stub) -> None:
    rows = [_order(id="b-1"), _order(id="b-2", status="quantum_hold")]
    stub.answers = lambda method, path: (200, json.dumps(rows))

    answer = _broker(stub.url).open_orders()

    assert [item.status for item in answer.items] == ["new", "quantum_hold"]
    assert answer.complete


def test_every_page_of_open_orders_is_read(stub: Stub) -> None:
    rows = [_order(id=f"b-{n:04}", client_order_id=f"c-{n}") for n in range(1203)]

    def page(method: str, path: str) -> Answer:
        start = 0
        if "before_order_id=" in path:
            last = path.split("before_order_id=")[1].split("&")[0]
            start = next(n for n, row in enumerate(rows) if row["id"] == last) + 1
        return 200, json.dumps(rows[start : start + 500])

    stub.answers = page

    answer = _broker(stub.url).open_orders()

    assert (len(answer.items), answer.complete) == (1203, True)


def test_a_lost_second_page_makes_the_list_incomplete(stub: Stub) -> None:
    rows = [_order(id=f"b-{n:04}") for n in range(500)]
    stub.answers = lambda method, path: (
        (503, "") if "before_order_id" in path else (200, json.dumps(rows))
    )

    answer = _broker(stub.url).open_orders()

    assert (len(answer.items), answer.complete) == (500, False)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((403, '{"code":40310000,"message":"insufficient buying power"}'), OrderRefused),
        ((422, '{"code":42210000,"message":"asset \\"X\\" not found"}'), OrderRefused),
        (
            (422, '{"code":40010001,"message":"client_order_id must be unique"}'),
            DuplicateClientOrderId,
        ),
        (
            (422, '{"code":42210000,"message":"client_order_id must be unique"}'),
            DuplicateClientOrderId,
        ),
        ((403, '{"message":"forbidden."}'), OutcomeUnknown),
        ((401, '{"message":"unauthorized."}'), OutcomeUnknown),
        ((429, '{"code":42910000,"message":"rate limit exceeded"}'), OutcomeUnknown),
        ((500, '{"code":50010000,"message":"internal server error occurred"}'), OutcomeUnknown),
        ((504, "<html>Gateway Timeout</html>"), OutcomeUnknown),
        ((200, ""), OutcomeUnknown),
        ((200, '{"id": "b-1", "status"'), OutcomeUnknown),
        ((200, json.dumps(_order(client_order_id="c-2"))), OutcomeUnknown),
        ((302, ""), OutcomeUnknown),
    ],
)
def test_what_each_answer_to_an_order_proves(
    stub: Stub, answer: Answer, error: type[Exception]
) -> None:
    stub.answers = lambda method, path: answer

    with pytest.raises(error):
        _broker(stub.url).submit(_request())

    assert [seen[0] for seen in stub.seen] == ["POST"], "an order POST is never repeated"


def test_an_order_leaves_as_strings_to_the_letter(stub: Stub) -> None:
    stub.answers = lambda method, path: (200, json.dumps(_order()))

    _broker(stub.url).submit(_request())

    assert json.loads(stub.seen[0][2]) == {
        "symbol": "OKE",
        "qty": "9",
        "side": "buy",
        "type": "limit",
        "time_in_force": "day",
        "extended_hours": False,
        "client_order_id": "c-1",
        "limit_price": "70.1",
    }


def test_a_broker_that_is_not_there_or_stalls_ends_within_the_timeout(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/faults", [{"kind": "stall", "seconds": 3, "method": "POST"}])
    with pytest.raises(OutcomeUnknown, match="in time"):
        _broker(sim.url).submit(_request())

    with pytest.raises(NotSent, match="failed or was cut"):
        _broker("http://127.0.0.1:9").submit(_request())


@pytest.mark.parametrize(
    ("beginning", "drops"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-More: to come\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n[", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9000\r\n\r\n"
            b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03",
            b"a",
        ),
    ],
    ids=["headers", "body", "chunk size", "gzip header"],
)
def test_an_answer_that_only_drips_in_ends_with_the_timeout(beginning: bytes, drops: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopped = threading.Event()

        def drip() -> None:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.recv(65_536)
                client.sendall(beginning)
                while not stopped.wait(0.1):
                    client.sendall(drops)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        with pytest.raises(OutcomeUnknown):
            _broker(f"http://127.0.0.1:{server.getsockname()[1]}").submit(_request())
        stopped.set()
        thread.join(5)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "²"}, {"Retry-After": "-5"}])
def test_an_absurd_error_answer_is_an_error_of_ours(stub: Stub, headers: dict[str, str]) -> None:
    stub.headers = headers
    stub.answers = lambda method, path: (503, "[" * 100_000)

    with pytest.raises(BrokerUnavailable):
        _broker(stub.url).positions()
    with pytest.raises(OutcomeUnknown):
        _broker(stub.url).submit(_request())


def test_a_proxy_in_the_environment_is_not_used(
    sim: SimulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert _broker(sim.url).account().equity == 1_000_000


def test_a_short_is_negative(sim: SimulatorServer) -> None:
    hold(sim, "OKE", "-9", "70")

    position = _broker(sim.url).position("OKE")

    assert position is not None
    assert (position.qty, position.average_price) == (-9, 70)


@pytest.mark.parametrize("field", ["id", "client_order_id", "symbol", "side", "status"])
def test_an_order_without_what_makes_it_one_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        parse_order(_order(**{field: None}))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "x", True, [], {}, "1e11", "1e9999999"])
def test_a_number_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="filled_qty"):
        parse_order(_order(filled_qty=value))
    with pytest.raises(ValueError, match="qty"):
        parse_position({"symbol": "OKE", "qty": value})


def test_nine_digits_of_a_second_and_unknown_fields_are_read(db: None) -> None:
    report = parse_order(_order(hologram={"x": 1}))

    assert report.updated_at is not None
    assert report.updated_at.isoformat() == "2026-11-20T14:42:50.129256+00:00"


def test_a_trade_update_carries_its_own_execution() -> None:
    data = {
        "event": "partial_fill",
        "execution_id": "e-1",
        "qty": "4",
        "price": "70.05",
        "timestamp": "2026-11-20T14:42:50Z",
        "order": _order(filled_qty="6"),
    }

    report = parse_trade_update({"stream": "trade_updates", "data": data})

    assert report.filled_qty == 6
    assert report.execution is not None
    assert (report.execution.qty, report.execution.price) == (4, Decimal("70.05"))


def test_an_event_nobody_knows_still_tells_the_order() -> None:
    report = parse_trade_update({"data": {"event": "teleported", "order": _order()}})

    assert (report.status, report.execution) == ("new", None)
