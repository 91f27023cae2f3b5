"""The control address: prices, market hours, interventions, and the broker's own app."""

from typing import Any

import pytest
import requests

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
)
from tests.simulator_server import SimulatorServer


def _quote(sim: SimulatorServer, symbol: str) -> dict[str, Any]:
    quote: dict[str, Any] = sim.get("/sim/state")["prices"][symbol]
    return quote


def test_prices_are_the_same_for_the_same_seed_and_number_of_ticks() -> None:
    seen = []
    for seed in (7, 7, 8):
        with SimulatorServer(seed=seed) as sim:
            sim.post("/sim/price", {"hold": True})
            start = sim.get("/sim/state")["ticks"]
            sim.post("/sim/tick", {"count": 40 - start})
            seen.append(sim.get("/sim/state")["prices"])

    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_prices_move_by_themselves_unless_they_are_held(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"tick_seconds": 0.002})
    sim.post("/sim/price", {"hold": False})
    first = sim.get("/sim/state")["ticks"]
    while sim.get("/sim/state")["ticks"] < first + 3:
        assert sim.get("/sim/state")["prices_held"] is False

    sim.post("/sim/price", {"hold": True})

    still = _quote(sim, "TSLA")
    assert _quote(sim, "TSLA") == still


def test_a_tick_fills_what_has_become_marketable(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"fill_delay": 0})
    bid = _quote(sim, "TSLA")["bid"]
    waiting = resting(sim, qty="1", limit_price=bid)

    for _ in range(100):
        sim.post("/sim/tick", {"count": 10})
        if order(sim, waiting["id"])["status"] == "filled":
            break

    assert order(sim, waiting["id"])["filled_avg_price"] <= bid


def test_the_latest_quote_and_trade_are_told_as_the_data_host_tells_them(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/price", {"symbol": "TSLA", "bid": "250.28", "ask": "250.32"})

    one = sim.trading("GET", "/v2/stocks/TSLA/quotes/latest").json()
    many = sim.trading("GET", "/v2/stocks/quotes/latest", params={"symbols": "TSLA,OKE"}).json()
    trade = sim.trading("GET", "/v2/stocks/TSLA/trades/latest").json()

    assert (one["symbol"], one["quote"]["bp"], one["quote"]["ap"]) == ("TSLA", 250.28, 250.32)
    assert set(many["quotes"]) == {"TSLA", "OKE"}
    assert trade["trade"]["p"] == 250.3


def test_in_a_closed_market_orders_wait_as_accepted_until_it_opens(sim: SimulatorServer) -> None:
    sim.post("/sim/market", {"mode": "closed"})
    assert sim.trading("GET", "/v2/clock").json()["is_open"] is False
    waiting = accepted(sim)
    assert waiting["status"] == "accepted"
    early = sim.trading("PATCH", f"/v2/orders/{waiting['id']}", json={"limit_price": "261"})
    assert early.json()["message"] == "cannot replace order in accepted status"

    sim.post("/sim/market", {"mode": "always_open"})

    assert reaches(sim, waiting["id"], "filled")["filled_qty"] == "10"


def test_the_close_expires_day_orders_and_keeps_the_others(sim: SimulatorServer) -> None:
    day = resting(sim, limit_price="100")
    gtc = resting(sim, limit_price="100", time_in_force="gtc")

    sim.post("/sim/market", {"mode": "closed"})

    assert order(sim, day["id"])["status"] == "expired"
    assert order(sim, day["id"])["expired_at"] is not None
    assert order(sim, gtc["id"])["status"] == "new"


def test_the_calendar_knows_the_holidays_of_the_new_york_exchange(sim: SimulatorServer) -> None:
    days = sim.trading(
        "GET", "/v2/calendar", params={"start": "2026-03-30", "end": "2026-04-07"}
    ).json()

    # 2026-04-03 was Good Friday.
    assert [day["date"] for day in days] == [
        *("2026-03-30", "2026-03-31", "2026-04-01", "2026-04-02", "2026-04-06", "2026-04-07")
    ]
    assert days[3]["settlement_date"] == "2026-04-06"
    assert (days[0]["open"], days[0]["close"]) == ("09:30", "16:00")


def test_an_order_can_be_given_a_status_nobody_has_heard_of(sim: SimulatorServer) -> None:
    waiting = resting(sim, limit_price="100")

    sim.post("/sim/order", {"id": waiting["id"], "status": "pending_quantum"})

    (listed,) = sim.trading("GET", "/v2/orders").json()
    assert listed["status"] == "pending_quantum"


def test_an_order_can_be_rejected_after_it_was_accepted(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"new_delay": 5})
    accepted(sim, client_order_id="o1", limit_price="100")

    rejected = sim.post("/sim/order", {"client_order_id": "o1", "status": "rejected"})

    assert rejected["failed_at"] is not None
    assert account(sim)["buying_power"] == "4000000"


