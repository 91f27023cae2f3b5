"""Orders from acceptance to their end, as alpaca-py and raw requests see them."""

from decimal import Decimal

import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import LimitOrderRequest, ReplaceOrderRequest

from tests.simulator.desk import (
    accepted,
    account,
    filled,
    order,
    position,
    reaches,
    refused,
    resting,
    send,
    wait_for,
)
from tests.simulator_server import SimulatorServer


def test_a_limit_buy_sent_with_alpaca_py_is_pending_new_and_then_fills_at_the_ask(
    sim: SimulatorServer, alpaca: TradingClient
) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "249.90", "ask": "249.93"})
    request = LimitOrderRequest(
        symbol="TSLA",
        qty=50,
        side=OrderSide.BUY,
        time_in_force=TimeInForce.DAY,
        limit_price=250.3,
        client_order_id="ordinis-1",
    )

    answer = alpaca.submit_order(request)

    assert isinstance(answer, dict)
    assert (answer["status"], answer["filled_qty"], answer["limit_price"]) == (
        "pending_new",
        "0",
        "250.3",
    )
    done = reaches(sim, answer["id"], "filled")
    assert (done["filled_qty"], done["filled_avg_price"]) == ("50", "249.93")
    assert position(sim, "TSLA")["avg_entry_price"] == "249.93"
    assert account(sim)["cash"] == "987503.5"  # 1,000,000 less 50 at 249.93


def test_an_answer_has_every_key_that_the_paper_venue_sends(sim: SimulatorServer) -> None:
    answer = accepted(sim, limit_price="100")

    assert set(answer) == {
        *("id", "client_order_id", "created_at", "updated_at", "submitted_at", "filled_at"),
        *("expired_at", "canceled_at", "failed_at", "replaced_at", "replaced_by", "replaces"),
        *("asset_id", "symbol", "asset_class", "notional", "qty", "filled_qty"),
        *("filled_avg_price", "order_class", "order_type", "type", "side", "position_intent"),
        *("time_in_force", "limit_price", "stop_price", "status", "extended_hours", "legs"),
        *("trail_percent", "trail_price", "hwm", "subtag", "source", "expires_at"),
    }
    assert len(answer["created_at"]) == len("2026-07-24T14:42:49.337646391Z")


def test_submitted_at_changes_when_the_venue_acknowledges(sim: SimulatorServer) -> None:
    answer = accepted(sim, limit_price="100")

    acknowledged = reaches(sim, answer["id"], "new")

    assert answer["submitted_at"] == answer["created_at"] == acknowledged["created_at"]
    assert acknowledged["submitted_at"] > answer["submitted_at"]


def test_a_resting_buy_fills_when_the_ask_comes_down_to_its_limit(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "OKE", "bid": "72.40", "ask": "72.44"})
    waiting = resting(sim, symbol="OKE", qty="9", limit_price="72.00")
    sim.post("/sim/price", {"symbol": "OKE", "bid": "71.99", "ask": "72.01"})
    assert order(sim, waiting["id"])["status"] == "new"

    sim.post("/sim/price", {"symbol": "OKE", "bid": "71.98", "ask": "72.00"})

    done = order(sim, waiting["id"])
    assert (done["status"], done["filled_avg_price"]) == ("filled", "72")


def test_a_sell_fills_at_the_bid_when_its_limit_is_there_or_below(sim: SimulatorServer) -> None:
    sim.post("/sim/position", {"symbol": "TSLA", "qty": "10", "average_price": "200"})
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "252.20", "ask": "252.25"})

    at_the_bid = filled(sim, side="sell", qty="5", limit_price="252.20")
    below = filled(sim, side="sell", qty="5", limit_price="252.14")

    assert (at_the_bid["filled_avg_price"], below["filled_avg_price"]) == ("252.2", "252.2")
    assert refused(sim.trading("GET", "/v2/positions/TSLA")) == (
        404,
        {"code": 40410000, "message": "position does not exist"},
    )


def test_fractions_of_a_share_fill_to_nine_decimals(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "FNGU", "bid": "25.59", "ask": "25.60"})
    filled(sim, symbol="FNGU", qty="1591.166892", limit_price="26")

    assert position(sim, "FNGU")["qty"] == "1591.166892"
    assert account(sim)["cash"] == "959266.13"  # 1,591.166892 at 25.60 is 40,733.87


