"""Faults: what the client gets to see goes wrong; what the exchange does stays right."""

import time

import pytest
import requests

from tests.simulator.desk import accepted, filled, order, resting, send, wait_for
from tests.simulator_server import SimulatorServer

MARKET_BUY = {"symbol": "TSLA", "qty": "1", "side": "buy", "type": "market"}


def _orders(sim: SimulatorServer) -> list[str]:
    return [found["client_order_id"] for found in sim.get("/sim/state")["orders"]]


def test_an_answer_dropped_after_acceptance_leaves_an_order_that_fills(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/faults", {"kind": "drop_after", "method": "POST", "path": "/v2/orders"})

    with pytest.raises(requests.ConnectionError):
        send(sim, client_order_id="o1")

    found = sim.trading(
        "GET", "/v2/orders:by_client_order_id", params={"client_order_id": "o1"}
    ).json()
    wait_for(lambda: order(sim, found["id"])["status"] == "filled")
    assert send(sim, client_order_id="o1").status_code == 422


def test_a_request_dropped_before_leaves_nothing_but_its_line_in_the_log(
    sim: SimulatorServer,
) -> None:
    sim.post("/sim/faults", {"kind": "drop_before", "method": "POST"})

    with pytest.raises(requests.ConnectionError):
        send(sim, client_order_id="o1")

    assert _orders(sim) == []
    (entry,) = sim.get("/sim/log", method="POST", path="/v2/orders")
    assert (entry["fault"], entry["status"]) == ("drop_before", None)
    assert entry["body"]["client_order_id"] == "o1"
    assert send(sim, client_order_id="o1").status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "is_taken"),
    [
        ({"kind": "status_after"}, 504, True),
        ({"kind": "status_after", "status": 500}, 500, True),
        ({"kind": "status_before"}, 503, False),
        ({"kind": "status_before", "status": 429, "retry_after": 2}, 429, False),
        ({"kind": "html_after"}, 502, True),
        ({"kind": "html_after", "status": 200}, 200, True),
    ],
)
def test_a_status_can_lie_about_what_became_of_the_order(
    sim: SimulatorServer, fault: dict[str, object], status: int, is_taken: bool
) -> None:
    sim.post("/sim/faults", {**fault, "path": "/v2/orders"})

    answer = send(sim, client_order_id="o1")

    assert answer.status_code == status
    assert (_orders(sim) == ["o1"]) is is_taken
    assert answer.headers.get("Retry-After") == ("2" if "retry_after" in fault else None)
    assert answer.headers["Content-Type"].startswith(
        "text/html" if fault["kind"] == "html_after" else "application/json"
    )


def test_a_late_answer_comes_after_the_order_took_effect(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "delay_after", "seconds": 5, "path": "/v2/orders"})

    with pytest.raises(requests.ReadTimeout):
        sim.trading("POST", "/v2/orders", json={**MARKET_BUY, "time_in_force": "day"}, timeout=0.1)

    assert len(_orders(sim)) == 1


def test_a_stalled_request_is_never_answered_and_never_done(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "stall", "method": "POST"})

    with pytest.raises(requests.ReadTimeout):
        sim.trading("POST", "/v2/orders", json={}, timeout=0.1)

    assert _orders(sim) == []


def test_a_look_up_can_fail_for_a_while_after_acceptance(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "lookup_404", "seconds": 0.15})
    accepted(sim, client_order_id="o1", limit_price="100")

    def look() -> int:
        query = {"client_order_id": "o1"}
        return sim.trading("GET", "/v2/orders:by_client_order_id", params=query).status_code

    assert look() == 404
    wait_for(lambda: look() == 200)


def test_a_fault_meets_only_the_requests_it_names_and_only_so_often(sim: SimulatorServer) -> None:
    sim.post(
        "/sim/faults",
        [{"kind": "status_before", "path": "/v2/orders", "body": "OKE", "count": 2}],
    )

    assert send(sim).status_code == 200
    assert sim.trading("GET", "/v2/account").status_code == 200
    statuses = [send(sim, symbol="OKE", limit_price="50").status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert sim.get("/sim/faults") == []


def test_faults_can_be_taken_away(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "status_before", "count": 100})
    sim.delete("/sim/faults")

    assert sim.trading("GET", "/v2/account").status_code == 200


