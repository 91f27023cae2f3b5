"""Brackets, OTO and OCO: exits that wait, set out, shrink, and end one another."""

from typing import Any

import pytest

from tests.simulator.desk import accepted, filled, order, position, reaches, refused, resting, send
from tests.simulator_server import SimulatorServer

EXITS = {"take_profit": {"limit_price": "19"}, "stop_loss": {"stop_price": "16"}}


@pytest.fixture(autouse=True)
def quoted(sim: SimulatorServer) -> None:
    sim.post("/sim/price", {"symbol": "ET", "bid": "17.40", "ask": "17.41"})


def _bracket(sim: SimulatorServer, **changes: Any) -> list[dict[str, Any]]:
    """Entry, take-profit and stop-loss of 100 ET."""
    fields = {"symbol": "ET", "qty": "100", "limit_price": "17", "order_class": "bracket"}
    entry = accepted(sim, **{**fields, **EXITS, **changes})
    return [entry, *entry["legs"]]


def _statuses(sim: SimulatorServer, *orders: dict[str, Any]) -> list[str]:
    return [order(sim, it["id"])["status"] for it in orders]


def test_the_exits_of_a_bracket_are_held_until_its_entry_is_filled(sim: SimulatorServer) -> None:
    entry, profit, stop = _bracket(sim)
    reaches(sim, entry["id"], "new")

    assert [(leg["type"], leg["side"], leg["status"]) for leg in (profit, stop)] == [
        ("limit", "sell", "held"),
        ("stop", "sell", "held"),
    ]
    assert {leg["position_intent"] for leg in (profit, stop)} == {"sell_to_close"}
    assert {it["order_class"] for it in (entry, profit, stop)} == {"bracket"}
    sim.post("/sim/fill", {"id": entry["id"], "qty": "40"})
    assert _statuses(sim, entry, profit, stop) == ["partially_filled", "held", "held"]

    sim.post("/sim/fill", {"id": entry["id"]})

    assert _statuses(sim, entry, profit, stop) == ["filled", "new", "new"]
    assert position(sim, "ET")["qty_available"] == "0"  # the pair holds the shares once


def test_of_a_bracket_one_exit_that_fills_ends_the_other(sim: SimulatorServer) -> None:
    entry, profit, stop = _bracket(sim, limit_price="17.50")
    reaches(sim, profit["id"], "new")

    sim.post("/sim/price", {"symbol": "ET", "bid": "19.10", "ask": "19.12"})

    assert _statuses(sim, entry, profit, stop) == ["filled", "filled", "canceled"]
    assert sim.trading("GET", "/v2/positions").json() == []


def test_a_stop_that_goes_off_ends_the_profit_at_once(sim: SimulatorServer) -> None:
    entry, profit, stop = _bracket(sim, limit_price="17.50")
    reaches(sim, profit["id"], "new")

    sim.post("/sim/price", {"symbol": "ET", "bid": "15.90", "ask": "15.92"})

    assert _statuses(sim, entry, profit, stop) == ["filled", "canceled", "filled"]
    assert order(sim, stop["id"])["filled_avg_price"] == "15.9"


def test_a_partial_profit_shrinks_the_stop(sim: SimulatorServer) -> None:
    _, profit, stop = _bracket(sim, limit_price="17.50")
    reaches(sim, profit["id"], "new")

    sim.post("/sim/fill", {"id": profit["id"], "qty": "30", "price": "19"})

    assert order(sim, stop["id"])["qty"] == "70"
    assert position(sim, "ET")["qty_available"] == "0"
    sim.post("/sim/price", {"symbol": "ET", "bid": "15.90", "ask": "15.92"})
    assert sim.trading("GET", "/v2/positions").json() == []


@pytest.mark.parametrize("which", [0, 1, 2])
def test_cancelling_one_before_the_entry_fills_cancels_all(
    sim: SimulatorServer, which: int
) -> None:
    group = _bracket(sim)
    reaches(sim, group[0]["id"], "new")

    sim.trading("DELETE", f"/v2/orders/{group[which]['id']}")

    reaches(sim, group[0]["id"], "canceled")
    assert _statuses(sim, *group) == ["canceled"] * 3


def test_cancelling_an_exit_cancels_the_other_and_frees_the_shares(sim: SimulatorServer) -> None:
    _, profit, stop = _bracket(sim, limit_price="17.50")
    reaches(sim, profit["id"], "new")

    sim.trading("DELETE", f"/v2/orders/{stop['id']}")

    reaches(sim, stop["id"], "canceled")
    assert _statuses(sim, profit) == ["canceled"]
    assert position(sim, "ET")["qty_available"] == "100"


