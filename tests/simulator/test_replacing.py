"""Replacing: chains of orders, and every reason for which one cannot be replaced."""

from typing import Any

import pytest

from tests.simulator.desk import accepted, account, filled, order, reaches, refused, resting, send
from tests.simulator_server import SimulatorServer


def _patch(sim: SimulatorServer, order_id: str, **values: Any) -> Any:
    return sim.trading("PATCH", f"/v2/orders/{order_id}", json=values)


def test_a_chain_keeps_every_link_and_what_was_filled(sim: SimulatorServer) -> None:
    first = resting(sim, qty="10", limit_price="100", client_order_id="a")
    sim.post("/sim/fill", {"id": first["id"], "qty": "3", "price": "99"})
    second = _patch(sim, first["id"], limit_price="101", client_order_id="b").json()
    reaches(sim, first["id"], "replaced")

    third = _patch(sim, second["id"], qty="8", client_order_id="c").json()
    reaches(sim, second["id"], "replaced")

    assert (third["replaces"], third["status"]) == (second["id"], "pending_new")
    last = order(sim, third["id"])
    assert (last["qty"], last["filled_qty"], last["limit_price"]) == ("8", "3", "101")
    assert last["status"] == "partially_filled"
    assert order(sim, first["id"])["replaced_by"] == second["id"]
    query = {"client_order_id": "a"}
    old = sim.trading("GET", "/v2/orders:by_client_order_id", params=query).json()
    assert (old["id"], old["status"]) == (first["id"], "replaced")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"qty": "3"}, "unable to replace order, qty must be > filled_qty"),
        ({"qty": "10.5"}, "qty must be a whole number of shares"),
        ({"stop_price": "90"}, "limit orders must not have stop_price"),
        ({"trail": "1"}, "limit orders must not have trail"),
        ({"limit_price": "100.001"}, "invalid limit_price 100.001. sub-penny increment"),
        ({"time_in_force": "tomorrow"}, "invalid time_in_force: tomorrow"),
        ({"client_order_id": "spent"}, "client_order_id must be unique"),
        ({"client_order_id": "x" * 129}, "client_order_id must be no more than 128"),
    ],
)
def test_a_replacement_that_makes_no_sense_is_refused(
    sim: SimulatorServer, values: dict[str, str], message: str
) -> None:
    waiting = resting(sim, qty="10", limit_price="100", client_order_id="spent")
    sim.post("/sim/fill", {"id": waiting["id"], "qty": "3"})
    before = order(sim, waiting["id"])

    status, body = refused(_patch(sim, waiting["id"], **values))

    assert status == 422
    assert message in body["message"]
    assert order(sim, waiting["id"]) == before


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        ("filled", "order is not open", 42210000),
        ("canceled", "order is not open", 42210000),
        ("pending_cancel", "order is not open", 42210000),
        ("pending_replace", "order is not open", 42210000),
        ("pending_new", "unable to replace order, order isn't sent to exchange yet", 40010001),
        ("accepted", "cannot replace order in accepted status", 42210000),
    ],
)
def test_in_these_states_an_order_cannot_be_replaced(
    sim: SimulatorServer, status: str, message: str, code: int
) -> None:
    waiting = resting(sim, limit_price="100")
    sim.post("/sim/options", {"new_delay": 5, "cancel_delay": 5, "replace_delay": 5})
    sim.post("/sim/order", {"id": waiting["id"], "status": status})

    assert refused(_patch(sim, waiting["id"], limit_price="101")) == (
        *(422, {"code": code, "message": message}),
    )


def test_while_it_is_being_replaced_an_order_cannot_be_cancelled(sim: SimulatorServer) -> None:
    waiting = resting(sim, limit_price="100")
    sim.post("/sim/options", {"replace_delay": 5})
    successor = _patch(sim, waiting["id"], limit_price="101").json()

    for order_id in (waiting["id"], successor["id"]):
        answer = sim.trading("DELETE", f"/v2/orders/{order_id}")
        assert refused(answer)[1]["message"] == "order pending replace"


def test_a_dollar_order_and_a_fraction_cannot_be_resized(sim: SimulatorServer) -> None:
    sim.post("/sim/market", {"mode": "closed"})
    dollars = accepted(sim, type="market", notional="500")
    fraction = resting_fraction(sim)

    assert refused(_patch(sim, dollars["id"], qty="5"))[0] == 422
    assert refused(_patch(sim, fraction["id"], qty="5"))[1]["message"] == (
        "qty of fractional orders cannot be replaced"
    )
    assert refused(_patch(sim, fraction["id"], time_in_force="gtc"))[1]["message"] == (
        "fractional orders must be DAY orders"
    )


def resting_fraction(sim: SimulatorServer) -> dict[str, Any]:
    sim.post("/sim/market", {"mode": "always_open"})
    return resting(sim, symbol="OKE", qty="1.5", limit_price="50")


def test_while_a_replacement_is_under_way_the_larger_of_both_is_reserved(
    sim: SimulatorServer,
) -> None:
    waiting = resting(sim, qty="10", limit_price="100")
    sim.post("/sim/options", {"replace_delay": 0.1})

    dearer = _patch(sim, waiting["id"], limit_price="120").json()
    assert account(sim)["buying_power"] == "3998800"
    reaches(sim, dearer["id"], "new")
    cheaper = _patch(sim, dearer["id"], limit_price="90").json()
    assert account(sim)["buying_power"] == "3998800"

    reaches(sim, cheaper["id"], "new")
    assert account(sim)["buying_power"] == "3999100"


def test_a_replacement_cannot_take_what_is_not_there(sim: SimulatorServer) -> None:
    filled(sim, symbol="STWD", qty="37", limit_price="20")
    sale = resting(sim, symbol="STWD", qty="30", side="sell", limit_price="30")
    purchase = resting(sim, qty="10", limit_price="100")
    sim.post("/sim/account", {"buying_power": "500"})

    shares = refused(_patch(sim, sale["id"], qty="38"))
    funds = refused(_patch(sim, purchase["id"], qty="20"))

    assert (shares[0], shares[1]["available"]) == (403, "37")
    assert (funds[0], funds[1]["cost_basis"]) == (403, "1000")


def test_a_replacement_that_would_trade_against_another_order_is_refused(
    sim: SimulatorServer,
) -> None:
    filled(sim, symbol="OKE", qty="9", limit_price="80")
    resting(sim, symbol="OKE", qty="9", side="sell", limit_price="90")
    buy = resting(sim, symbol="OKE", qty="1", limit_price="60")

    status, body = refused(_patch(sim, buy["id"], limit_price="90"))

    assert (status, body["message"]) == (403, "potential wash trade detected. use complex orders")
    assert send(sim, symbol="OKE", qty="1", limit_price="61").status_code == 200
