"""What tests share: the real simulator, an account that trades there, strategies and tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client, TransactionTestCase

from orders import assets, quotes, wake
from ordinis.accounts.brokers import _adapter
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.broker import transport
from risk import exchange, figures
from risk.limits import change
from tests.flushing import flush
from tests.open_desk import widen
from tests.simulator_server import SimulatorServer
from tests.waiting import until

TransactionTestCase._fixture_teardown = flush  # type: ignore[attr-defined]


@pytest.fixture
def sim(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorServer]:
    """A simulator of this test's own, whose prices stand still unless the test moves them."""
    monkeypatch.setattr(transport, "BACKOFF", 0.005)
    with SimulatorServer(seed=7) as server:
        server.post("/sim/price", {"hold": True})
        server.post("/sim/options", {"new_delay": 0.01, "fill_delay": 0.01})
        settings.BROKER_URL = server.url
        figures._shared.clear()
        assets.forget()
        exchange.forget()
        quotes.forget()
        yield server
        until(wake.is_idle, seconds=30)  # what it began must not outlive its database
        _adapter.cache_clear()


@pytest.fixture
def account(db: None) -> BrokerAccount:
    return BrokerAccount.objects.create(name="main", broker="simulator", mode="simulated")


@pytest.fixture
def strategy(account: BrokerAccount) -> Strategy:
    return Strategy.objects.create(account=account, name="rsi")


class Api:
    """Calls the HTTP API in this process, as a strategy with a token."""

    def __init__(self, token: str) -> None:
        self._client = Client(headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str, **query: Any) -> Any:
        return self._client.get(f"/api/v1{path}", query)

    def post(self, path: str, body: Any = None) -> Any:
        return self._client.post(
            f"/api/v1{path}", {} if body is None else body, content_type="application/json"
        )


@pytest.fixture
def api(strategy: Strategy) -> Api:
    _, secret = ApiToken.issue(strategy, SCOPES)
    return Api(secret)


@pytest.fixture
def wide_limits(account: BrokerAccount) -> None:
    """Positions, exposure, rates and the breaker are limited as little as may be."""
    widen(account)


@pytest.fixture
def alike_allowed(account: BrokerAccount) -> None:
    """Orders of the same content are orders of their own."""
    change(
        account=account,
        strategy=None,
        values={"duplicate_guard": False},
        reason="The test sends the same again.",
        actor="test",
    )


@pytest.fixture
def order() -> Callable[..., dict[str, Any]]:
    """The body of an order: a buy of 50 TSLA unless told otherwise."""

    def make(**changes: Any) -> dict[str, Any]:
        body = {"symbol": "TSLA", "side": "buy", "qty": "50", "reference_price": "250.30"}
        return {key: value for key, value in {**body, **changes}.items() if value is not None}

    return make


def hold(sim: SimulatorServer, symbol: str, qty: str, price: str) -> None:
    """Gives the broker's account a position before Ordinis first looks."""
    sim.post("/sim/position", {"symbol": symbol, "qty": qty, "average_price": price})


def quote(sim: SimulatorServer, symbol: str, price: str) -> None:
    """Sets both sides of the market."""
    sim.post("/sim/price", {"symbol": symbol, "bid": price, "ask": price})


def sent(sim: SimulatorServer) -> list[dict[str, Any]]:
    """The order POSTs that reached the broker, as it received them."""
    return list(sim.get("/sim/log?path=/v2/orders&method=POST"))