def test_a_dollar_order_buys_what_the_dollars_come_to(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "SPY", "bid": "399.99", "ask": "400"})

    done = filled(sim, symbol="SPY", type="market", notional="1000")

    assert (done["qty"], done["notional"], done["filled_qty"]) == (None, "1000", "2.5")


def test_numbers_are_read_as_they_are_written(sim: SimulatorServer) -> None:
    answer = accepted(sim, qty=2.5, limit_price=150.1)

    assert (answer["qty"], answer["limit_price"]) == ("2.5", "150.1")


def test_a_stop_goes_off_when_the_bid_falls_to_it(sim: SimulatorServer) -> None:
    filled(sim, symbol="STWD", qty="37", limit_price="20")
    stop = resting(sim, symbol="STWD", qty="37", side="sell", type="stop", stop_price="19.00")

    sim.post("/sim/price", {"symbol": "STWD", "bid": "18.95", "ask": "18.97"})

    done = reaches(sim, stop["id"], "filled")
    assert done["filled_avg_price"] == "18.95"


def test_a_trailing_stop_follows_the_price_up_and_fires_on_the_way_down(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "250", "ask": "250"})
    filled(sim, qty="5")
    stop = resting(
        sim, qty="5", side="sell", type="trailing_stop", trail_price="2", time_in_force="gtc"
    )
    for price in ("260", "259"):
        sim.post("/sim/price", {"symbol": "TSLA", "bid": price, "ask": price})
    followed = order(sim, stop["id"])
    assert (followed["hwm"], followed["stop_price"], followed["status"]) == ("260", "258", "new")
    answer = sim.trading("PATCH", f"/v2/orders/{stop['id']}", json={"trail": "3"})
    wider = reaches(sim, answer.json()["id"], "new")
    assert (wider["hwm"], wider["stop_price"]) == ("260", "257")

    sim.post("/sim/price", {"symbol": "TSLA", "bid": "257", "ask": "257"})

    assert order(sim, wider["id"])["filled_avg_price"] == "257"


@pytest.mark.parametrize("time_in_force", ["ioc", "fok"])
def test_an_immediate_order_that_does_not_match_is_cancelled(
    sim: SimulatorServer, time_in_force: str
) -> None:
    answer = accepted(sim, limit_price="100", time_in_force=time_in_force)

    assert reaches(sim, answer["id"], "canceled")["filled_qty"] == "0"


def test_partial_fills_add_up_to_the_whole(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"partial_fill_probability": 0.9})

    done = filled(sim, qty="500")

    fills = sim.trading("GET", "/v2/account/activities/FILL", params={"direction": "asc"}).json()
    assert len(fills) > 1
    assert sum(Decimal(fill["qty"]) for fill in fills) == 500
    assert [fill["type"] for fill in fills[:-1]] == ["partial_fill"] * (len(fills) - 1)
    assert (fills[-1]["type"], fills[-1]["leaves_qty"]) == ("fill", "0")
    assert done["filled_qty"] == "500"


def test_cancelling_goes_through_pending_cancel(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"cancel_delay": 0.1})
    waiting = resting(sim, limit_price="100")

    answer = sim.trading("DELETE", f"/v2/orders/{waiting['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert order(sim, waiting["id"])["status"] == "pending_cancel"
    again = sim.trading("DELETE", f"/v2/orders/{waiting['id']}")
    assert again.json() == {"code": 42210000, "message": "order pending cancel"}
    done = reaches(sim, waiting["id"], "canceled")
    assert done["canceled_at"] is not None
    assert sim.trading("DELETE", f"/v2/orders/{waiting['id']}").status_code == 204


def test_a_fill_can_win_the_race_against_a_cancel(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"cancel_delay": 5})
    waiting = resting(sim, limit_price="100")
    sim.trading("DELETE", f"/v2/orders/{waiting['id']}")

    sim.post("/sim/fill", {"id": waiting["id"], "qty": "4", "price": "99.50"})

    racing = order(sim, waiting["id"])
    assert (racing["status"], racing["filled_qty"]) == ("pending_cancel", "4")
    sim.post("/sim/fill", {"id": waiting["id"]})
    assert order(sim, waiting["id"])["status"] == "filled"