def test_a_position_set_without_an_order_leaves_no_order_and_no_fill(sim: SimulatorServer) -> None:
    sim.post("/sim/position", {"symbol": "OKE", "qty": "9", "average_price": "70"})
    assert position(sim, "OKE")["avg_entry_price"] == "70"

    sim.post("/sim/position", {"symbol": "OKE", "qty": "0"})

    assert sim.trading("GET", "/v2/positions").json() == []
    assert sim.get("/sim/state")["orders"] == []


def test_buying_power_pinned_stays_where_it_is_until_released(sim: SimulatorServer) -> None:
    sim.post("/sim/account", {"buying_power": "3432.62"})
    filled(sim, qty="1")
    assert account(sim)["buying_power"] == "3432.62"

    sim.post("/sim/account", {"buying_power": None})

    assert account(sim)["buying_power"] != "3432.62"


def test_staging_the_cash_starts_the_session_from_there(sim: SimulatorServer) -> None:
    sim.post("/sim/account", {"cash": "2500"})

    staged = account(sim)
    assert (staged["equity"], staged["last_equity"], staged["buying_power"]) == (
        "2500",
        "2500",
        "10000",
    )


def test_a_reset_forgets_everything_even_spent_ids(sim: SimulatorServer) -> None:
    filled(sim, client_order_id="o1")
    sim.post("/sim/faults", {"kind": "status_before"})

    sim.post("/sim/reset", {"cash": "5000"})

    assert account(sim)["cash"] == "5000"
    assert sim.get("/sim/state")["orders"] == []
    assert send(sim, client_order_id="o1", qty="1").status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sim/options", {"new_delay": -1}),
        ("/sim/options", {"no_such": 1}),
        ("/sim/options", {"partial_fill_probability": 2}),
        ("/sim/market", {"mode": "sometimes"}),
        ("/sim/price", {"symbol": "TSLA", "bid": "2", "ask": "1"}),
        ("/sim/fill", {}),
        ("/sim/position", {"symbol": "TSLA"}),
        ("/sim/symbol", {"symbol": "TSLA", "price": "1"}),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(
    sim: SimulatorServer, path: str, body: dict[str, object]
) -> None:
    status, answer = refused(sim.trading("POST", path, json=body))

    assert status == 422
    assert answer["message"]


def test_the_app_shows_account_positions_and_orders_and_trades_by_form(
    sim: SimulatorServer,
) -> None:
    waiting = resting(sim, symbol="STWD", qty="37", limit_price="10")
    with requests.Session() as person:
        person.trust_env = False
        bought = person.post(
            f"{sim.url}/sim/trade",
            data={"symbol": "OKE", "qty": "9", "price": "70", "side": "buy"},
            timeout=5,
        )
        assert bought.url.startswith(f"{sim.url}/sim/?message=")
        assert "buy 9 OKE: filled" in bought.text
        assert position(sim, "OKE")["qty"] == "9"
        assert "1,000,0" in bought.text
        person.post(f"{sim.url}/sim/close", data={"symbol": "OKE"}, timeout=5)
        person.post(f"{sim.url}/sim/cancel", data={"id": waiting["id"]}, timeout=5)
        reaches(sim, waiting["id"], "canceled")
        page = person.get(f"{sim.url}/sim/", timeout=5).text

    assert "No positions." in page
    assert "No open orders." in page


def test_the_app_escapes_what_comes_from_outside(sim: SimulatorServer) -> None:
    resting(sim, client_order_id="<script>alert(1)</script>", limit_price="100")

    page = sim.trading("GET", "/sim/?message=<img onerror=x>").text

    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_app_says_why_it_refuses(sim: SimulatorServer) -> None:
    answer = sim.trading(
        "POST", "/sim/trade", data={"symbol": "TSLA", "qty": "1000000", "side": "buy"}
    )

    assert "Refused: insufficient buying power" in answer.text


def test_a_page_from_elsewhere_cannot_trade(sim: SimulatorServer) -> None:
    for path in ("/sim/trade", "/sim/account"):
        answer = sim.trading(
            "POST",
            path,
            json={"symbol": "TSLA", "qty": "1", "side": "buy", "cash": "1"},
            headers={"Origin": "https://evil.example"},
        )
        assert answer.status_code == 403

    assert sim.get("/sim/state")["account"]["cash"] == "1000000"
