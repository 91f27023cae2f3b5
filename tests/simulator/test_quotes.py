"""Market data, as Alpaca's data host tells it: beside trading, with a limit of its own."""

import pytest

from tests.simulator_server import SimulatorServer

PATH = "/v2/stocks/TSLA/quotes/latest"


def test_the_latest_quote_is_in_numbers_and_names_its_moment(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "250.28", "ask": "250.3"})

    body = sim.trading("GET", PATH).json()

    assert set(body) == {"symbol", "quote"}
    assert set(body["quote"]) == {"t", "ax", "ap", "as", "bx", "bp", "bs", "c", "z"}
    assert (body["symbol"], body["quote"]["bp"], body["quote"]["ap"]) == ("TSLA", 250.28, 250.3)
    assert body["quote"]["t"].endswith("Z")


def test_an_unknown_symbol_has_no_quote(sim: SimulatorServer) -> None:
    assert sim.trading("GET", "/v2/stocks/NOSUCH/quotes/latest").status_code == 404


@pytest.mark.parametrize(("spent", "free"), [(PATH, "/v2/account"), ("/v2/account", PATH)])
def test_quotes_and_trading_are_counted_apart(sim: SimulatorServer, spent: str, free: str) -> None:
    sim.post("/sim/options", {"rate_limit": 5})
    # A minute may end meanwhile: so many are over any limit of it.
    assert 429 in {sim.trading("GET", spent).status_code for _ in range(12)}

    answer = sim.trading("GET", free)

    assert answer.status_code == 200
    assert answer.headers["X-RateLimit-Remaining"] == "4"