def test_cancel_all_answers_207_with_each_order(sim: SimulatorServer) -> None:
    waiting = [resting(sim, limit_price=f"{100 + number}")["id"] for number in range(3)]
    done = filled(sim)

    answer = sim.trading("DELETE", "/v2/orders")

    assert answer.status_code == 207
    assert answer.json() == [{"id": order_id, "status": 200} for order_id in waiting]
    for order_id in waiting:
        reaches(sim, order_id, "canceled")
    assert order(sim, done["id"])["status"] == "filled"
    assert sim.trading("DELETE", "/v2/orders").json() == []


def test_cancel_all_says_which_order_it_could_not_cancel(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"replace_delay": 5})
    old = resting(sim, limit_price="100")
    sim.trading("PATCH", f"/v2/orders/{old['id']}", json={"limit_price": "101"})

    results = sim.trading("DELETE", "/v2/orders").json()

    assert [row["status"] for row in results] == [500, 500]
    assert results[0] == {
        "id": old["id"],
        "status": 500,
        "body": {"code": 42210000, "message": "order pending replace"},
    }


def test_a_replacement_takes_over_with_a_new_id(
    sim: SimulatorServer, alpaca: TradingClient
) -> None:
    old = resting(sim, qty="20", limit_price="100", client_order_id="parent-1")

    answer = alpaca.replace_order_by_id(
        old["id"], ReplaceOrderRequest(qty=30, limit_price=101.5, client_order_id="parent-1-r1")
    )

    assert isinstance(answer, dict)
    assert answer["replaces"] == old["id"]
    replaced = reaches(sim, old["id"], "replaced")
    assert replaced["replaced_by"] == answer["id"]
    successor = reaches(sim, answer["id"], "new")
    assert (successor["qty"], successor["limit_price"]) == ("30", "101.5")
    original = alpaca.get_order_by_client_id("parent-1")
    assert isinstance(original, dict)
    assert original["id"] == old["id"]


def test_a_replacement_starts_at_what_its_chain_has_filled(sim: SimulatorServer) -> None:
    old = resting(sim, qty="20", limit_price="100")
    sim.post("/sim/fill", {"id": old["id"], "qty": "5", "price": "99"})

    answer = sim.trading("PATCH", f"/v2/orders/{old['id']}", json={"qty": "30"})

    successor = reaches(sim, answer.json()["id"], "partially_filled")
    assert (successor["filled_qty"], successor["filled_avg_price"]) == ("5", "99")
    sim.post("/sim/fill", {"id": successor["id"], "price": "100"})
    assert position(sim, "TSLA")["qty"] == "30"


def test_a_replacement_can_lose_against_the_fill(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"replace_delay": 0.15})
    old = resting(sim, limit_price="100")
    answer = sim.trading("PATCH", f"/v2/orders/{old['id']}", json={"limit_price": "101"})

    sim.post("/sim/fill", {"id": old["id"]})

    rejected = reaches(sim, answer.json()["id"], "rejected")
    assert rejected["failed_at"] is not None
    assert order(sim, old["id"])["status"] == "filled"
    assert position(sim, "TSLA")["qty"] == "10"


def test_an_order_too_young_to_replace_is_refused(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"new_delay": 5})
    young = accepted(sim, limit_price="100")

    answer = sim.trading("PATCH", f"/v2/orders/{young['id']}", json={"limit_price": "101"})

    assert refused(answer) == (
        422,
        {
            "code": 40010001,
            "message": "unable to replace order, order isn't sent to exchange yet",
        },
    )


def test_of_a_pair_the_profit_that_fills_ends_the_stop(sim: SimulatorServer) -> None:
    filled(sim, symbol="ET", qty="100", limit_price="18")
    pair = accepted(
        sim,
        symbol="ET",
        qty="100",
        side="sell",
        order_class="oco",
        time_in_force="gtc",
        take_profit={"limit_price": "19.00"},
        stop_loss={"stop_price": "16.00"},
    )
    (leg,) = pair["legs"]
    assert (leg["status"], leg["type"], leg["stop_price"]) == ("held", "stop", "16")
    assert position(sim, "ET")["qty_available"] == "0"
    reaches(sim, pair["id"], "new")

    sim.post("/sim/fill", {"id": pair["id"]})

    assert order(sim, leg["id"])["status"] == "canceled"


