"""What the venue refuses, with Alpaca's exact bodies; and that a refusal changes nothing."""

from collections.abc import Mapping
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
from tests.waiting import for_a_fresh_minute


def test_the_tecl_order_of_2025_08_07_is_refused_with_both_figures(sim: SimulatorServer) -> None:
    sim.post("/sim/account", {"buying_power": "3432.62"})

    answer = send(sim, symbol="TECL", qty="600", limit_price="87.66")

    assert refused(answer) == (
        403,
        {
            "buying_power": "3432.62",
            "code": 40310000,
            "cost_basis": "52596",
            "message": "insufficient buying power",
        },
    )
    assert sim.get("/sim/state")["orders"] == []


@pytest.mark.parametrize(("symbol", "shares"), [("OKE", "9"), ("STWD", "37")])
def test_shares_held_by_an_order_cannot_be_sold_again(
    sim: SimulatorServer, symbol: str, shares: str
) -> None:
    filled(sim, symbol=symbol, qty=shares, limit_price="100")
    first = accepted(sim, symbol=symbol, qty=shares, side="sell", limit_price="150")

    answer = send(sim, symbol=symbol, qty=shares, side="sell", limit_price="150")

    assert refused(answer) == (
        403,
        {
            "available": "0",
            "code": 40310000,
            "existing_qty": shares,
            "held_for_orders": shares,
            "message": f"insufficient qty available for order (requested: {shares}, available: 0)",
            "related_orders": [first["id"]],
            "symbol": symbol,
        },
    )


def test_selling_more_than_is_held_does_not_turn_the_position_round(sim: SimulatorServer) -> None:
    filled(sim, symbol="FNGU", qty="711", limit_price="30")

    status, body = refused(send(sim, symbol="FNGU", qty="1591", side="sell", limit_price="20"))

    assert (status, body["available"], body["existing_qty"]) == (403, "711", "711")
    assert position(sim, "FNGU")["qty"] == "711"


def test_a_profit_order_is_refused_while_its_parent_is_still_open(sim: SimulatorServer) -> None:
    resting(sim, symbol="OKE", qty="9", limit_price="60")

    answer = send(sim, symbol="OKE", qty="9", side="sell", limit_price="90")

    assert refused(answer) == (
        403,
        {
            "code": 40310000,
            "message": "cannot open a short sell while a long buy order is open",
        },
    )


def test_a_client_order_id_that_rests_is_a_duplicate(sim: SimulatorServer) -> None:
    resting(sim, client_order_id="once", limit_price="100")

    assert refused(send(sim, client_order_id="once", limit_price="100")) == (
        422,
        {"code": 42210000, "message": "client_order_id must be unique"},
    )


def test_a_client_order_id_is_spent_for_ever_even_when_cancelled(sim: SimulatorServer) -> None:
    first = resting(sim, client_order_id="once", limit_price="100")
    sim.trading("DELETE", f"/v2/orders/{first['id']}")
    reaches(sim, first["id"], "canceled")

    assert refused(send(sim, client_order_id="once", limit_price="100")) == (
        422,
        {"code": 40010001, "message": "client_order_id must be unique"},
    )


def test_a_refusal_does_not_spend_the_client_order_id(sim: SimulatorServer) -> None:
    assert send(sim, client_order_id="again", qty="100000").status_code == 403
    assert send(sim, client_order_id="again", limit_price="250.123").status_code == 422

    assert send(sim, client_order_id="again").status_code == 200


MALFORMED: list[tuple[dict[str, Any], int, dict[str, Any]]] = [
    (
        {"limit_price": "290.123"},
        422,
        {
            "code": 42210000,
            "message": "invalid limit_price 290.123. "
            "sub-penny increment does not fulfill minimum pricing criteria",
        },
    ),
    (
        {"limit_price": 3.3000000000000003},
        422,
        {
            "code": 42210000,
            "message": "invalid limit_price 3.3000000000000003. "
            "sub-penny increment does not fulfill minimum pricing criteria",
        },
    ),
    (
        {"symbol": "ZZZZNOTREAL"},
        422,
        {"code": 42210000, "message": 'asset "ZZZZNOTREAL" not found'},
    ),
    ({"qty": None}, 422, {"code": 40010001, "message": "qty or notional is required"}),
    ({"qty": "0"}, 422, {"code": 42210000, "message": "qty must be > 0"}),
    ({"qty": "NaN"}, 422, {"code": 42210000, "message": "qty is not a number"}),
    (
        {"client_order_id": "x" * 129},
        422,
        {
            "code": 42210000,
            "message": "client_order_id must be no more than 128 characters",
        },
    ),
    (
        {"qty": "1.5", "time_in_force": "gtc"},
        422,
        {"code": 42210000, "message": "fractional orders must be DAY orders"},
    ),
    (
        {"qty": "1.5", "type": "trailing_stop", "trail_price": "1", "limit_price": None},
        422,
        {
            "code": 42210000,
            "message": "fractional orders must be market, limit, stop, or stop_limit orders",
        },
    ),
    (
        {"qty": "1.5", "side": "sell"},
        422,
        {"code": 42210000, "message": "fractional orders cannot be sold short"},
    ),
    (
        {"type": "market", "limit_price": None, "extended_hours": True},
        422,
        {"code": 42210000, "message": "extended hours order must be DAY limit orders"},
    ),
    (
        {"qty": "0.001", "limit_price": "250"},
        403,
        {
            "code": 40310000,
            "message": "cost basis must be >= minimal amount of order 1",
        },
    ),
    (
        {
            "order_class": "oco",
            "side": "sell",
            "limit_price": None,
            "take_profit": {"limit_price": "300"},
            "stop_loss": {"stop_price": "200"},
        },
        422,
        {"code": 42210000, "message": "oco orders must be exit orders"},
    ),
]


