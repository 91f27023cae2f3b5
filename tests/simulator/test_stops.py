"""Stops: the collar of a buy stop, trailing stops, and what a stop reserves."""

import pytest

from tests.simulator.desk import accepted, account, filled, order, reaches, refused, resting, send
from tests.simulator_server import SimulatorServer


def _quote(sim: SimulatorServer, bid: str, ask: str) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": bid, "ask": ask})


@pytest.mark.parametrize(
    ("stop", "beyond", "within", "limit"),
    [("40", "41.61", "41.60", "41.6"), ("300", "307.51", "307.50", "307.5")],
)
def test_a_buy_stop_pays_at_most_its_collar(
    sim: SimulatorServer, stop: str, beyond: str, within: str, limit: str
) -> None:
    _quote(sim, "39", "39.01")
    waiting = resting(sim, type="stop", stop_price=stop)

    _quote(sim, beyond, beyond)
    assert order(sim, waiting["id"])["status"] == "new"
    _quote(sim, within, within)

    assert order(sim, waiting["id"])["filled_avg_price"] == limit
    assert order(sim, waiting["id"])["type"] == "stop"


def test_a_sell_stop_takes_any_price(sim: SimulatorServer) -> None:
    filled(sim, qty="10")
    waiting = resting(sim, type="stop", side="sell", stop_price="240")

    _quote(sim, "120", "120.10")

    assert order(sim, waiting["id"])["filled_avg_price"] == "120"


def test_a_buy_stop_reserves_its_collar(sim: SimulatorServer) -> None:
    resting(sim, type="stop", stop_price="300", qty="10")

    assert account(sim)["buying_power"] == "3996925"  # 4,000,000 less 10 x 307.50


def test_a_stop_limit_rests_at_its_limit_once_it_went_off(sim: SimulatorServer) -> None:
    waiting = resting(sim, type="stop_limit", stop_price="260", limit_price="261")

    _quote(sim, "262", "262.10")
    assert order(sim, waiting["id"])["status"] == "new"
    _quote(sim, "255", "255.10")

    assert order(sim, waiting["id"])["filled_avg_price"] == "255.1"


@pytest.mark.parametrize(
    ("trail", "first", "raised"),
    [({"trail_price": "5"}, "245", "255"), ({"trail_percent": "2"}, "245", "254.8")],
)
def test_a_trailing_stop_follows_up_and_never_down(
    sim: SimulatorServer, trail: dict[str, str], first: str, raised: str
) -> None:
    _quote(sim, "250", "250")
    filled(sim, qty="10")
    waiting = resting(sim, type="trailing_stop", side="sell", **trail)
    assert (waiting["hwm"], waiting["stop_price"]) == ("250", first)

    _quote(sim, "260", "260")
    high = order(sim, waiting["id"])
    _quote(sim, "256", "256")

    assert (high["hwm"], high["stop_price"]) == ("260", raised)
    assert order(sim, waiting["id"])["stop_price"] == raised
    _quote(sim, "254", "254")
    assert order(sim, waiting["id"])["filled_avg_price"] == "254"


def test_the_distance_of_a_trailing_stop_can_be_replaced(sim: SimulatorServer) -> None:
    _quote(sim, "250", "250")
    filled(sim, qty="10")
    waiting = resting(sim, type="trailing_stop", side="sell", trail_price="5")

    changed = sim.trading("PATCH", f"/v2/orders/{waiting['id']}", json={"trail": "3"}).json()

    assert changed["trail_price"] == "3"
    assert reaches(sim, changed["id"], "new")["stop_price"] == "247"
    _quote(sim, "246.90", "246.90")
    assert order(sim, changed["id"])["filled_avg_price"] == "246.9"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"type": "trailing_stop", "trail_price": "5", "time_in_force": "ioc"},
            "trailing stop orders must be DAY or GTC orders",
        ),
        (
            {"type": "trailing_stop", "trail_price": "5", "trail_percent": "1"},
            "trailing stop orders require one of trail_price and trail_percent",
        ),
        (
            {"type": "stop", "stop_price": "300", "time_in_force": "cls"},
            "cls orders must be market or limit orders",
        ),
        (
            {"type": "stop", "stop_price": "300", "extended_hours": True},
            "extended hours order must be DAY limit orders",
        ),
    ],
)
def test_a_stop_that_cannot_be_is_refused(
    sim: SimulatorServer, fields: dict[str, object], message: str
) -> None:
    assert refused(send(sim, **fields)) == (422, {"code": 42210000, "message": message})


def test_extended_hours_take_gtc_unless_told_otherwise(sim: SimulatorServer) -> None:
    fields = {"extended_hours": True, "time_in_force": "gtc", "limit_price": "100"}
    accepted(sim, **fields)

    sim.post("/sim/options", {"extended_hours_gtc": False})

    status, body = refused(send(sim, **fields))
    assert (status, body["message"]) == (422, "extended hours order must be DAY limit orders")