def test_an_entry_cancelled_half_filled_leaves_its_shares_without_exits(
    sim: SimulatorServer,
) -> None:
    group = _bracket(sim)
    reaches(sim, group[0]["id"], "new")
    sim.post("/sim/fill", {"id": group[0]["id"], "qty": "40"})

    sim.trading("DELETE", f"/v2/orders/{group[0]['id']}")

    reaches(sim, group[0]["id"], "canceled")
    assert _statuses(sim, *group) == ["canceled"] * 3
    assert position(sim, "ET")["qty_available"] == "40"


def test_an_entry_rejected_by_the_venue_takes_its_exits_along(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "reject_later"})

    group = _bracket(sim)

    reaches(sim, group[0]["id"], "rejected")
    assert _statuses(sim, *group) == ["rejected", "canceled", "canceled"]


def test_a_short_entry_has_its_exits_the_other_way_round(sim: SimulatorServer) -> None:
    entry, profit, stop = _bracket(
        sim,
        side="sell",
        limit_price="17.20",
        take_profit={"limit_price": "16"},
        stop_loss={"stop_price": "18", "limit_price": "18.50"},
    )
    reaches(sim, entry["id"], "filled")

    sim.post("/sim/price", {"symbol": "ET", "bid": "18.05", "ask": "18.10"})

    assert (stop["side"], stop["type"], stop["limit_price"]) == ("buy", "stop_limit", "18.5")
    assert _statuses(sim, entry, profit, stop) == ["filled", "canceled", "filled"]
    assert sim.trading("GET", "/v2/positions").json() == []


@pytest.mark.parametrize(
    ("exit_", "kind"),
    [
        ({"take_profit": {"limit_price": "19"}}, "limit"),
        ({"stop_loss": {"stop_price": "16"}}, "stop"),
    ],
)
def test_an_oto_has_one_exit_that_waits_for_its_entry(
    sim: SimulatorServer, exit_: dict[str, Any], kind: str
) -> None:
    entry = accepted(sim, symbol="ET", qty="100", limit_price="17.50", order_class="oto", **exit_)
    (leg,) = entry["legs"]
    assert (leg["type"], leg["status"]) == (kind, "held")

    reaches(sim, leg["id"], "new")

    assert position(sim, "ET")["qty_available"] == "0"


def test_a_group_is_listed_once_when_nested_and_in_full_otherwise(sim: SimulatorServer) -> None:
    group = _bracket(sim)
    query = {"status": "all", "direction": "asc"}

    nested = sim.trading("GET", "/v2/orders", params={**query, "nested": "true"}).json()
    flat = sim.trading("GET", "/v2/orders", params=query).json()

    assert [row["id"] for row in nested] == [group[0]["id"]]
    assert [leg["id"] for leg in nested[0]["legs"]] == [leg["id"] for leg in group[1:]]
    assert [row["id"] for row in flat] == [it["id"] for it in group]
    assert {row["legs"] is None for row in flat} == {True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"take_profit": {"limit_price": "15"}},
            "take_profit.limit_price must be > stop_loss.stop_price",
        ),
        (
            {"take_profit": {"limit_price": "17"}},
            "take_profit.limit_price must be >= base_price + 0.01",
        ),
        (
            {"stop_loss": {"stop_price": "17"}},
            "stop_loss.stop_price must be <= base_price - 0.01",
        ),
        ({"take_profit": None}, "bracket orders require take_profit.limit_price and stop_loss"),
        ({"time_in_force": "ioc"}, "bracket orders must be DAY or GTC orders"),
        ({"extended_hours": True}, "extended hours order must be DAY limit orders"),
        ({"qty": "1.5"}, "fractional orders must be simple orders"),
        ({"order_class": "oto"}, "oto orders require either take_profit or stop_loss"),
        ({"take_profit": {"limit_price": "19.001"}}, "invalid take_profit.limit_price 19.001."),
        ({"order_class": "mleg"}, "order_class mleg is not offered"),
    ],
)
def test_a_group_that_cannot_be_is_refused_whole(
    sim: SimulatorServer, changes: dict[str, Any], message: str
) -> None:
    fields = {"symbol": "ET", "qty": "100", "limit_price": "17", "order_class": "bracket"}

    status, body = refused(send(sim, **{**fields, **EXITS, **changes}))

    assert (status, body["code"]) == (422, 42210000)
    assert message in body["message"]
    assert ("base_price" in body) is ("base_price" in message)
    assert sim.get("/sim/state")["orders"] == []


def test_exits_of_a_sale_lie_the_other_way(sim: SimulatorServer) -> None:
    sale: dict[str, Any] = {"symbol": "ET", "qty": "100", "limit_price": "18", "side": "sell"}

    answer = send(sim, **sale, order_class="bracket", **EXITS)

    assert answer.json()["message"] == "take_profit.limit_price must be < stop_loss.stop_price"


