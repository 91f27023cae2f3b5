"""The whole way of an operator, in a real browser against the real simulator."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from orders import cancel_all, jobs
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from positions.models import Position
from reconciliation.models import Break
from reconciliation.run import reconcile
from risk import trading
from tests.conftest import Api, hold, quote
from tests.console.browsing import assert_fits
from tests.console.conftest import PASSWORD, Person
from tests.simulator_server import SimulatorServer


def test_an_operator_sees_a_drift_approves_its_correction_and_the_book_equals_the_broker(
    live_server: LiveServer,
    sim: SimulatorServer,
    settings: LazySettings,
    account: BrokerAccount,
    person: Person,
    page: Page,
    complaints: list[str],
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    person("ann", "Approver")
    hold(sim, "AAPL", "100", "210")
    reconcile(account)  # opens the book: both sides hold 100
    page.goto(f"{live_server.url}/")
    page.get_by_label("User name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="All in order")).to_be_visible()

    hold(sim, "AAPL", "60", "210")  # 40 sold by hand, behind our back
    reconcile(account)
    reconcile(account)

    # The open page finds it out by itself.
    expect(page.get_by_text("AAPL: −40 shares")).to_be_visible(timeout=10_000)
    assert_fits(page)
    page.get_by_role("link", name="Decide the correction").click()
    expect(page.get_by_role("row", name="Shares 100 60 −40")).to_be_visible()
    assert_fits(page)
    page.get_by_label("Comment").fill("Sold by hand, checked with the desk.")
    page.get_by_role("button", name="Approve: add −40 AAPL to the book").click()
    expect(
        page.get_by_text("Our book of AAPL is now 60, the same as the broker's.")
    ).to_be_visible()

    page.get_by_role("link", name="Positions", exact=True).click()
    expect(page.get_by_role("row", name="AAPL 60 60 0")).to_be_visible()
    assert_fits(page)
    page.get_by_role("link", name="AAPL").click()
    expect(page.get_by_role("row", name="−40", exact=False).first).to_be_visible()
    position = Position.objects.get()
    assert (position.qty, position.broker_qty) == (60, 60)
    assert Break.objects.get().status == Break.Status.RESOLVED
    assert complaints == []


def test_a_person_halts_from_the_header_sees_each_outcome_resumes_and_closes_a_position(
    live_server: LiveServer,
    sim: SimulatorServer,
    api: Api,
    order: Callable[..., dict[str, Any]],
    account: BrokerAccount,
    person: Person,
    page: Page,
    complaints: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person("ann", "Operator", "Approver")
    monkeypatch.setattr(cancel_all, "_LONGEST", 0.5)
    hold(sim, "AAPL", "100", "210")
    for symbol, price in (("AAPL", "210"), ("TSLA", "260")):
        quote(sim, symbol, price)
    for number in range(3):
        body = order(client_order_id=f"rests-{number}", qty="1", reference_price=f"{200 + number}")
        assert api.post("/orders", body).status_code == 201
    sim.post("/sim/options", {"cancel_delay": 1000})
    page.goto(f"{live_server.url}/orders/order/")
    page.get_by_label("User name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()

    page.get_by_role("link", name="Halt", exact=True).click()
    expect(page.get_by_text("only cancels pass: no order is taken or sent")).to_be_visible()
    assert_fits(page)
    page.get_by_role("button", name="Halt and cancel 3 orders").click()

    expect(page.get_by_text("0 of 3 confirmed as ended, 3 not yet")).to_be_visible()
    expect(page.get_by_text("none is open any more")).to_be_hidden()
    expect(page.locator("header").get_by_role("link", name="Trading: Halted")).to_be_visible()
    assert_fits(page)
    sim.post("/sim/order", {"client_order_id": "rests-0", "status": "canceled"})
    jobs.poll()
    # The open page finds it out by itself.
    expect(page.get_by_text("1 of 3 confirmed as ended, 2 not yet")).to_be_visible()
    for name in ("rests-1", "rests-2"):
        sim.post("/sim/order", {"client_order_id": name, "status": "canceled"})
    jobs.poll()
    expect(page.get_by_text("3 of 3 confirmed as ended: none is open any more.")).to_be_visible()
    assert set(Order.objects.values_list("status", flat=True)) == {"canceled"}

    page.get_by_role("link", name="Trading control", exact=True).click()
    expect(
        page.get_by_text("ann set the account to halted: Halted from the console")
    ).to_be_visible()
    assert_fits(page)
    page.get_by_text("Resume trading", exact=True).click()
    page.locator("details[open]").get_by_label("Why").fill("The desk is calm again.")
    assert_fits(page)
    until = timezone.now() + timedelta(hours=1)
    trading.override(account.pk, until=until, reason="A known fault.", actor="ben")
    # What is typed stays while the rest of the page refreshes.
    expect(page.get_by_role("row", name="A known fault.")).to_be_visible()
    expect(page.locator("details[open]").get_by_label("Why")).to_have_value(
        "The desk is calm again."
    )
    page.get_by_role("button", name="Resume trading on main").click()
    expect(page.get_by_text("Account main: trading is active now.")).to_be_visible()
    expect(page.get_by_role("row", name="The desk is calm again.")).to_be_visible()
    assert trading.current(account.pk).state == "active"

    page.get_by_role("link", name="Close all positions of main…").click()
    expect(page.get_by_role("row", name="AAPL 100 Sell 100 $210.00 $207.90")).to_be_visible()
    assert_fits(page)
    page.get_by_label("Type the account's name, main, to confirm").fill("main")
    page.get_by_role("button", name="Send 1 order").click()
    expect(page.get_by_role("link", name="flat-")).to_be_visible()
    assert_fits(page)
    assert complaints == []