def test_a_fault_that_does_not_exist_is_refused(sim: SimulatorServer) -> None:
    answer = sim.trading("POST", "/sim/faults", json={"kind": "earthquake"})

    assert answer.status_code == 422
    assert "drop_after" in answer.json()["message"]


def test_the_log_proves_that_nothing_was_sent(sim: SimulatorServer) -> None:
    sim.trading("GET", "/v2/account")
    assert sim.get("/sim/log", method="POST") == []

    filled(sim, client_order_id="o1")

    (entry,) = sim.get("/sim/log", method="POST", path="/v2/orders")
    assert (entry["status"], entry["body"]["client_order_id"]) == (200, "o1")
    assert "key" not in str(entry).lower()
    sim.delete("/sim/log")
    assert sim.get("/sim/log") == []


def test_latency_holds_up_each_answer(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"latency": 0.05})

    assert sim.trading("GET", "/v2/clock").elapsed.total_seconds() >= 0.05


def test_listed_positions_can_lag_behind_their_orders(sim: SimulatorServer) -> None:
    sim.post("/sim/options", {"position_lag": 30})
    filled(sim, symbol="OKE", qty="9", limit_price="80")
    assert sim.trading("GET", "/v2/positions").json() == []

    # Only the listing lags: what may be sold is judged by the true position.
    waiting = resting(sim, symbol="OKE", qty="9", side="sell", limit_price="90")
    assert waiting["position_intent"] == "sell_to_close"
    sim.post("/sim/options", {"position_lag": 0})

    (held,) = sim.trading("GET", "/v2/positions").json()
    assert (held["qty"], held["qty_available"]) == ("9", "0")


def test_an_answer_can_lie_in_every_other_way_too(sim: SimulatorServer) -> None:
    seen = {}
    for number, kind in enumerate(
        (
            *("html_before", "empty_before", "redirect_before", "rate_limited", "unauthorized"),
            *("no_funds", "duplicate_id", "empty_after", "redirect_after", "truncated_after"),
            *("duplicate_id_after", "odd_after"),
        )
    ):
        sim.post("/sim/faults", {"kind": kind, "path": "/v2/orders"})
        answer = sim.trading(
            "POST",
            "/v2/orders",
            json={
                "symbol": "TSLA",
                "qty": "1",
                "side": "buy",
                "type": "limit",
                "limit_price": "100",
                "time_in_force": "day",
                "client_order_id": f"o{number}",
            },
            allow_redirects=False,
        )
        taken = f"o{number}" in _orders(sim)
        seen[kind] = (answer.status_code, answer.text[:20], taken)

    assert {kind: (status, taken) for kind, (status, _, taken) in seen.items()} == {
        "html_before": (502, False),
        "empty_before": (200, False),
        "redirect_before": (302, False),
        "rate_limited": (429, False),
        "unauthorized": (401, False),
        "no_funds": (403, False),
        "duplicate_id": (422, False),
        "empty_after": (200, True),
        "redirect_after": (302, True),
        "truncated_after": (200, True),
        "duplicate_id_after": (422, True),
        "odd_after": (200, True),
    }
    assert seen["empty_before"][1] == seen["empty_after"][1] == ""
    assert seen["html_before"][1].startswith("<html>")


def test_half_an_answer_is_no_json(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "truncated_after"})

    with pytest.raises(requests.JSONDecodeError):
        sim.trading("GET", "/v2/account").json()


def test_an_answer_can_break_off_in_the_middle(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "cut_after", "path": "/v2/orders"})

    with pytest.raises(requests.RequestException):
        send(sim, client_order_id="o1")

    assert _orders(sim) == ["o1"]


