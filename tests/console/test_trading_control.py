"""The Trading control page: what it shows, who may change what, and that no look changes it."""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core import signing
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from orders import cancel_all
from orders.halting import halt
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.console import trading_flatten
from positions.models import Position
from reconciliation.run import reconcile
from risk import trading
from risk.models import SelfTest, TradingChange, TradingControl
from tests.conftest import Api, hold, quote, sent
from tests.console.conftest import Browse, Person
from tests.console.test_queries import orders, queries
from tests.orders.standing import polled, rest
from tests.simulator_server import SimulatorServer

real = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def _state(account: BrokerAccount) -> str:
    return trading.current(account.pk).state


def _page(client: Client, address: str = "/trading/", **query: Any) -> str:
    answer = client.get(address, query)
    assert answer.status_code == 200, answer.content
    return str(answer.content.decode())


def _act(client: Client, account: BrokerAccount, action: str, **given: Any) -> HttpResponse:
    values = {"reason": "because", **given}
    return client.post(f"/trading/{account.pk}/{action}/", values)  # type: ignore[return-value]


def _seen() -> str:
    at = TradingControl.objects.get().set_at
    assert at is not None
    return at.isoformat()


def _words(page: str) -> str:
    """The page's text without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


# --- what it shows -----------------------------------------------------------------------------


def test_the_page_shows_state_reason_person_and_history(
    browse: Browse, account: BrokerAccount
) -> None:
    trading.set_state(account.pk, "halted", reason="smoke in the room", actor="ben")

    words = _words(_page(browse("Viewer")))

    assert "Trading is Halted" in words
    assert "ben set the account to halted: smoke in the room" in words
    assert "Set by a person Halted, by ben" in words
    assert "Set by a person active halted ben smoke in the room" in words


def test_the_page_shows_how_far_each_trigger_of_the_breaker_has_gone(
    browse: Browse, account: BrokerAccount
) -> None:
    BrokerAccount.objects.update(equity=Decimal(97000), buying_power=Decimal(2500))
    TradingControl.objects.create(account=account, session_equity=Decimal(100000))

    words = _words(_page(browse("Viewer")))

    assert "Orders that failed, of those in the window – 10 % nothing to measure" in words
    assert "Failures in a row 0 5" in words
    assert "Refusals for want of funds 0 1" in words
    assert "Equity lost in this session 3 % 5 % 60 %" in words
    assert "Buying power (opens below) $2,500.00 $1,000.00 40 %" in words


def test_a_trigger_that_is_reached_says_so(browse: Browse, account: BrokerAccount) -> None:
    BrokerAccount.objects.update(equity=Decimal(90000), buying_power=Decimal(0))
    TradingControl.objects.create(account=account, session_equity=Decimal(100000))

    words = _words(_page(browse("Viewer")))

    assert "10 % 5 % Reached" in words
    assert "$0.00 $1,000.00 Reached" in words


def test_the_page_tells_when_every_control_was_last_tried_and_what_did_not_fire(
    browse: Browse, account: BrokerAccount
) -> None:
    assert "Never ran" in _words(_page(browse("Viewer")))
    results = [{"control": "buying power", "ok": False}, {"control": "wash trade", "ok": True}]

    SelfTest.objects.create(account=account, actor="ann", passed=False, results=results)

    assert "Did not fire buying power," in _words(_page(browse("Operator")))


def test_the_page_without_an_account_says_how_one_comes_to_be(browse: Browse) -> None:
    client = browse("Operator")

    assert "create_token" in _page(client)
    assert "nothing to halt" in _page(client, "/trading/halt/")


def test_every_page_names_the_state_and_is_loud_only_where_it_is_not_active(
    browse: Browse, account: BrokerAccount
) -> None:
    client = browse("Viewer")
    badge = f'id="state-{account.pk}" href="/trading/" class="{{}}"'
    calm = _page(client, "/orders/order/")
    trading.set_state(account.pk, "reducing", reason="careful", actor="ben")
    amber = _page(client, "/orders/order/")
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")
    red = _page(client, "/live/header/")

    assert badge.format("quiet") in calm
    assert badge.format("badge amber") in amber
    assert badge.format("badge red") in red
    assert "Halted" in red


def test_halting_is_on_every_page_of_who_may(browse: Browse, account: BrokerAccount) -> None:
    link = '<a id="halt" class="button halt" href="/trading/halt/">Halt</a>'
    operator, viewer = browse("Operator"), browse("Viewer")

    assert all(link in _page(operator, path) for path in ("/", "/orders/order/", "/trading/"))
    assert not any(link in _page(viewer, path) for path in ("/", "/orders/order/", "/trading/"))


def test_who_may_change_nothing_is_shown_no_form(browse: Browse, account: BrokerAccount) -> None:
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")
    viewer = _page(browse("Viewer"))
    operator = _page(browse("Operator"))
    approver = _page(browse("Approver"))

    forms = f"/trading/{account.pk}/"
    assert "What you can do" not in viewer
    assert forms not in viewer
    assert f"{forms}resume/" not in operator
    assert f"{forms}bar/" in operator
    assert {
        f"{forms}{each}/" in approver for each in ("resume", "reduce", "override", "unbar")
    } == {True}


def test_a_hundred_changes_take_as_many_queries_as_one_and_the_newest_50_are_shown(
    browse: Browse, account: BrokerAccount
) -> None:
    client = browse("Operator", "Approver")
    trading.set_state(account.pk, "halted", reason="first", actor="ben")
    few = queries(client, "/trading/")
    TradingChange.objects.bulk_create(
        TradingChange(account=account, kind="person", reason=f"change {number}", actor="ben")
        for number in range(100)
    )

    many = queries(client, "/trading/")

    assert len(many) == len(few), "\n".join(many)
    assert _page(client).count(">change ") == 50


# --- who may, and how --------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["Viewer", "Approver", "Risk manager", "Administrator"])
def test_who_may_not_halt_gets_403(browse: Browse, account: BrokerAccount, group: str) -> None:
    client = browse(group)

    given = {"account": account.pk, "reason": "stop", "cancel": "yes"}
    assert client.get("/trading/halt/").status_code == 403
    assert client.post("/trading/halt/", given).status_code == 403
    assert _act(client, account, "bar").status_code == 403
    assert _state(account) == "active"
    assert not TradingChange.objects.exists()


@pytest.mark.parametrize("group", ["Viewer", "Operator", "Risk manager", "Administrator"])
def test_who_may_not_resume_gets_403(browse: Browse, account: BrokerAccount, group: str) -> None:
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")
    client = browse(group)

    for action in ("resume", "override", "unbar"):
        given = {"seen": _seen(), "until": "1h"}
        assert _act(client, account, action, **given).status_code == 403, action
    loosens = {"from": "halted", "seen": _seen()}
    assert _act(client, account, "reduce", **loosens).status_code == 403
    assert client.get("/trading/flatten/", {"account": account.pk}).status_code == 403
    assert _state(account) == "halted"
    assert TradingChange.objects.count() == 1


@pytest.mark.django_db
def test_somebody_without_a_group_or_a_login_sees_nothing(
    browse: Browse, account: BrokerAccount
) -> None:
    nobody = browse()
    for path in ("/trading/", "/trading/halt/", "/trading/halted/", "/live/trading/"):
        assert nobody.get(path).status_code == 403, path
    for path in ("/trading/", "/trading/halt/", "/trading/halted/", "/trading/flatten/"):
        assert Client().get(path).headers["Location"] == f"/login/?next={path}"
    for path in ("/live/trading/", "/live/halted/"):
        assert Client().get(path).headers["HX-Refresh"] == "true"


def test_a_forged_post_changes_nothing(person: Person, account: BrokerAccount) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("ann", "Operator", "Approver"))
    trading.set_state(account.pk, "reducing", reason="careful", actor="ben")

    given = {"account": account.pk, "reason": "stop", "cancel": "yes"}
    assert client.post("/trading/halt/", given).status_code == 403
    for action in ("reduce", "resume", "override", "end-override", "bar", "unbar"):
        refused = _act(client, account, action, seen=_seen(), until="1h")
        assert refused.status_code == 403, action
    assert client.post("/trading/flatten/", {"name": "main", "plan": ""}).status_code == 403
    assert _state(account) == "reducing"
    assert TradingChange.objects.count() == 1


def test_no_get_changes_anything(browse: Browse, account: BrokerAccount) -> None:
    client = browse("Operator", "Approver")

    client.get("/trading/halt/", {"account": str(account.pk), "reason": "stop", "cancel": "yes"})
    client.head("/trading/halt/")
    for action in ("reduce", "resume", "override", "end-override", "bar", "unbar"):
        assert client.get(f"/trading/{account.pk}/{action}/").status_code == 405, action
    for path in ("/trading/", "/trading/halted/", "/live/trading/", "/live/halted/"):
        assert client.post(path).status_code == 405, path

    assert _state(account) == "active"
    assert not TradingChange.objects.exists()


def test_an_unknown_form_or_account_is_no_page(browse: Browse, account: BrokerAccount) -> None:
    client = browse("Operator", "Approver")

    assert _act(client, account, "explode").status_code == 404
    assert client.post("/trading/9999/bar/", {"reason": "because"}).status_code == 404
    assert client.get("/trading/halted/", {"of": "1-x"}).status_code == 404
    assert client.get("/live/trading/", {"account": "9999"}).status_code == 404


# --- halting -----------------------------------------------------------------------------------


@real
def test_one_press_halts_cancels_and_leads_to_what_became_of_each_order(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, browse: Browse
) -> None:
    ours = rest(sim, api, order(client_order_id="ours"))
    client = browse("Operator")
    form = _page(client, "/trading/halt/")
    assert "Halt and cancel 1 order</button>" in form
    assert ">Halted from the console</textarea>" in form

    answer = client.post(
        "/trading/halt/",
        {"account": account.pk, "reason": "Halted from the console", "cancel": "yes"},
        follow=True,
    )

    page = answer.content.decode()
    assert _state(account) == "halted"
    ours.refresh_from_db()
    assert ours.status == "canceled"
    assert "1 of 1 confirmed as ended: none is open any more." in page
    assert 'hx-trigger="every 1s"' not in page
    assert f"/orders/order/{ours.pk}/change/" in page
    assert "Account main is halted: only cancels pass until a person resumes." in page


@real
def test_the_page_does_not_say_done_before_each_cancel_is_confirmed(
    sim: SimulatorServer,
    api: Api,
    account: BrokerAccount,
    order: MakeOrder,
    browse: Browse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cancel_all, "_LONGEST", 0.5)
    slow = rest(sim, api, order(client_order_id="slow"))
    sim.post("/sim/options", {"cancel_delay": 1000})
    client = browse("Operator")

    given = {"account": account.pk, "reason": "stop", "cancel": "yes"}
    answer = client.post("/trading/halt/", given, follow=True)
    where = answer.request["QUERY_STRING"]
    waits = client.get(f"/live/halted/?{where}").content.decode()
    sim.post("/sim/order", {"client_order_id": "slow", "status": "canceled"})
    polled(slow.pk, "canceled")
    done = client.get(f"/live/halted/?{where}").content.decode()

    assert "1 of 1 orders are not confirmed cancelled" in _words(answer.content.decode())
    assert "0 of 1 confirmed as ended, 1 not yet: what is open may still fill." in waits
    assert 'hx-trigger="every 1s"' in waits
    assert "1 of 1 confirmed as ended: none is open any more." in done
    assert 'hx-trigger="every 1s"' not in done


@real
def test_the_halt_stands_and_says_what_is_not_certain_when_the_broker_is_down(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, browse: Browse
) -> None:
    rest(sim, api, order(client_order_id="works"))
    sim.stop()

    given = {"account": account.pk, "reason": "stop", "cancel": "yes", "suspend": "on"}
    answer = browse("Operator").post("/trading/halt/", given, follow=True)

    sim.start()
    words = _words(answer.content.decode())
    assert _state(account) == "halted"
    assert "Account main: The broker could not be asked to cancel" in words
    assert "Account main: It is not confirmed that the broker bars new orders." in words
    assert "0 of 1 confirmed as ended, 1 not yet" in words


@real
def test_orders_that_were_not_placed_here_are_told_beside(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    body = {"symbol": "KO", "qty": "5", "side": "buy", "type": "limit", "time_in_force": "day"}
    theirs = sim.trading("POST", "/v2/orders", json={**body, "limit_price": "1"}).json()["id"]

    given = {"account": account.pk, "reason": "stop", "cancel": "yes"}
    page = browse("Operator").post("/trading/halt/", given, follow=True).content.decode()

    assert f"broker order {theirs}: cancelled. It was not placed by Ordinis." in page
    assert "No order of Ordinis was open." in page


@real
def test_orders_are_left_working_where_that_was_pressed(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, browse: Browse
) -> None:
    works = rest(sim, api, order(client_order_id="works"))

    given = {"account": account.pk, "reason": "stop", "cancel": "no"}
    answer = browse("Operator").post("/trading/halt/", given)

    assert answer.headers["Location"] == "/trading/"
    assert _state(account) == "halted"
    works.refresh_from_db()
    assert (works.status, works.cancel_requested_at) == ("new", None)


def test_a_halt_needs_a_reason_and_an_account(browse: Browse, account: BrokerAccount) -> None:
    client = browse("Operator")
    incomplete: list[dict[str, Any]] = [
        {"account": account.pk, "reason": " "},
        {"reason": "stop"},
        {"account": "9" * 40, "reason": "stop"},
    ]
    for given in incomplete:
        answer = client.post("/trading/halt/", given)

        assert answer.status_code == 400
        assert 'role="alert"' in answer.content.decode()
    assert _state(account) == "active"


@real
def test_of_several_accounts_those_chosen_are_halted(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    second = BrokerAccount.objects.create(name="second", broker="simulator", mode="simulated")
    third = BrokerAccount.objects.create(name="third", broker="simulator", mode="simulated")
    client = browse("Operator")
    assert _page(client, "/trading/halt/").count(" checked>") == 3
    assert _page(client, "/trading/halt/", account=second.pk).count(" checked>") == 1

    given = {"account": [second.pk, third.pk], "reason": "stop", "cancel": "yes"}
    page = client.post("/trading/halt/", given, follow=True).content.decode()

    assert [_state(each) for each in (account, second, third)] == ["active", "halted", "halted"]
    assert "Account second" in page
    assert "Account third" in page


# --- the other forms ---------------------------------------------------------------------------


def test_a_resume_needs_a_reason_and_is_in_the_history(
    browse: Browse, account: BrokerAccount
) -> None:
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")
    client = browse("Approver")

    without = _act(client, account, "resume", seen=_seen(), reason="  ")
    still = _state(account)
    done = _act(client, account, "resume", seen=_seen(), reason="The desk is calm again.")

    assert without.status_code == 400
    assert "Say why" in without.content.decode()
    assert still == "halted"
    assert (done.status_code, done.headers["Location"]) == (302, "/trading/")
    assert _state(account) == "active"
    newest = TradingChange.objects.first()
    assert newest is not None
    assert (newest.to_state, newest.reason) == ("active", "The desk is calm again.")
    assert newest.actor == "approver"


def test_a_resume_does_not_undo_a_halt_that_came_after_the_page_was_opened(
    browse: Browse, account: BrokerAccount
) -> None:
    trading.set_state(account.pk, "reducing", reason="careful", actor="ben")
    seen = _seen()
    trading.set_state(account.pk, "halted", reason="stop", actor="cat")

    answer = _act(browse("Approver"), account, "resume", seen=seen)

    assert answer.status_code == 409
    assert "Somebody has set the trading state since you looked." in answer.content.decode()
    assert _state(account) == "halted"


@pytest.mark.parametrize("seen", ["", "yesterday"])
def test_a_resume_without_what_was_seen_changes_nothing(
    browse: Browse, account: BrokerAccount, seen: str
) -> None:
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")

    assert _act(browse("Approver"), account, "resume", seen=seen).status_code == 409
    assert _state(account) == "halted"


def test_an_operator_reduces_and_an_approver_loosens_a_halt_to_reducing(
    browse: Browse, account: BrokerAccount
) -> None:
    operator, approver = browse("Operator"), browse("Approver")

    assert _act(operator, account, "reduce").status_code == 302
    reducing = _state(account)
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")
    refused = _act(operator, account, "reduce")
    halted = _state(account)
    loosened = _act(approver, account, "reduce", seen=_seen(), **{"from": "halted"})

    assert (reducing, halted, _state(account)) == ("reducing", "halted", "reducing")
    assert refused.status_code == 409
    assert "stricter than reducing" in refused.content.decode()
    assert loosened.status_code == 302


def test_an_override_has_an_end_within_24_hours_and_can_be_ended(
    browse: Browse, account: BrokerAccount
) -> None:
    client = browse("Approver")

    done = _act(client, account, "override", until="2h")
    control = TradingControl.objects.get()
    assert done.status_code == 302
    assert control.override_until is not None
    assert timedelta(minutes=119) < control.override_until - timezone.now() < timedelta(hours=2)
    assert control.override_actor == "approver"
    assert "End the override" in _page(client)

    assert _act(client, account, "end-override").status_code == 302
    assert TradingControl.objects.get().override_until is None


@pytest.mark.parametrize("until", ["", "25h", "2d", "soon", "2020-01-01 09:30", "2099-01-01 09:30"])
def test_an_override_without_a_sensible_end_is_refused(
    browse: Browse, account: BrokerAccount, until: str
) -> None:
    answer = _act(browse("Approver"), account, "override", until=until)

    assert answer.status_code == 400
    assert 'role="alert"' in answer.content.decode()
    assert not TradingChange.objects.exists()


@real
def test_new_orders_are_barred_and_allowed_at_the_broker(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    operator, approver = browse("Operator"), browse("Approver")

    barred = operator.post(f"/trading/{account.pk}/bar/", {"reason": "keys leaked"}, follow=True)
    there = sim.trading("GET", "/v2/account/configurations").json()["suspend_trade"]
    allowed = approver.post(f"/trading/{account.pk}/unbar/", {"reason": "new keys"}, follow=True)

    assert "the broker confirms that it bars new orders" in barred.content.decode()
    assert there is True
    assert "the broker confirms that it allows new orders" in allowed.content.decode()
    assert not sim.trading("GET", "/v2/account/configurations").json()["suspend_trade"]


@real
def test_a_bar_that_is_not_confirmed_is_not_called_one(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    sim.stop()

    address = f"/trading/{account.pk}/bar/"
    page = browse("Operator").post(address, {"reason": "stop"}, follow=True).content.decode()

    sim.start()
    assert "It is not confirmed that the broker bars new orders." in page
    assert "Not confirmed" in _words(page)


# --- flattening --------------------------------------------------------------------------------


def _flatten(client: Client, account: BrokerAccount, **given: str) -> Any:
    page = _page(client, "/trading/flatten/", account=account.pk)
    plan = re.search(r'name="plan" value="([^"]+)"', page)
    assert plan is not None
    values = {"plan": plan[1], "name": account.name, **given}
    return client.post(f"/trading/flatten/?account={account.pk}", values), values


@real
def test_flattening_shows_its_orders_first_and_sends_just_those(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    hold(sim, "AAPL", "100", "210")
    quote(sim, "AAPL", "210")
    reconcile(account)
    client = browse("Approver")
    words = _words(_page(client, "/trading/flatten/", account=account.pk, slippage="2"))

    answer, values = _flatten(client, account)
    again = client.post(f"/trading/flatten/?account={account.pk}", values)

    assert "AAPL 100 Sell 100 $210.00 $205.80" in words
    order = Order.objects.get()
    for page in (answer.content.decode(), again.content.decode()):
        assert f"/orders/order/{order.pk}/change/" in page
    assert (order.limit_price, order.strategy.name) == (Decimal("207.90"), "operator")
    assert order.client_order_id.startswith("flat-")
    assert len(sent(sim)) == 1
    polled(order.pk, "filled")
    assert Position.objects.get(symbol="AAPL").qty == 0


@real
def test_flattening_needs_the_accounts_name_typed(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    hold(sim, "AAPL", "100", "210")
    client = browse("Approver")

    for name in ("", "Main", "other"):
        answer, _ = _flatten(client, account, name=name)

        assert answer.status_code == 400
        assert "Type the account&#x27;s name, main, to confirm." in answer.content.decode()
    assert sent(sim) == []
    assert not Order.objects.exists()


@real
def test_prices_that_have_grown_old_are_not_sent(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(sim, "AAPL", "100", "210")
    monkeypatch.setattr(trading_flatten, "_GOOD_FOR", -1)

    answer, _ = _flatten(browse("Approver"), account)

    assert answer.status_code == 400
    assert "older than two minutes" in answer.content.decode()
    assert sent(sim) == []


@real
def test_a_form_that_was_tampered_with_sends_nothing(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    hold(sim, "AAPL", "100", "210")
    client = browse("Approver")
    other = signing.dumps({"account": account.pk, "token": "0" * 16, "orders": []}, salt="other")
    elsewhere = {"account": account.pk + 1, "token": "0" * 16, "orders": []}
    foreign = signing.dumps(elsewhere, salt="ordinis.console.trading_flatten")

    for plan in ("", "x", other, foreign):
        answer, _ = _flatten(client, account, plan=plan)
        assert answer.status_code == 404, plan
    assert sent(sim) == []


@real
def test_a_halted_account_is_not_flattened_and_the_page_says_what_to_do(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    hold(sim, "AAPL", "100", "210")
    client = browse("Approver")
    _, values = _flatten(client, account, name="not yet")
    halt(account, reason="stop", actor="ben")

    shown = _page(client, "/trading/flatten/", account=account.pk)
    given = {**values, "name": account.name}
    answer = client.post(f"/trading/flatten/?account={account.pk}", given)

    assert "sets it to reduce only first" in shown
    assert "AAPL" not in shown
    assert answer.status_code == 409
    assert sent(sim) == []
    assert not Order.objects.exists()


@real
def test_the_flatten_page_says_when_there_is_nothing_to_close_or_the_broker_is_down(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    client = browse("Approver")
    empty = _page(client, "/trading/flatten/")
    wrong = client.get("/trading/flatten/", {"slippage": "6"})
    words = client.get("/trading/flatten/", {"slippage": "much"})
    sim.stop()
    down = client.get("/trading/flatten/")
    sim.start()

    assert "The broker holds no position of main" in empty
    assert (wrong.status_code, words.status_code) == (400, 400)
    assert "The slippage is 0 to 5 per cent." in wrong.content.decode()
    assert down.status_code == 503
    assert "positions could not be read" in down.content.decode()


def test_pages_carry_no_inline_script_or_style(browse: Browse, account: BrokerAccount) -> None:
    orders(account, 3)
    trading.set_state(account.pk, "halted", reason="stop", actor="ben")
    client = browse("Operator", "Approver")
    for path in (
        "/trading/",
        "/trading/halt/",
        f"/trading/halted/?of={account.pk}-1790000000000000",
    ):
        answer = client.get(path)
        page = answer.content.decode()

        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "<style" not in page
        assert " style=" not in page
        assert "<script>" not in page
