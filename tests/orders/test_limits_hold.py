"""The limits at work over HTTP: what is denied, what is cut, what a preview tells, and that nothing
is sent of what is not to be."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db.models import F
from django.db.models.functions import Now

from orders import jobs, resolver
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from risk import figures
from risk.models import TradingChange, TradingControl
from tests.conftest import Api, hold, quote, sent
from tests.orders.dependents import PROFIT, again, bought, child, fill, idle, poll, rest
from tests.orders.limited import buy, codes, confirmed_long_ago, limit, sell, set_state
from tests.orders.standing import polled
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

# A sell of 9 TSLA that rests, where `rest` would make it a buy.
SOLD = {"side": "sell", "limit_price": "260"}


# --- positions and exposure, working orders included ---------------------------------------------


@pytest.mark.default_limits
def test_without_any_setting_the_limits_of_the_contract_hold(
    sim: SimulatorServer, api: Api
) -> None:
    too_much = api.post("/orders", buy(qty="251"))  # 5.02 % of $1,000,000

    assert (too_much.status_code, codes(too_much)) == (422, ["max_position_pct"])
    assert sent(sim) == []
    stored = Order.objects.get()
    assert stored.status == "denied"
    failed = [check["code"] for check in stored.verdict if not check["ok"]]
    assert failed == ["max_position_pct"]
    assert api.post("/orders", buy(qty="250")).status_code == 201


def _stands(fills: bool) -> bool:
    poll()
    wanted = "filled" if fills else "new"
    return set(Order.objects.values_list("status", flat=True)) == {wanted}


@pytest.mark.parametrize("fills", [False, True])
def test_what_is_open_or_has_filled_just_now_counts_towards_a_position(
    sim: SimulatorServer, api: Api, account: BrokerAccount, fills: bool
) -> None:
    quote(sim, "TSLA", "200" if fills else "255")
    limit(account, max_position_pct=5, duplicate_guard=False)

    for _ in range(2):
        answer = api.post("/orders", buy(qty="100"))
        assert answer.status_code == 201, answer.content
        until(lambda: _stands(fills))
    third = api.post("/orders", buy(qty="100"))

    assert (third.status_code, codes(third)) == (422, ["max_position_pct"])


def test_a_fill_that_the_brokers_position_shows_already_is_not_counted_twice(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    parent = bought(sim, api)
    until(lambda: figures.ask(account).positions["TSLA"].qty == 9)

    shown = api.post("/orders/preview", buy(qty="1", price="250")).json()

    assert parent.fills.count() == 1
    assert shown["position_before"] == "9"
    equity = figures.ask(account).account.equity
    held = figures.ask(account).values["TSLA"]
    assert shown["position_exposure_after"] == f"{(held + 250) * 100 / equity:.4f}".rstrip("0")


def test_a_sector_and_the_number_of_positions_count_other_symbols(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "KO", "1000", "60")
    quote(sim, "KO", "60")
    limit(account, max_sector_pct=6, max_positions=2)

    assert codes(api.post("/orders", buy("PEP", "50", "150"))) == ["max_sector_pct"]
    assert api.post("/orders", buy("TSLA")).status_code == 201
    assert codes(api.post("/orders", buy("OKE", "1", "60"))) == ["max_positions"]


def test_a_limit_that_was_tightened_while_an_order_stood_in_line_holds(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tighten_then(name: str) -> None:
        if name == "submit.received":
            limit(account, blocked_symbols="TSLA")

    monkeypatch.setattr("orders.submission.failpoint", tighten_then)
    monkeypatch.setattr("orders.judgement._LIMITS_HOLD", 0)  # as if it had stood there for long

    assert codes(api.post("/orders", buy())) == ["symbol_not_allowed"]
    assert sent(sim) == []


def test_a_buy_that_follows_a_sell_is_held_to_the_size_limits(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "9", "240")
    limit(account, max_order_notional=3000)
    parent = rest(sim, api, **SOLD)
    assert api.post("/orders", buy(qty="9", price="900", parent=str(parent.pk))).status_code == 201

    fill(sim, parent, price="260")
    poll()
    again()

    assert child(parent, "dependent").status == "waiting"
    assert [each["body"]["side"] for each in sent(sim)] == ["sell"]


# --- reduce only ---------------------------------------------------------------------------------


def test_an_order_that_may_only_reduce_is_cut_to_what_is_free_and_says_so(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "FNGU", "711", "24.00")
    quote(sim, "FNGU", "24.90")
    body = {"symbol": "FNGU", "side": "sell", "qty": "1591.166892", "limit_price": "25.00"}

    cut = api.post("/orders", {**body, "reduce_only": True, "client_order_id": "cut"})

    order = cut.json()
    assert (cut.status_code, order["qty"], order["requested_qty"]) == (201, "711", "1591.166892")
    assert [each["body"]["qty"] for each in sent(sim)] == ["711"]
    again = api.post("/orders", {**body, "reduce_only": True, "client_order_id": "cut"})
    assert (again.status_code, again.json()["id"]) == (200, order["id"])
    alike = api.post("/orders", {**body, "reduce_only": True})
    assert (alike.status_code, alike.json()["id"]) == (200, order["id"])
    denied = api.post("/orders", body)
    assert codes(denied) == ["insufficient_quantity"]


def test_whole_shares_are_cut_to_whole_shares_where_fractions_do_not_trade(
    sim: SimulatorServer, api: Api
) -> None:
    hold(sim, "TSLA", "7.5", "240")

    order = api.post("/orders", sell("9", reduce_only=True, time_in_force="gtc")).json()

    assert (order["qty"], order["requested_qty"]) == ("7", "9")


def test_from_flat_there_is_nothing_to_reduce(sim: SimulatorServer, api: Api) -> None:
    for body in (sell("1", reduce_only=True), buy(reduce_only=True)):
        answer = api.post("/orders", body)

        assert answer.status_code == 422
        assert "nothing_to_reduce" in codes(answer)
    assert sent(sim) == []


def test_a_short_position_is_bought_back_and_no_further(sim: SimulatorServer, api: Api) -> None:
    hold(sim, "TSLA", "-5", "240")
    quote(sim, "TSLA", "255")

    order = api.post("/orders", buy(qty="9", reduce_only=True)).json()

    assert (order["qty"], order["requested_qty"]) == ("5", "9")


# --- short sales ---------------------------------------------------------------------------------


def test_a_short_sale_is_taken_where_it_is_allowed_and_ties_up_what_the_broker_holds_for_it(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    assert codes(api.post("/orders", sell("10"))) == ["insufficient_quantity"]
    limit(account, allow_short=True)

    taken = api.post("/orders", sell("10", price="251", reference_price="250"))

    assert taken.status_code == 201, taken.content
    order = Order.objects.get(pk=taken.json()["id"])
    assert order.sells_short
    assert order.worst_price == 250 * 103 / 100
    assert api.get("/account").json()["reserved"] == "2575.00"


def test_a_short_sale_far_below_the_market_is_judged_by_what_the_broker_asks(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    limit(account, allow_short=True, max_position_pct=5)

    answer = api.post("/orders", sell("2000", price="20", reference_price="20"))

    assert codes(answer) == ["max_position_pct"]
    assert answer.json()["violations"][0]["actual"] == "51.5"  # 2,000 at 1.03 times 250
    assert sent(sim) == []


def test_more_of_a_short_position_is_judged_by_the_position_where_there_is_no_quote(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "-1", "250")
    quote(sim, "TSLA", "250")
    limit(account, allow_short=True, max_position_pct=5)
    path = "/v2/stocks/.*"
    sim.post("/sim/faults", [{"kind": "status_before", "status": 403, "path": path, "count": None}])

    answer = api.post("/orders", sell("2000", price="20", reference_price="20"))

    assert codes(answer) == ["max_position_pct"]


def test_a_short_sale_follows_the_market_by_a_replacement(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    limit(account, allow_short=True)
    old = api.post("/orders", sell("10", price="251", reference_price="250")).json()
    until(lambda: sim.get("/sim/state")["orders"][0]["status"] == "new")
    poll()

    new = api.post(f"/orders/{old['id']}/replace", {"limit_price": "256"})

    assert new.status_code == 201, new.content


@pytest.mark.parametrize(("reference", "passes"), [("249.00", True), ("100.00", False)])
def test_a_market_buy_is_judged_by_what_the_broker_asks(
    sim: SimulatorServer, api: Api, account: BrokerAccount, reference: str, passes: bool
) -> None:
    quote(sim, "TSLA", "250")
    limit(account, allowed_order_types="limit,market", max_position_pct=5)
    body = {"symbol": "TSLA", "side": "buy", "type": "market", "reference_price": reference}

    answer = api.post("/orders", {**body, "qty": "190"})

    if passes:
        assert answer.status_code == 201, answer.content
        assert Order.objects.get().worst_price == 250 * 1005 / 1000
    else:
        assert codes(answer) == ["max_slippage_pct"]
        assert sent(sim) == []


def test_a_dearer_short_sale_is_judged_by_what_it_comes_to_more(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    limit(account, allow_short=True, max_position_pct=5, max_slippage_pct=50)
    body = sell("190", "260", reference_price="250")
    taken = polled(api.post("/orders", body).json()["id"], "new")  # $49,400 of $50,000
    confirmed_long_ago()

    answer = api.post(f"/orders/{taken.pk}/replace", {"limit_price": "370"})

    assert codes(answer) == ["max_position_pct"]
    assert polled(taken.pk, "new").limit_price == 260


# --- preview -------------------------------------------------------------------------------------


def test_a_preview_tells_what_an_order_would_bring_about_and_does_nothing(
    sim: SimulatorServer, api: Api
) -> None:
    sim.post("/sim/account", {"buying_power": "10000"})
    hold(sim, "TSLA", "10", "240")
    quote(sim, "TSLA", "250")

    shown = api.post("/orders/preview", buy(qty="20", price="250")).json()

    equity = float(sim.trading("GET", "/v2/account").json()["equity"])
    assert (shown["limit_price"], shown["notional"]) == ("250.00", "5000.00")
    assert (shown["buying_power_before"], shown["buying_power_after"]) == ("10000.00", "5000.00")
    assert (shown["position_before"], shown["position_after"]) == ("10", "30")
    assert float(shown["exposure_after"]) == pytest.approx(7500 / equity * 100, abs=1e-4)
    assert shown["sector"] == "Consumer Discretionary"
    assert shown["sector_exposure_after"] == shown["exposure_after"]
    assert (shown["violations"], shown["trading_state"]) == ([], "active")
    assert (Order.objects.count(), sent(sim)) == (0, [])


def test_a_preview_names_every_violation(sim: SimulatorServer, api: Api) -> None:
    sim.post("/sim/account", {"buying_power": "3432.62"})

    shown = api.post("/orders/preview", buy("TECL", "487", "108"))

    (violation,) = shown.json()["violations"]
    assert (shown.status_code, violation["code"]) == (200, "insufficient_buying_power")
    assert "needs $52,596.00, has $3,432.62" in violation["message"]
    assert shown.json()["buying_power_after"] == "-49163.38"


def test_a_preview_leaves_no_trace_of_what_it_meets(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    limit(account, breaker_min_buying_power=1000)
    api.get("/account", fresh="true")
    sim.post("/sim/account", {"buying_power": "500"})
    figures._shared.clear()

    shown = api.post("/orders/preview", buy(qty="1")).json()

    assert "trading_reducing" in [violation["code"] for violation in shown["violations"]]
    assert not TradingChange.objects.exists()
    assert not Alert.objects.exists()


def test_a_preview_of_a_wrong_order_is_refused_as_the_order_would_be(
    sim: SimulatorServer, api: Api
) -> None:
    assert api.post("/orders/preview", buy(price="200.001")).status_code == 422
    assert api.post("/orders/preview", {**buy(type="market"), "limit_price": None}).status_code in (
        422,
        501,
    )
    sim.post("/sim/faults", [{"kind": "status_before", "status": 500, "count": None}])
    figures._shared.clear()
    assert api.post("/orders/preview", buy()).status_code == 503


# --- trading states ------------------------------------------------------------------------------


def test_reducing_lets_only_what_is_free_of_a_position_pass(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "10", "240")
    quote(sim, "TSLA", "250")
    set_state(account, "reducing")

    assert codes(api.post("/orders", buy())) == ["trading_reducing"]
    assert api.post("/orders", sell("6")).status_code == 201
    confirmed_long_ago()
    too_many = api.post("/orders", sell("5", price="301"))
    assert codes(too_many) == ["trading_reducing", "insufficient_quantity"]
    assert api.post("/orders", sell("4", price="301")).status_code == 201


def test_an_order_judged_before_a_halt_is_not_sent_after_it(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halt_then(name: str) -> None:
        if name == "send.committed":
            set_state(account, "halted")

    monkeypatch.setattr("orders.sending.failpoint", halt_then)

    answer = api.post("/orders", buy())

    assert (answer.status_code, codes(answer)) == (422, ["trading_halted"])
    assert "The desk is at lunch." in answer.json()["detail"]
    assert sent(sim) == []
    steps = [
        step["to"] for step in api.get(f"/orders/{answer.json()['order']['id']}/history").json()
    ]
    assert steps == ["submitting", "denied"]


def test_a_buy_judged_before_the_desk_only_reduces_is_not_sent_after_it_and_a_sell_is(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(sim, "TSLA", "10", "240")
    quote(sim, "TSLA", "250")

    def reduce_then(name: str) -> None:
        if name == "send.committed":
            set_state(account, "reducing")

    monkeypatch.setattr("orders.sending.failpoint", reduce_then)
    assert codes(api.post("/orders", buy())) == ["trading_halted"]
    set_state(account, "active")

    assert api.post("/orders", sell("10")).status_code == 201
    assert len(sent(sim)) == 1


def test_due_exits_wait_while_trading_is_halted_and_are_sent_when_it_is_resumed(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    parent = rest(sim, api, **PROFIT)
    set_state(account, "halted")
    fill(sim, parent)
    poll()
    again()
    assert child(parent, "take_profit").status == "waiting"

    set_state(account, "active")
    again()

    assert child(parent, "take_profit").broker_order_id is not None


def test_an_exit_that_a_halt_overtakes_waits_on(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = rest(sim, api, **PROFIT)

    def halt_then(name: str) -> None:
        if name == "send.committed":
            set_state(account, "halted")

    monkeypatch.setattr("orders.sending.failpoint", halt_then)
    fill(sim, parent)
    poll()
    idle()

    waiting = child(parent, "take_profit")
    assert (waiting.status, waiting.attempts) == ("waiting", 0)
    assert len(sent(sim)) == 1


def test_a_buy_that_follows_a_sell_waits_on_where_the_desk_begins_to_reduce_meanwhile(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(sim, "TSLA", "9", "240")
    parent = rest(sim, api, **SOLD, take_profit={"limit_price": "200"})

    def reduce_then(name: str) -> None:
        if name == "send.committed":
            set_state(account, "reducing")

    monkeypatch.setattr("orders.sending.failpoint", reduce_then)
    fill(sim, parent, price="260")
    poll()

    assert child(parent, "take_profit").status == "waiting"
    assert [each["body"]["side"] for each in sent(sim)] == ["sell"]


def test_a_buy_that_follows_a_sell_and_never_arrived_waits_on_while_reducing(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    hold(sim, "TSLA", "9", "240")
    parent = rest(sim, api, **SOLD, take_profit={"limit_price": "200"})
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "POST", "path": "/v2/orders"}])
    fill(sim, parent, price="260")
    poll()
    assert child(parent, "take_profit").status == "unresolved"
    sim.delete("/sim/log")
    set_state(account, "reducing")

    for _ in range(3):
        jobs.resolve()

    assert child(parent, "take_profit").status == "waiting"
    assert sent(sim) == []


def test_a_buy_that_never_arrived_is_given_up_while_reducing(
    sim: SimulatorServer, api: Api, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(0))
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "POST", "path": "/v2/orders"}])
    lost = api.post("/orders", buy())
    assert lost.status_code == 202
    sim.delete("/sim/log")
    set_state(account, "reducing")

    for _ in range(3):
        jobs.resolve()

    assert api.get(f"/orders/{lost.json()['id']}").json()["status"] == "failed"
    assert sent(sim) == []


def test_an_exit_keeps_what_it_was_judged_by(sim: SimulatorServer, api: Api) -> None:
    exit = child(bought(sim, api, **PROFIT), "take_profit")

    assert exit.broker_order_id is not None
    assert "insufficient_quantity" in [check["code"] for check in exit.verdict]
    assert not exit.adds_risk


def test_cancels_pass_while_trading_is_halted(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    order = rest(sim, api)
    set_state(account, "halted")

    assert api.post(f"/orders/{order.pk}/cancel").status_code == 200
    until(lambda: sim.get("/sim/state")["orders"][0]["status"] != "new")


def test_the_account_and_the_state_say_what_holds(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    assert api.get("/account?fresh=true").json()["trading_state"] == "active"
    set_state(account, "halted")

    assert api.get("/account").json()["trading_state"] == "halted"
    state = api.get("/risk/state").json()
    assert (state["trading_state"], state["breaker"]) == ("halted", "closed")
    assert "The desk is at lunch." in state["reasons"][0]["message"]


# --- the breaker, at work ------------------------------------------------------------------------


def test_a_refusal_for_funds_opens_the_breaker_and_one_order_closes_it_again(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "255")
    sim.post("/sim/faults", [{"kind": "no_funds"}])
    assert api.post("/orders", buy()).json()["code"] == "broker_rejected"

    assert api.get("/risk/state").json()["breaker"] == "open"
    assert codes(api.post("/orders", buy(price="201"))) == ["trading_reducing"]
    assert len(sent(sim)) == 1

    TradingControl.objects.update(retry_at=Now())
    assert api.get("/risk/state").json()["breaker"] == "half_open"
    assert api.post("/orders", buy(price="202")).status_code == 201

    assert api.get("/risk/state").json()["breaker"] == "closed"
    assert api.post("/orders", buy(price="203")).status_code == 201


def test_a_level_is_judged_by_the_figures_of_the_order_itself(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    limit(account, breaker_min_buying_power=1000)
    sim.post("/sim/account", {"buying_power": "999.99"})

    assert "trading_reducing" in codes(api.post("/orders", buy(qty="1")))

    sim.post("/sim/account", {"buying_power": "1000"})
    assert api.post("/orders", buy(qty="1")).status_code == 201


# --- what counts ---------------------------------------------------------------------------------


def test_the_command_names_each_order_that_counts_and_why(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    quote(sim, "TSLA", "255")
    api.get("/account?fresh=true")
    api.post("/orders", buy(client_order_id="late"))
    out = StringIO()

    call_command("commitments", stdout=out)

    first, last = out.getvalue().splitlines()
    assert first.startswith("late (rsi): buy 10 TSLA, ")
    assert "$2,000.00 and 0 shares reserved, $2,000.00 of exposure to come" in first
    assert "after its figures were asked for: they may lack it" in first
    assert last.startswith("main: $2,000.00 reserved beyond the broker's buying power of ")

    Order.objects.update(acknowledged_at=F("acknowledged_at") - timedelta(minutes=1))
    call_command("commitments", stdout=out)
    assert "$0.00 and 0 shares reserved, $2,000.00 of exposure to come" in out.getvalue()
    assert "The broker's figures contain it" in out.getvalue()