def test_a_dripping_answer_outlasts_a_timeout_between_bytes(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", {"kind": "drip_after", "seconds": 0.3, "path": "/v2/orders"})

    answer = sim.trading(
        "POST",
        "/v2/orders",
        json={**MARKET_BUY, "time_in_force": "day"},
        timeout=0.2,
    )

    assert answer.json()["symbol"] == "TSLA"
    assert answer.elapsed.total_seconds() < 0.3


def test_a_lie_about_funds_shows_the_figures_of_a_real_refusal(sim: SimulatorServer) -> None:
    sim.post("/sim/faults", [{"kind": "no_funds"}, {"kind": "duplicate_id"}])

    funds, duplicate = send(sim).json(), send(sim).json()

    assert funds == {
        "buying_power": "4000000",
        "code": 40310000,
        "cost_basis": "4000001",
        "message": "insufficient buying power",
    }
    assert duplicate["message"] == "client_order_id must be unique"


@pytest.mark.parametrize("headers", [True, False])
def test_too_many_requests_come_with_or_without_the_headers(
    sim: SimulatorServer, headers: bool
) -> None:
    sim.post("/sim/faults", {"kind": "rate_limited", "headers": headers})

    answer = sim.trading("GET", "/v2/account")

    assert answer.json() == {"code": 42910000, "message": "rate limit exceeded"}
    assert answer.headers.get("X-RateLimit-Remaining") == ("0" if headers else None)
    assert ("X-RateLimit-Reset" in answer.headers) is headers


def test_values_nobody_has_heard_of_reach_every_row(sim: SimulatorServer) -> None:
    resting(sim, limit_price="100")
    sim.post("/sim/faults", {"kind": "odd_after", "method": "GET"})

    (row,) = sim.trading("GET", "/v2/orders").json()

    assert (row["status"], row["submitted_at"]) == ("pending_quantum", None)
    assert "field_nobody_knows" in row


def test_a_list_can_omit_rows_or_all_of_them(sim: SimulatorServer) -> None:
    for number in range(4):
        resting(sim, limit_price="100", client_order_id=f"o{number}")
    sim.post("/sim/faults", [{"kind": "list_omit"}, {"kind": "list_empty"}])

    lists = [sim.trading("GET", "/v2/orders").json() for _ in range(3)]

    assert [[row["client_order_id"] for row in rows] for rows in lists] == [
        ["o2", "o0"],
        [],
        ["o3", "o2", "o1", "o0"],
    ]


def test_lists_can_tell_what_was_true_a_while_ago(sim: SimulatorServer) -> None:
    sim.post("/sim/clock", {"hold": True})
    send(sim, symbol="OKE", qty="9", limit_price="50", client_order_id="old")
    sim.post("/sim/clock", {"advance": 10})
    sim.post("/sim/fill", {"client_order_id": "old", "price": "50"})
    send(sim, limit_price="100", client_order_id="young")
    sim.post("/sim/clock", {"advance": 3})
    paths = ("/v2/orders", "/v2/positions", "/v2/account/activities")

    sim.post("/sim/faults", [{"kind": "list_lag", "seconds": 5, "path": path} for path in paths])
    late = [sim.trading("GET", path).json() for path in paths]
    now = [sim.trading("GET", path).json() for path in paths]

    assert [row["client_order_id"] for row in late[0]] == ["old"]
    assert (late[0][0]["status"], late[1], late[2]) == ("new", [], [])
    assert [row["client_order_id"] for row in now[0]] == ["young"]
    assert (len(now[1]), len(now[2])) == (1, 1)


def test_a_second_page_can_fail_where_the_first_does_not(sim: SimulatorServer) -> None:
    first = resting(sim, limit_price="100")
    sim.post("/sim/faults", {"kind": "second_page_fails", "count": 2})

    answers = [
        sim.trading("GET", "/v2/orders"),
        sim.trading("GET", "/v2/orders", params={"after_order_id": first["id"]}),
        sim.trading("GET", "/v2/account/activities", params={"page_token": "x"}),
    ]

    assert [answer.status_code for answer in answers] == [200, 500, 500]


def test_a_probability_strikes_as_the_seed_has_it() -> None:
    seen = []
    for seed in (5, 5, 6):
        with SimulatorServer(seed=seed) as sim:
            sim.post("/sim/faults", {"kind": "status_before", "count": None, "probability": 0.5})
            seen.append([sim.trading("GET", "/v2/clock").status_code for _ in range(30)])

    assert seen[0] == seen[1] != seen[2]
    assert {200, 503} == set(seen[0])


def test_refused_connections_come_back_with_everything_kept(sim: SimulatorServer) -> None:
    accepted(sim, client_order_id="o1", limit_price="100")

    asked_at = time.monotonic()
    sim.post("/sim/faults", {"kind": "refuse", "seconds": 0.1})

    def is_refused() -> bool:
        try:
            sim.trading("GET", "/v2/clock")
        except requests.ConnectionError:
            return True
        return False

    wait_for(is_refused)
    wait_for(lambda: not is_refused())
    assert time.monotonic() - asked_at >= 0.1
    assert _orders(sim) == ["o1"]