def test_an_entry_cannot_close_and_an_oco_cannot_open(sim: SimulatorServer) -> None:
    sale: dict[str, Any] = {"symbol": "ET", "qty": "100", "side": "sell"}
    oco = send(sim, **sale, order_class="oco", **EXITS)
    filled(sim, symbol="ET", qty="100", limit_price="18")
    exits = {"take_profit": {"limit_price": "16"}, "stop_loss": {"stop_price": "18"}}

    bracket = send(sim, **sale, limit_price="17.50", order_class="bracket", **exits)

    assert oco.json()["message"] == "oco orders must be exit orders"
    assert bracket.json()["message"] == "bracket orders must be entry orders"


def test_prices_of_exits_can_be_replaced_and_the_group_holds(sim: SimulatorServer) -> None:
    _, profit, stop = _bracket(sim, limit_price="17.50")
    reaches(sim, profit["id"], "new")

    new = sim.trading("PATCH", f"/v2/orders/{stop['id']}", json={"stop_price": "16.50"}).json()
    reaches(sim, stop["id"], "replaced")
    reaches(sim, new["id"], "new")
    sim.post("/sim/price", {"symbol": "ET", "bid": "16.45", "ask": "16.47"})

    assert _statuses(sim, profit, stop) == ["canceled", "replaced"]
    assert order(sim, new["id"])["filled_avg_price"] == "16.45"


def test_the_held_stop_of_a_pair_can_be_replaced_and_stays_held(sim: SimulatorServer) -> None:
    filled(sim, symbol="ET", qty="100", limit_price="18")
    pair = resting(sim, symbol="ET", qty="100", side="sell", order_class="oco", **EXITS)
    stop = pair["legs"][0]

    new = sim.trading("PATCH", f"/v2/orders/{stop['id']}", json={"stop_price": "16.50"}).json()
    reaches(sim, stop["id"], "replaced")

    assert _statuses(sim, new) == ["held"]
    assert [leg["id"] for leg in order(sim, pair["id"])["legs"]] == [new["id"]]
    sim.post("/sim/price", {"symbol": "ET", "bid": "16.45", "ask": "16.47"})
    assert _statuses(sim, pair, new) == ["canceled", "filled"]


def test_a_stop_that_is_being_replaced_shrinks_with_the_profit_all_the_same(
    sim: SimulatorServer,
) -> None:
    filled(sim, symbol="ET", qty="100", limit_price="18")
    pair = resting(sim, symbol="ET", qty="100", side="sell", order_class="oco", **EXITS)
    sim.post("/sim/options", {"replace_delay": 0.05})

    stop = f"/v2/orders/{pair['legs'][0]['id']}"
    new = sim.trading("PATCH", stop, json={"stop_price": "16.50"}).json()
    sim.post("/sim/fill", {"id": pair["id"], "qty": "30", "price": "19"})

    assert reaches(sim, new["id"], "held")["qty"] == "70"


def test_exits_get_only_what_no_other_order_took_meanwhile(sim: SimulatorServer) -> None:
    entry, profit, stop = _bracket(sim)
    reaches(sim, entry["id"], "new")
    sim.post("/sim/fill", {"id": entry["id"], "qty": "40"})
    other = {"type": "trailing_stop", "trail_price": "1", "side": "sell"}
    resting(sim, symbol="ET", qty="25", **other)

    sim.post("/sim/fill", {"id": entry["id"]})

    assert [order(sim, leg["id"])["qty"] for leg in (profit, stop)] == ["75", "75"]
    assert position(sim, "ET")["qty_available"] == "0"


def test_exits_cannot_be_replaced_into_each_other_nor_in_quantity(sim: SimulatorServer) -> None:
    _, profit, stop = _bracket(sim, limit_price="17.50")
    reaches(sim, profit["id"], "new")

    def change(order_id: str, **values: str) -> str:
        answer = sim.trading("PATCH", f"/v2/orders/{order_id}", json=values)
        assert answer.status_code == 422
        return str(answer.json()["message"])

    assert change(stop["id"], stop_price="19") == (
        "take_profit.limit_price must be > stop_loss.stop_price"
    )
    assert change(profit["id"], qty="50") == "qty of bracket orders cannot be replaced"
    assert _statuses(sim, profit, stop) == ["new", "new"]


def test_a_replaced_entry_keeps_its_exits(sim: SimulatorServer) -> None:
    entry, profit, stop = _bracket(sim)
    reaches(sim, entry["id"], "new")

    new = sim.trading("PATCH", f"/v2/orders/{entry['id']}", json={"limit_price": "17.50"}).json()
    reaches(sim, new["id"], "filled")

    assert _statuses(sim, entry, profit, stop) == ["replaced", "new", "new"]


def test_the_exits_of_an_entry_cannot_be_replaced_before_it_fills(sim: SimulatorServer) -> None:
    entry, profit, _ = _bracket(sim)
    reaches(sim, entry["id"], "new")

    answer = sim.trading("PATCH", f"/v2/orders/{profit['id']}", json={"limit_price": "20"})

    assert refused(answer)[1]["message"] == (
        "unable to replace order, order isn't sent to exchange yet"
    )
