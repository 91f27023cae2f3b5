"""Splits, dividends and other money: positions, orders, activities, and their list."""

from decimal import Decimal
from typing import Any

import pytest

from tests.simulator.desk import account, order, position, refused, resting
from tests.simulator.eventsource import ACTIVITIES, told
from tests.simulator_server import SimulatorServer

PATH = "/v2/account/activities"


def _activities(sim: SimulatorServer, kind: str = "", /, **query: Any) -> list[dict[str, Any]]:
    answer = sim.trading("GET", f"{PATH}/{kind}".rstrip("/"), params=query)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()
    return rows


def _hold(sim: SimulatorServer, symbol: str, qty: str, price: str) -> None:
    sim.post("/sim/price", {"symbol": symbol, "bid": price, "ask": price})
    sim.post("/sim/position", {"symbol": symbol, "qty": qty, "average_price": price})


def test_two_for_one_doubles_the_shares_and_halves_every_price(sim: SimulatorServer) -> None:
    _hold(sim, "ORCL", "15", "240")
    sale = resting(sim, symbol="ORCL", qty="5", side="sell", limit_price="251.01")
    before = account(sim)

    sim.post("/sim/split", {"symbol": "ORCL", "new_rate": "2", "old_rate": "1"})

    held = position(sim, "ORCL")
    assert (held["qty"], held["avg_entry_price"], held["current_price"]) == ("30", "120", "120")
    assert held["qty_available"] == "20"
    adjusted = order(sim, sale["id"])
    assert (adjusted["qty"], adjusted["limit_price"], adjusted["status"]) == ("10", "125.51", "new")
    assert told(sim)[-1]["event"] == "restated"
    assert account(sim)["equity"] == before["equity"]
    (row,) = _activities(sim, "SPLIT")
    assert (row["activity_sub_type"], row["symbol"], row["qty"]) == ("FSPLIT", "ORCL", "15")
    details = told(sim, ACTIVITIES)[-1]["details"]
    assert (details["old_qty"], details["new_qty"]) == ("15", "30")
    assert (details["old_rate"], details["new_rate"]) == ("1", "2")


def test_one_for_ten_cancels_open_orders_and_leaves_fractions(sim: SimulatorServer) -> None:
    _hold(sim, "T", "25", "28")
    sale = resting(sim, symbol="T", qty="25", side="sell", limit_price="30")

    sim.post("/sim/split", {"symbol": "T", "new_rate": "1", "old_rate": "10"})

    held = position(sim, "T")
    assert (held["qty"], held["avg_entry_price"], held["current_price"]) == ("2.5", "280", "280")
    assert held["qty_available"] == "2.5"
    assert order(sim, sale["id"])["status"] == "canceled"
    (row,) = _activities(sim, "SPLIT")
    assert (row["activity_sub_type"], row["qty"]) == ("RSPLIT", "-22.5")


def test_a_half_filled_order_keeps_its_share_through_a_split(sim: SimulatorServer) -> None:
    waiting = resting(sim, symbol="OKE", qty="10", limit_price="60", time_in_force="gtc")
    sim.post("/sim/fill", {"id": waiting["id"], "qty": "4", "price": "60"})
    free = account(sim)["buying_power"]

    sim.post("/sim/split", {"symbol": "OKE", "new_rate": "2", "old_rate": "1"})

    after = order(sim, waiting["id"])
    assert (after["qty"], after["filled_qty"], after["limit_price"]) == ("20", "8", "30")
    assert after["filled_avg_price"] == "30"
    assert account(sim)["buying_power"] == free


@pytest.mark.parametrize(("qty", "paid"), [("37", "17.76"), ("-10", "-4.8")])
def test_a_dividend_is_paid_to_holders_and_by_short_sellers(
    sim: SimulatorServer, qty: str, paid: str
) -> None:
    _hold(sim, "STWD", qty, "20")
    before = Decimal(account(sim)["cash"])

    sim.post("/sim/dividend", {"symbol": "STWD", "per_share": "0.48"})

    (row,) = _activities(sim, "DIV")
    assert (row["net_amount"], row["qty"], row["per_share_amount"]) == (paid, qty, "0.48")
    assert (row["activity_sub_type"], row["status"]) == ("CDIV", "executed")
    assert Decimal(account(sim)["cash"]) - before == Decimal(paid)
    assert told(sim, ACTIVITIES)[-1]["net_amount"] == paid


