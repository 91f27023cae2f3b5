"""What the broker says of a symbol: asked once, shared, and never in the way of an order."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection, transaction

from orders import assets
from orders.assets import asset_of
from ordinis.accounts.models import BrokerAccount
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    assets.forget()
    yield
    assets.forget()


def _asked(sim: SimulatorServer, symbol: str = "TSLA") -> int:
    return len(sim.get("/sim/log", path=f"/v2/assets/{symbol}"))


def test_a_symbol_is_asked_about_once(sim: SimulatorServer, account: BrokerAccount) -> None:
    first, again = asset_of(account, "TSLA"), asset_of(account, "TSLA")

    assert first is not None
    assert (first.symbol, first.asset_class, first.status) == ("TSLA", "us_equity", "active")
    assert again is first
    assert _asked(sim) == 1


def test_after_its_time_it_is_asked_about_again(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_KEPT", 0.0)

    assert asset_of(account, "TSLA") == asset_of(account, "TSLA")
    assert _asked(sim) == 2


def test_sixteen_callers_at_once_share_one_question(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    sim.post("/sim/faults", {"kind": "delay_after", "path": "/v2/assets/TSLA", "seconds": 0.3})
    together = Barrier(16)

    def ask(_: int) -> bool:
        together.wait()
        try:
            return asset_of(account, "TSLA") is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(16)))
    assert _asked(sim) == 1


def test_one_symbol_does_not_wait_for_another(sim: SimulatorServer, account: BrokerAccount) -> None:
    sim.post("/sim/faults", {"kind": "delay_after", "path": "/v2/assets/TSLA", "seconds": 1})

    def slow() -> bool:
        try:
            return asset_of(account, "TSLA") is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(slow)
        assert asset_of(account, "KO") is not None
        assert not under_way.done()
        assert under_way.result()


def test_a_symbol_that_the_broker_does_not_know_is_none_and_soon_asked_about_again(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asset_of(account, "NEWCO") is None
    assert asset_of(account, "NEWCO") is None
    assert _asked(sim, "NEWCO") == 1

    monkeypatch.setattr(assets, "_KEPT_BRIEFLY", 0.0)
    assets.forget()
    assert asset_of(account, "NEWCO") is None
    sim.post("/sim/symbol", {"symbol": "NEWCO", "price": "20"})

    assert asset_of(account, "NEWCO") is not None


def test_one_that_does_not_trade_now_is_soon_asked_about_again(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.post("/sim/symbol", {"symbol": "HALT", "price": "20", "tradable": False})
    monkeypatch.setattr(assets, "_KEPT_BRIEFLY", 0.0)

    for _ in range(2):
        report = asset_of(account, "HALT")
        assert report is not None
        assert not report.tradable
    assert _asked(sim, "HALT") == 2


def test_a_broker_that_is_away_is_none_and_not_asked_again_at_once(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.stop()
    assert asset_of(account, "TSLA") is None
    sim.start()

    assert asset_of(account, "TSLA") is None
    assert _asked(sim) == 0
    monkeypatch.setattr(assets, "_KEPT_BRIEFLY", 0.0)
    assets.forget()
    sim.stop()
    assert asset_of(account, "TSLA") is None
    sim.start()
    assert asset_of(account, "TSLA") is not None


def test_an_account_of_another_broker_learns_nothing_and_spoils_nothing(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    other = BrokerAccount.objects.create(name="other", broker="alpaca", mode="paper")

    assert asset_of(other, "TSLA") is None
    assert asset_of(account, "TSLA") is not None
    assert _asked(sim) == 1


def test_only_so_many_symbols_are_remembered_the_latest_asked_about(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "_MOST", 2)

    for symbol in ("TSLA", "KO", "TSLA", "AAPL", "TSLA", "KO"):
        asset_of(account, symbol)

    assert (_asked(sim, "TSLA"), _asked(sim, "KO"), _asked(sim, "AAPL")) == (1, 2, 1)


def test_the_broker_is_not_asked_inside_a_transaction(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    with transaction.atomic(), pytest.raises(AssertionError, match="no network"):
        asset_of(account, "TSLA")

    assert _asked(sim) == 0
