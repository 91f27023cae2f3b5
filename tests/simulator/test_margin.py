"""Multipliers, what is bought without margin, concentration, and who may only close."""

from decimal import Decimal

import pytest

from ordinis.simulator.portfolio import Portfolio, maintenance_rate
from ordinis.simulator.symbols import Asset
from tests.simulator.desk import account, refused, resting, send
from tests.simulator_server import SimulatorServer

CENT = Decimal("0.01")


def _asset(symbol: str, price: str = "100", **changes: object) -> Asset:
    return Asset(symbol, "NYSE", Decimal(price), symbol, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asset", "price", "short", "rate"),
    [
        (_asset("A"), "2.49", False, "1"),
        (_asset("A"), "2.50", False, "0.5"),
        (_asset("A"), "6", False, "0.3"),
        (_asset("A", leverage=2), "100", False, "0.5"),
        (_asset("A", leverage=3), "100", False, "0.75"),
        (_asset("A", marginable=False), "100", False, "1"),
        (_asset("A"), "2", True, "1.25"),  # $2.50 a share
        (_asset("A"), "10", True, "0.5"),  # $5 a share
        (_asset("A"), "100", True, "0.3"),
    ],
)
def test_maintenance_follows_the_table(asset: Asset, price: str, short: bool, rate: str) -> None:
    assert maintenance_rate(asset, Decimal(price), short=short) == Decimal(rate)


def _holding(cash: str, **held: int) -> Portfolio:
    """Positions at $100 a share."""
    portfolio = Portfolio(Decimal(cash))
    for symbol, qty in held.items():
        portfolio.set(symbol, Decimal(qty), Decimal(100))
        portfolio.revalue(_asset(symbol), Decimal(100))
    return portfolio


@pytest.mark.parametrize(
    ("most", "expected"),
    [(1, "50000"), (2, "200000"), (4, "500000")],
)
def test_each_multiplier_has_its_own_formula(most: int, expected: str) -> None:
    portfolio = _holding("50000", A=1000)

    # Equity 150,000: cash; 2 x (equity less 50 %); 4 x (equity less 25 %).
    assert portfolio.buying_power("intraday", most) == Decimal(expected)


def test_below_two_thousand_dollars_there_is_no_margin_and_no_short_sale(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/account", {"cash": "1999.99"})

    poor = account(sim)

    assert (poor["multiplier"], poor["buying_power"]) == ("1", "1999.99")
    assert poor["shorting_enabled"] is False
    answer = send(sim, symbol="ET", side="sell", qty="1", limit_price="18")
    assert refused(answer) == (
        *(403, {"code": 40310000, "message": "account is not allowed to short"}),
    )


def test_the_configuration_lowers_the_multiplier(sim: SimulatorServer) -> None:
    path = "/v2/account/configurations"

    assert sim.trading("PATCH", path, json={"max_margin_multiplier": "3"}).status_code == 422
    sim.trading("PATCH", path, json={"max_margin_multiplier": "2"})

    assert (account(sim)["multiplier"], account(sim)["buying_power"]) == ("2", "2000000")


@pytest.mark.parametrize(
    ("cash", "held", "expected"),
    [
        ("-100000", {"A": 2000, "B": 500}, "100000"),  # 80 % in one: 50 % of it, 30 % of the rest
        ("-99999", {"A": 2000, "B": 500}, "75000"),
        ("-100000", {"A": 1700, "B": 800}, "75000"),  # 68 %
    ],
)
def test_one_position_that_outweighs_the_rest_on_credit_is_held_at_half(
    cash: str, held: dict[str, int], expected: str
) -> None:
    extra = Decimal(15000) if expected == "100000" else Decimal(0)

    assert _holding(cash, **held).maintenance_margin - extra == Decimal(expected)


def test_what_is_not_marginable_is_bought_with_cash_alone(sim: SimulatorServer) -> None:
    sim.post("/sim/symbol", {"symbol": "OTCX", "price": "10", "marginable": False})
    sim.post("/sim/account", {"cash": "5000"})

    status, body = refused(send(sim, symbol="OTCX", qty="501", limit_price="10"))

    assert (status, body["buying_power"], body["cost_basis"]) == (403, "5000", "5010")
    assert send(sim, symbol="OTCX", qty="500", limit_price="10").status_code == 200
    assert sim.trading("GET", "/v2/assets/OTCX").json()["marginable"] is False


def test_the_audit_trail_fee_can_count_into_the_cost(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"cat_fee": True})

    answer = send(sim, qty="1000000", limit_price="900")

    assert answer.json()["cost_basis"] == "900000003"  # as the paper venue put it


def test_with_six_times_the_equity_in_positions_only_closing_is_allowed(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/price", {"symbol": "ET", "bid": "10", "ask": "10"})
    sim.post("/sim/position", {"symbol": "ET", "qty": "6000", "average_price": "10"})
    sim.post("/sim/account", {"cash": "-50000", "buying_power": "100000"})

    status, body = refused(send(sim, qty="1", limit_price="100"))

    assert (status, body["message"]) == (403, "account is restricted to closing positions")
    resting(sim, symbol="ET", qty="10", side="sell", limit_price="11")


@pytest.mark.parametrize(
    ("mode", "moment", "estimate"),
    [
        ("always_open", "2026-07-24T15:00:00Z", "2603"),  # the ask
        ("hours", "2026-07-24T21:00:00Z", "2602"),  # after hours, the middle
        ("closed", "2026-07-24T15:00:00Z", "2602"),  # the latest trade
    ],
)
def test_a_market_buy_is_taken_to_cost_what_the_hour_says(
    sim: SimulatorServer, mode: str, moment: str, estimate: str
) -> None:
    sim.post("/sim/clock", {"hold": True, "set": moment})
    sim.post("/sim/market", {"mode": mode})
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "260.10", "ask": "260.30"})
    sim.post("/sim/account", {"buying_power": "1"})

    assert send(sim, type="market", qty="10").json()["cost_basis"] == estimate


def test_the_intent_that_is_stated_must_be_the_one_there_is(sim: SimulatorServer) -> None:
    answer = send(sim, side="sell", qty="1", position_intent="sell_to_close")

    assert refused(answer)[1]["message"] == (
        "position intent mismatch, inferred: sell_to_open, specified: sell_to_close"
    )
    assert send(sim, qty="1", position_intent="buy_to_open").status_code == 200


def test_no_dollar_order_opens_while_an_order_closes(sim: SimulatorServer) -> None:
    sim.post("/sim/position", {"symbol": "OKE", "qty": "9", "average_price": "70"})
    resting(sim, symbol="OKE", qty="9", side="sell", type="trailing_stop", trail_price="5")

    answer = send(sim, symbol="OKE", type="market", notional="100")

    assert refused(answer)[1]["message"] == (
        "unable to open new notional orders while having open closing position orders"
    )
