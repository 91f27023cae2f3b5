"""The broker's latest quote: exact, briefly asked for, and apart from all that trades."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.data_host import data_url
from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.parsing import parse_quote
from tests.simulator_server import SimulatorServer

PATH = "/v2/stocks/TSLA/quotes/latest"
PAPER, DATA = "https://paper-api.alpaca.markets", "https://data.alpaca.markets"


@pytest.fixture
def sim() -> Iterator[SimulatorServer]:
    with SimulatorServer(seed=1) as server:
        server.post("/sim/price", {"hold": True})
        server.post("/sim/price", {"symbol": "TSLA", "bid": "250.07", "ask": "250.1"})
        yield server


@pytest.fixture
def broker(sim: SimulatorServer) -> AlpacaBroker:
    return AlpacaBroker(url=sim.url, key_id="k", secret_key="s", timeout=5)


def _asked(sim: SimulatorServer) -> int:
    return len(sim.get("/sim/log", path=PATH))


def test_a_quote_has_its_figures_to_the_digit(broker: AlpacaBroker) -> None:
    quote = broker.quote("TSLA")

    assert quote is not None
    assert (quote.symbol, quote.bid, quote.ask) == ("TSLA", Decimal("250.07"), Decimal("250.1"))
    assert quote.occurred_at is not None
    assert abs(quote.occurred_at - datetime.now(UTC)).total_seconds() < 60


def test_a_symbol_that_the_broker_does_not_know_has_none(broker: AlpacaBroker) -> None:
    assert broker.quote("NOSUCH") is None


@pytest.mark.parametrize("kind", ["unauthorized", "status_before"])
def test_keys_without_market_data_get_none_and_still_trade(
    sim: SimulatorServer, broker: AlpacaBroker, kind: str
) -> None:
    sim.post("/sim/faults", {"kind": kind, "status": 403, "path": PATH})

    assert broker.quote("TSLA") is None
    assert broker.account().equity > 0


@pytest.mark.parametrize(
    "kind",
    [
        *("drop_before", "drop_after", "cut_after", "truncated_after", "empty_after"),
        *("status_before", "html_before", "html_after", "redirect_after", "rate_limited"),
    ],
)
def test_an_answer_that_is_none_is_not_asked_for_again(
    sim: SimulatorServer, broker: AlpacaBroker, kind: str
) -> None:
    sim.post("/sim/faults", {"kind": kind, "path": PATH})

    with pytest.raises(BrokerUnavailable):
        broker.quote("TSLA")

    assert _asked(sim) == 1


@pytest.mark.parametrize("kind", ["delay_after", "drip_after", "stall"])
def test_a_slow_answer_is_waited_for_two_seconds_only(
    sim: SimulatorServer, broker: AlpacaBroker, kind: str
) -> None:
    sim.post("/sim/faults", {"kind": kind, "path": PATH, "seconds": 6})
    began = time.monotonic()

    with pytest.raises(BrokerUnavailable):
        broker.quote("TSLA")

    assert 1.5 < time.monotonic() - began < 3.5
    assert _asked(sim) == 1


def test_a_spent_limit_for_quotes_holds_back_no_trading_request(
    sim: SimulatorServer, broker: AlpacaBroker
) -> None:
    sim.post("/sim/faults", {"kind": "rate_limited", "path": PATH})
    with pytest.raises(BrokerUnavailable):
        broker.quote("TSLA")

    assert broker.account().equity > 0
    with pytest.raises(BrokerUnavailable, match="limit"):
        broker.quote("TSLA")

    assert _asked(sim) == 1


def test_a_spent_limit_for_trading_holds_back_no_quote(
    sim: SimulatorServer, broker: AlpacaBroker
) -> None:
    # Also in the next minute, should this one end just now.
    sim.post("/sim/faults", {"kind": "rate_limited", "path": "/v2/account", "count": None})
    with pytest.raises(BrokerUnavailable):
        broker.account()

    assert broker.quote("TSLA") is not None


def _answer(**changes: Any) -> dict[str, Any]:
    quote = {"t": "2026-11-20T14:42:50.129256171Z", "ap": 250.1, "bp": 250.0, "as": 1, "bs": 1}
    return {"symbol": "TSLA", "quote": {**quote, **changes}}


def test_an_answer_is_read_as_alpaca_writes_it() -> None:
    quote = parse_quote(json.loads(json.dumps(_answer())))

    assert (quote.bid, quote.ask) == (250, Decimal("250.1"))
    assert quote.occurred_at == datetime(2026, 11, 20, 14, 42, 50, 129256, tzinfo=UTC)


@pytest.mark.parametrize("value", [None, "", "x", True, [], {}, float("nan"), float("inf"), 1e11])
def test_a_figure_that_is_none_makes_no_quote(value: Any) -> None:
    for name in ("ap", "bp"):
        with pytest.raises(ValueError, match=name):
            parse_quote(_answer(**{name: value}))


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"symbol": "TSLA", "quote": None}])
def test_another_body_makes_no_quote(answer: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_quote(answer)


def test_another_symbols_quote_is_not_taken(broker: AlpacaBroker) -> None:
    with pytest.raises(BrokerUnavailable, match="another symbol"):
        broker.quote("tsla")


# --- where quotes come from, and who may have the keys ----------------------------------------


@pytest.mark.parametrize(
    ("broker_url", "given", "asked"),
    [
        (PAPER, "", DATA),
        ("https://api.alpaca.markets", "", DATA),
        ("http://127.0.0.1:8001", "", "http://127.0.0.1:8001"),
        ("http://[::1]:8001", "", "http://[::1]:8001"),
        (PAPER, "http://localhost:9", "http://localhost:9"),
        ("http://127.0.0.1:8001", DATA, DATA),
        ("https://broker.example", "", None),
        ("https://api.alpaca.markets.example", "", None),
        ("http://127.0.0.1:8001@broker.example", "", None),
    ],
)
def test_quotes_come_from_where_the_trading_is(
    broker_url: str, given: str, asked: str | None
) -> None:
    assert data_url(broker_url, given=given) == asked


@pytest.mark.parametrize(
    "given",
    [
        *("https://data.example", "http://data.alpaca.markets", "https://data.alpaca.markets.co"),
        *("http://127.0.0.1:80@data.example", "http://data.example\\@127.0.0.1", "localhost:1"),
        *("https://data.alpaca.markets@data.example", "http://127.0.0.1.example"),
    ],
)
def test_no_other_host_gets_the_keys(given: str) -> None:
    with pytest.raises(ValueError, match="the keys must not go there"):
        AlpacaBroker(url=PAPER, key_id="k", secret_key="s", timeout=1, quotes_url=given)


def test_a_broker_without_market_data_tells_no_quote_and_is_not_asked() -> None:
    broker = AlpacaBroker(url="https://broker.invalid", key_id="k", secret_key="s", timeout=1)

    assert broker.quote("TSLA") is None


def test_quotes_can_come_from_an_address_of_their_own(sim: SimulatorServer) -> None:
    broker = AlpacaBroker(
        url="http://127.0.0.1:9", key_id="k", secret_key="s", timeout=1, quotes_url=sim.url
    )

    quote = broker.quote("TSLA")

    assert quote is not None
    assert quote.ask == Decimal("250.1")


def _setting(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from ordinis import settings; print(settings.DATA_URL or '-')"],
        env={
            "PATH": os.environ["PATH"],
            "ORDINIS_VAR_DIR": str(tmp_path),
            "SECRET_KEY": "x",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("broker", "given", "told"),
    [
        ("alpaca", "", "-"),
        ("alpaca", f"{DATA}/v2/", DATA),
        ("alpaca", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("simulator", DATA, "-"),
    ],
)
def test_the_environment_names_the_address(
    tmp_path: Path, broker: str, given: str, told: str
) -> None:
    done = _setting(tmp_path, ORDINIS_BROKER=broker, APCA_API_DATA_URL=given)

    assert (done.stdout.strip(), done.returncode) == (told, 0), done.stderr


def test_a_strange_address_in_the_environment_refuses_to_start(tmp_path: Path) -> None:
    done = _setting(tmp_path, ORDINIS_BROKER="alpaca", APCA_API_DATA_URL="https://data.example")

    assert done.returncode != 0
    assert "APCA_API_DATA_URL can't be used" in done.stderr
