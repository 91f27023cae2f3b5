"""A fresh simulator for each test: prices held still, steps of a few milliseconds."""

from collections.abc import Iterator

import pytest
from alpaca.trading.client import TradingClient

from tests.simulator_server import SimulatorServer

QUICK = {"new_delay": 0.004, "fill_delay": 0.004, "cancel_delay": 0.004, "replace_delay": 0.004}


@pytest.fixture
def sim() -> Iterator[SimulatorServer]:
    with SimulatorServer(seed=1) as server:
        server.post("/sim/price", {"hold": True})
        server.post("/sim/options", QUICK)
        yield server


@pytest.fixture
def alpaca(sim: SimulatorServer) -> TradingClient:
    client = TradingClient("key", "secret", raw_data=True, url_override=sim.url)
    client._session.trust_env = False
    return client
