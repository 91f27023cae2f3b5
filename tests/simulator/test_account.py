"""Cash, margin and buying power: worked examples."""

from decimal import Decimal

from alpaca.trading.client import TradingClient
from alpaca.trading.models import Asset, TradeAccount

from tests.simulator.desk import account, filled, position, resting
from tests.simulator_server import SimulatorServer


def test_a_fresh_account_has_a_million_and_four_times_that_to_buy_with(
    sim: SimulatorServer,
) -> None:
    fresh = account(sim)

    assert set(fresh) == {
        *("id", "admin_configurations", "user_configurations", "account_number", "status"),
        *("crypto_status", "options_approved_level", "options_trading_level", "currency"),
        *("buying_power", "regt_buying_power", "effective_buying_power"),
        *("non_marginable_buying_power", "options_buying_power", "cash", "accrued_fees"),
        *("portfolio_value", "trading_blocked", "transfers_blocked", "account_blocked"),
        *("created_at", "trade_suspended_by_user", "multiplier", "shorting_enabled", "equity"),
        *("last_equity", "long_market_value", "short_market_value", "position_market_value"),
        *("initial_margin", "maintenance_margin", "last_maintenance_margin", "sma"),
        *("balance_asof", "crypto_tier", "intraday_adjustments", "pending_reg_taf_fees"),
    }
    assert (fresh["cash"], fresh["equity"], fresh["buying_power"]) == (
        "1000000",
        "1000000",
        "4000000",
    )
    assert fresh["account_number"].startswith("PA3")


def test_alpaca_py_reads_account_asset_clock_and_calendar(sim: SimulatorServer) -> None:
    client = TradingClient("key", "secret", url_override=sim.url)
    client._session.trust_env = False

    read = client.get_account()
    assert isinstance(read, TradeAccount)
    assert read.buying_power == "4000000"
    asset = client.get_asset("TSLA")
    assert isinstance(asset, Asset)
    assert (asset.symbol, asset.fractionable, asset.shortable) == ("TSLA", True, True)
    assert len(client.get_all_assets()) > 45
    clock = client.get_clock()
    assert not isinstance(clock, dict)
    assert clock.is_open
    assert client.get_calendar()


def test_an_open_buy_reserves_its_limit_and_a_cancel_gives_it_back(sim: SimulatorServer) -> None:
    waiting = resting(sim, qty="50", limit_price="100")
    assert account(sim)["buying_power"] == "3995000"

    sim.post("/sim/order", {"id": waiting["id"], "status": "canceled"})

    assert account(sim)["buying_power"] == "4000000"


def test_a_fill_at_the_limit_ties_up_what_the_open_order_did(sim: SimulatorServer) -> None:
    sim.post("/sim/account", {"cash": "2500"})
    sim.post("/sim/price", {"symbol": "ET", "bid": "16", "ask": "16"})
    waiting = resting(sim, symbol="ET", qty="250", limit_price="15")
    assert account(sim)["buying_power"] == "6250"  # 4 x 2,500 less 3,750

    sim.post("/sim/price", {"symbol": "ET", "bid": "15", "ask": "15"})

    assert sim.get("/sim/state")["orders"][0]["id"] == waiting["id"]
    after = account(sim)
    assert (after["cash"], after["buying_power"]) == ("-1250", "6250")


def test_an_open_sale_of_shares_held_reserves_nothing(sim: SimulatorServer) -> None:
    filled(sim, symbol="OKE", qty="9", limit_price="80")
    before = account(sim)["buying_power"]

    resting(sim, symbol="OKE", qty="9", side="sell", limit_price="90")

    assert account(sim)["buying_power"] == before


def test_a_short_sale_reserves_three_per_cent_above_the_ask(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "249", "ask": "250"})
    resting(sim, side="sell", qty="10", limit_price="251")

    assert account(sim)["buying_power"] == "3997425"  # 4,000,000 less 10 x 1.03 x 250


def test_margin_follows_the_table(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "200", "ask": "200"})
    sim.post("/sim/price", {"symbol": "TECL", "bid": "80", "ask": "80"})
    sim.post("/sim/position", {"symbol": "TSLA", "qty": "10", "average_price": "150"})
    sim.post("/sim/position", {"symbol": "TECL", "qty": "10", "average_price": "80"})

    now = account(sim)

    assert now["long_market_value"] == "2800"
    assert now["maintenance_margin"] == "1200"  # 30 % of 2,000 and, threefold, 75 % of 800
    assert now["initial_margin"] == "1600"
    assert now["equity"] == "1002800"
    assert now["options_buying_power"] == "1001200"
    assert now["buying_power"] == "4008400"  # 4 x (1,002,800 less 25 % of 2,800)
    sim.post("/sim/options", {"buying_power_margin": "maintenance"})
    assert account(sim)["buying_power"] == "4006400"  # 4 x (1,002,800 less 1,200)


def test_the_average_price_is_weighted_and_a_sale_leaves_it(sim: SimulatorServer) -> None:
    for price, qty in (("100", "10"), ("130", "20")):
        sim.post("/sim/trade", {"symbol": "MSFT", "side": "buy", "qty": qty, "price": price})
    assert position(sim, "MSFT")["avg_entry_price"] == "120"

    sim.post("/sim/trade", {"symbol": "MSFT", "side": "sell", "qty": "5", "price": "90"})

    left = position(sim, "MSFT")
    assert (left["qty"], left["avg_entry_price"], left["cost_basis"]) == ("25", "120", "3000")


def test_a_position_tells_value_and_gain_at_the_current_price(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "STWD", "bid": "21.99", "ask": "22.01"})
    sim.post("/sim/position", {"symbol": "STWD", "qty": "37", "average_price": "20"})
    resting(sim, symbol="STWD", qty="7", side="sell", limit_price="30")

    held = position(sim, "STWD")

    assert held == held | {
        "qty": "37",
        "qty_available": "30",
        "side": "long",
        "market_value": "814",
        "cost_basis": "740",
        "unrealized_pl": "74",
        "unrealized_plpc": "0.1",
        "current_price": "22",
        "asset_marginable": True,
    }


def test_a_thousand_positions_are_listed_in_a_moment(sim: SimulatorServer) -> None:
    symbols = [f"Z{number}" for number in range(1000)]
    sim.post("/sim/symbol", [{"symbol": symbol, "price": "10"} for symbol in symbols])
    sim.post(
        "/sim/position",
        [{"symbol": symbol, "qty": "5", "average_price": "9"} for symbol in symbols],
    )

    answer = sim.trading("GET", "/v2/positions")

    assert len(answer.json()) == 1000
    assert Decimal(account(sim)["long_market_value"]) == 50_000
    assert answer.elapsed.total_seconds() < 1