def test_who_holds_nothing_gets_nothing(sim: SimulatorServer) -> None:
    assert sim.post("/sim/dividend", {"symbol": "STWD", "per_share": "0.48"}) == {"activity": None}
    assert sim.post("/sim/split", {"symbol": "T", "new_rate": 2, "old_rate": 1}) == {
        "activity": None
    }

    assert _activities(sim) == []
    assert sim.get("/sim/state")["prices"]["T"]["bid"].startswith("14.4")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sim/split", {"symbol": "T", "new_rate": "1", "old_rate": "1"}),
        ("/sim/split", {"symbol": "T", "new_rate": "1"}),
        ("/sim/dividend", {"symbol": "T", "per_share": "-1"}),
        ("/sim/activity", {"activity_type": "GIFT", "net_amount": "1"}),
        ("/sim/activity", {"net_amount": "1"}),
    ],
)
def test_what_no_clearing_house_does_is_refused(
    sim: SimulatorServer, path: str, body: dict[str, str]
) -> None:
    assert sim.trading("POST", path, json=body).status_code == 422
    assert account(sim)["cash"] == "1000000"


@pytest.fixture
def week(sim: SimulatorServer) -> list[str]:
    """Ids of a deposit, a fill, a fee and interest, on four days from Monday, 2026-07-20."""
    sim.post("/sim/clock", {"hold": True, "set": "2026-07-20T15:00:00Z"})
    sim.post("/sim/activity", {"activity_type": "CSD", "net_amount": "500"})
    sim.post("/sim/clock", {"set": "2026-07-21T15:00:00Z"})
    sim.post("/sim/trade", {"symbol": "OKE", "side": "buy", "qty": "9", "price": "70"})
    sim.post("/sim/clock", {"set": "2026-07-22T15:00:00Z"})
    fee = {"activity_type": "FEE", "activity_sub_type": "TAF", "net_amount": "-0.02"}
    sim.post("/sim/activity", fee)
    sim.post("/sim/clock", {"set": "2026-07-23T15:00:00Z"})
    sim.post("/sim/activity", {"activity_type": "INT", "net_amount": "-1.5"})
    return [row["id"] for row in _activities(sim, direction="asc")]


def test_money_that_comes_and_goes_moves_the_cash(sim: SimulatorServer, week: list[str]) -> None:
    assert account(sim)["cash"] == "999868.48"  # 1,000,000 + 500 - 630 - 0.02 - 1.50


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [3, 2, 1, 0]),
        ({"direction": "asc"}, [0, 1, 2, 3]),
        ({"activity_types": "FEE,INT"}, [3, 2]),
        ({"activity_types": "TRANS"}, [0]),
        ({"activity_types": "MISC"}, [3, 2]),
        ({"category": "trade_activity"}, [1]),
        ({"category": "non_trade_activity"}, [3, 2, 0]),
        ({"after": "2026-07-21T15:00:00Z"}, [3, 2]),
        ({"until": "2026-07-22"}, [1, 0]),
        ({"after": "2026-07-20T15:00:00Z", "until": "2026-07-22T15:00:00Z"}, [1]),
        ({"date": "2026-07-22"}, [2]),
        ({"date": "2026-07-22T09:00:00Z"}, [2]),
        ({"page_size": 2}, [3, 2]),
    ],
)
def test_activities_are_filtered(
    sim: SimulatorServer, week: list[str], query: dict[str, Any], expected: list[int]
) -> None:
    assert [row["id"] for row in _activities(sim, **query)] == [week[place] for place in expected]


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_pages_follow_one_another_whatever_comes_meanwhile(
    sim: SimulatorServer, week: list[str], direction: str
) -> None:
    seen: list[str] = []
    query: dict[str, Any] = {"direction": direction, "page_size": 2}
    while page := _activities(sim, **query):
        seen += [row["id"] for row in page]
        query["page_token"] = seen[-1]
        if len(seen) == 2:
            sim.post("/sim/activity", {"activity_type": "CSD", "net_amount": "1"})

    assert [it for it in seen if it in week] == (week if direction == "asc" else week[::-1])
    assert len(seen) == (5 if direction == "asc" else 4)


@pytest.mark.parametrize(
    "query",
    [
        {"category": "trade_activity", "activity_types": "FILL"},
        {"category": "gossip"},
        {"activity_types": "GIFT"},
        {"page_token": "20260720150000000::nobody"},
        {"page_size": 101},
        {"direction": "sideways"},
        {"date": "yesterday"},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    sim: SimulatorServer, query: dict[str, Any]
) -> None:
    assert refused(sim.trading("GET", PATH, params=query))[0] == 422


def test_one_type_can_be_asked_for_by_path(sim: SimulatorServer, week: list[str]) -> None:
    assert [row["id"] for row in _activities(sim, "INT")] == [week[3]]
    assert refused(sim.trading("GET", f"{PATH}/GIFT"))[0] == 422


def test_fills_and_money_are_told_apart_by_their_fields(
    sim: SimulatorServer, week: list[str]
) -> None:
    rows = {row["activity_type"]: row for row in _activities(sim)}

    assert rows["FILL"]["transaction_time"]
    assert "created_at" not in rows["FILL"]
    assert rows["FEE"]["created_at"] == "2026-07-22T15:00:00.000000000Z"
    assert (rows["FEE"]["date"], rows["FEE"]["net_amount"]) == ("2026-07-22", "-0.02")