@pytest.mark.parametrize(("fields", "status", "body"), MALFORMED)
def test_an_order_that_breaks_a_rule_is_refused_in_alpacas_words(
    sim: SimulatorServer, fields: dict[str, Any], status: int, body: Mapping[str, Any]
) -> None:
    assert refused(send(sim, **fields)) == (status, body)
    assert sim.get("/sim/state")["orders"] == []


WASH_TRADES: list[tuple[dict[str, str], dict[str, str], str | None]] = [
    ({"limit_price": "200"}, {"limit_price": "200"}, "limit"),
    ({"limit_price": "200"}, {"limit_price": "199"}, "limit"),
    ({"limit_price": "200"}, {"limit_price": "201"}, None),
    ({"limit_price": "200"}, {"type": "market"}, "limit"),
    ({"type": "stop", "stop_price": "300"}, {"limit_price": "400"}, "market/stop"),
]


@pytest.mark.parametrize(("buy", "sell", "kind"), WASH_TRADES)
def test_orders_that_could_trade_with_each_other_are_refused(
    sim: SimulatorServer, buy: dict[str, str], sell: dict[str, str], kind: str | None
) -> None:
    sim.post("/sim/position", {"symbol": "TSLA", "qty": "10", "average_price": "250"})
    existing = resting(sim, **buy)

    answer = send(sim, side="sell", **sell)

    if kind is None:
        assert answer.status_code == 200
    else:
        assert refused(answer) == (
            403,
            {
                "code": 40310000,
                "existing_order_id": existing["id"],
                "message": "potential wash trade detected. use complex orders",
                "reject_reason": f"opposite side {kind} order exists",
            },
        )


def test_a_long_buy_is_refused_while_a_short_sale_is_open(sim: SimulatorServer) -> None:
    resting(sim, side="sell", limit_price="300")

    assert refused(send(sim, limit_price="200")) == (
        403,
        {
            "code": 40310000,
            "message": "cannot open a long buy while a short sell order is open",
        },
    )


def test_an_account_without_shorting_cannot_sell_what_it_lacks(sim: SimulatorServer) -> None:
    sim.trading("PATCH", "/v2/account/configurations", json={"no_shorting": True})

    assert account(sim)["shorting_enabled"] is False
    assert refused(send(sim, side="sell", limit_price="200")) == (
        403,
        {"code": 40310000, "message": "account is not allowed to short"},
    )


def test_an_instrument_without_fractions_says_so(sim: SimulatorServer) -> None:
    sim.post("/sim/symbol", {"symbol": "CWVX", "price": "20", "fractionable": False})

    assert refused(send(sim, symbol="CWVX", qty="1.5", limit_price="30")) == (
        403,
        {"code": 40310000, "message": 'asset "CWVX" is not fractionable'},
    )


def test_a_replacement_that_costs_more_than_there_is_leaves_the_order_alone(
    sim: SimulatorServer,
) -> None:
    old = resting(sim, qty="10", limit_price="100")
    sim.post("/sim/account", {"buying_power": "500"})

    answer = sim.trading("PATCH", f"/v2/orders/{old['id']}", json={"qty": "20"})

    assert refused(answer)[1]["cost_basis"] == "1000"  # what is needed beyond what is reserved
    assert order(sim, old["id"])["status"] == "new"


def test_without_keys_nothing_is_answered(sim: SimulatorServer) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"{sim.url}/v2/account", timeout=5)

    assert refused(answer) == (401, {"message": "unauthorized."})
    assert answer.headers["X-Request-ID"]


def test_a_body_that_is_not_json_is_refused(sim: SimulatorServer) -> None:
    answer = sim.trading("POST", "/v2/orders", data=b"{not json")

    assert refused(answer) == (
        400,
        {"code": 40010000, "message": "request body format is invalid"},
    )


def test_beyond_the_rate_limit_requests_are_turned_away(sim: SimulatorServer) -> None:
    for_a_fresh_minute()
    sim.post("/sim/options", {"rate_limit": 2})
    answers = [sim.trading("GET", "/v2/clock") for _ in range(8)]

    # The minute may turn over in between, but not four times.
    turned_away = [answer for answer in answers if answer.status_code == 429]
    assert len(turned_away) >= 4
    assert turned_away[0].json() == {"code": 42910000, "message": "rate limit exceeded"}
    assert turned_away[0].headers["X-RateLimit-Remaining"] == "0"
