"""The broker's ask of this moment: shared, never old, and never in the way of an order."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier

import pytest
from django.db import connection, transaction

from orders import quotes
from orders.quotes import ask_of
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import QuoteReport
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
PATH = "/v2/stocks/TSLA/quotes/latest"


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    quotes.forget()
    yield
    quotes.forget()


def _market(sim: SimulatorServer, bid: str, ask: str) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": bid, "ask": ask})


def _asked(sim: SimulatorServer) -> int:
    return len(sim.get("/sim/log", path=PATH))


def test_the_ask_is_the_brokers_to_the_digit(sim: SimulatorServer, account: BrokerAccount) -> None:
    _market(sim, "250.07", "250.1")

    assert ask_of(account, "TSLA") == Decimal("250.1")


def test_sixteen_callers_at_once_share_one_question(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _market(sim, "250", "250.1")
    sim.post("/sim/faults", {"kind": "delay_after", "path": PATH, "seconds": 0.3})
    together = Barrier(16)

    def ask(_: int) -> Decimal | None:
        together.wait()
        try:
            return ask_of(account, "TSLA")
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(16))) == {Decimal("250.1")}
    assert _asked(sim) == 1


def test_within_its_second_it_is_not_asked_for_again(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotes, "_KEPT", 60.0)
    _market(sim, "250", "250.1")

    assert ask_of(account, "TSLA") == ask_of(account, "TSLA")
    assert _asked(sim) == 1


def test_after_its_second_it_is_the_markets_new_one(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    _market(sim, "250", "250.1")
    ask_of(account, "TSLA")
    _market(sim, "300", "300.1")
    monkeypatch.setattr(quotes, "_KEPT", 0.0)

    assert ask_of(account, "TSLA") == Decimal("300.1")


def test_an_answer_that_took_longer_than_it_keeps_is_for_those_alone_who_waited(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _market(sim, "250", "250.1")
    sim.post("/sim/faults", {"kind": "delay_after", "path": PATH, "seconds": 1.2})

    assert ask_of(account, "TSLA") == Decimal("250.1")
    assert ask_of(account, "TSLA") == Decimal("250.1")

    assert _asked(sim) == 2


@pytest.mark.parametrize(
    ("bid", "ask"),
    [("0", "250"), ("250", "0"), ("250.1", "250"), ("250", "500.01"), ("-1", "250")],
)
def test_a_quote_that_makes_no_sense_is_none(bid: str, ask: str) -> None:
    quote = QuoteReport(symbol="TSLA", bid=Decimal(bid), ask=Decimal(ask), occurred_at=None, raw={})

    assert not quotes.is_usable(quote)


@pytest.mark.parametrize(("bid", "ask"), [("250", "250"), ("0.0001", "0.0002")])
def test_a_locked_and_a_wide_market_have_an_ask(
    sim: SimulatorServer, account: BrokerAccount, bid: str, ask: str
) -> None:
    _market(sim, bid, ask)

    assert ask_of(account, "TSLA") == Decimal(ask)


@pytest.mark.parametrize(
    "kind",
    [
        *("drop_before", "drop_after", "cut_after", "truncated_after", "empty_after"),
        *("status_before", "html_before", "html_after", "redirect_after", "rate_limited"),
        "unauthorized",
    ],
)
def test_without_an_answer_there_is_none_and_trading_goes_on(
    sim: SimulatorServer, account: BrokerAccount, kind: str
) -> None:
    sim.post("/sim/faults", {"kind": kind, "path": PATH})

    assert ask_of(account, "TSLA") is None
    assert broker_for(account).account().equity > 0
    assert _asked(sim) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_refusal_is_none(sim: SimulatorServer, account: BrokerAccount, status: int) -> None:
    sim.post("/sim/faults", {"kind": "status_before", "status": status, "path": PATH})

    assert ask_of(account, "TSLA") is None


def test_a_symbol_that_the_broker_does_not_know_has_none(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    assert ask_of(account, "NOSUCH") is None


def test_a_broker_that_is_away_is_none(sim: SimulatorServer, account: BrokerAccount) -> None:
    sim.stop()
    assert ask_of(account, "TSLA") is None
    sim.start()


@pytest.mark.parametrize("kind", ["stall", "drip_after"])
def test_nobody_waits_for_much_longer_than_two_seconds(
    sim: SimulatorServer, account: BrokerAccount, kind: str
) -> None:
    sim.post("/sim/faults", {"kind": kind, "path": PATH, "seconds": 6})
    began = time.monotonic()

    assert ask_of(account, "TSLA") is None

    assert time.monotonic() - began < 2.5


def test_a_caller_stops_waiting_whatever_the_connection_does(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotes, "_PATIENCE", 0.2)
    sim.post("/sim/faults", {"kind": "stall", "path": PATH, "seconds": 6})
    began = time.monotonic()

    assert ask_of(account, "TSLA") is None

    assert time.monotonic() - began < 1.5


def test_symbols_that_wait_hold_up_no_caller_for_longer(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    path = r"/v2/stocks/.*"
    sim.post("/sim/faults", {"kind": "stall", "path": path, "seconds": 6, "count": None})
    began = time.monotonic()

    def ask(number: int) -> Decimal | None:
        try:
            return ask_of(account, f"S{number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(24) as pool:
        assert set(pool.map(ask, range(24))) == {None}

    assert time.monotonic() - began < 3.5
    sim.delete("/sim/faults")


def test_an_account_of_another_broker_learns_nothing(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    other = BrokerAccount.objects.create(name="other", broker="alpaca", mode="paper")

    assert ask_of(other, "TSLA") is None
    assert _asked(sim) == 0


def test_the_broker_is_not_asked_inside_a_transaction(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    with transaction.atomic(), pytest.raises(AssertionError, match="no network"):
        ask_of(account, "TSLA")

    assert _asked(sim) == 0