def test_of_a_pair_the_stop_that_goes_off_ends_the_profit(sim: SimulatorServer) -> None:
    filled(sim, symbol="ET", qty="100", limit_price="18")
    pair = accepted(
        sim,
        symbol="ET",
        qty="100",
        side="sell",
        order_class="oco",
        time_in_force="gtc",
        take_profit={"limit_price": "19.00"},
        stop_loss={"stop_price": "16.00"},
    )
    reaches(sim, pair["id"], "new")

    sim.post("/sim/price", {"symbol": "ET", "bid": "15.90", "ask": "15.92"})

    assert order(sim, pair["legs"][0]["id"])["filled_avg_price"] == "15.9"
    assert order(sim, pair["id"])["status"] == "canceled"
    assert sim.trading("GET", "/v2/positions").json() == []


def test_closing_a_position_sends_a_market_order_over_all_of_it(
    sim: SimulatorServer, alpaca: TradingClient
) -> None:
    filled(sim, symbol="EPD", qty="12.5", limit_price="32")

    answer = alpaca.close_position("EPD")

    assert isinstance(answer, dict)
    assert (answer["side"], answer["qty"], answer["type"]) == ("sell", "12.5", "market")
    reaches(sim, answer["id"], "filled")
    assert sim.trading("GET", "/v2/positions").json() == []


def test_closing_all_positions_cancels_first_when_asked(
    sim: SimulatorServer, alpaca: TradingClient
) -> None:
    filled(sim, symbol="OKE", qty="9", limit_price="80")
    filled(sim, symbol="STWD", qty="37", limit_price="20")
    held = resting(sim, symbol="STWD", qty="37", side="sell", limit_price="30")

    answer = alpaca.close_all_positions(cancel_orders=True)

    assert [(row["symbol"], row["status"]) for row in answer] == [("OKE", 200), ("STWD", 200)]  # type: ignore[index]
    assert order(sim, held["id"])["status"] == "canceled"
    wait_for(lambda: sim.trading("GET", "/v2/positions").json() == [])


def test_closing_all_positions_reports_what_is_held_by_an_order(sim: SimulatorServer) -> None:
    filled(sim, symbol="STWD", qty="37", limit_price="20")
    resting(sim, symbol="STWD", qty="37", side="sell", limit_price="30")

    (row,) = sim.trading("DELETE", "/v2/positions").json()

    assert (row["status"], row["body"]["available"]) == (403, "0")


def test_a_position_can_be_sold_short_and_covered(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "250", "ask": "250.05"})
    opened = filled(sim, side="sell", qty="4", limit_price="249")
    short = position(sim, "TSLA")

    assert opened["position_intent"] == "sell_to_open"
    assert (short["qty"], short["side"], short["avg_entry_price"]) == ("-4", "short", "250")
    assert filled(sim, side="buy", qty="4")["position_intent"] == "buy_to_close"
    assert sim.trading("GET", "/v2/positions").json() == []


def test_an_unknown_order_is_404_with_its_reference(sim: SimulatorServer) -> None:
    by_id = sim.trading("GET", "/v2/orders/904837e3-3b76-47ec-b432-046db621571b")
    by_client_id = sim.trading(
        "GET", "/v2/orders:by_client_order_id", params={"client_order_id": "never-sent"}
    )
    cancel = sim.trading("DELETE", "/v2/orders/904837e3-3b76-47ec-b432-046db621571b")

    message = "order not found for 904837e3-3b76-47ec-b432-046db621571b"
    assert refused(by_id) == (404, {"code": 40410000, "message": message})
    assert refused(cancel) == (404, {"code": 40410000, "message": message})
    assert refused(by_client_id) == (
        404,
        {"code": 40410000, "message": "order not found for never-sent"},
    )


def test_cancelling_a_filled_order_is_refused(sim: SimulatorServer) -> None:
    done = filled(sim)

    assert refused(sim.trading("DELETE", f"/v2/orders/{done['id']}")) == (
        422,
        {"code": 42210000, "message": 'order is already in "filled" state'},
    )


def test_the_same_order_sent_again_after_its_fill_is_a_duplicate_not_a_refusal_for_funds(
    sim: SimulatorServer,
) -> None:
    filled(sim, client_order_id="once")
    sim.post("/sim/account", {"buying_power": "0"})

    assert send(sim, client_order_id="once").json()["message"] == "client_order_id must be unique"
