"""The whole way of an operator, in a real browser against the real simulator."""

import os
from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.db import connections
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect, sync_playwright
from pytest_django.live_server_helper import LiveServer

from ordinis.accounts.models import BrokerAccount
from ordinis.console.browser import NoBrowser, launch
from positions.models import Position
from reconciliation.models import Break
from reconciliation.run import reconcile
from tests.conftest import hold
from tests.console.conftest import PASSWORD, Person
from tests.simulator_server import SimulatorServer


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    # Playwright runs an event loop in this thread, where Django would refuse its own queries.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    with sync_playwright() as playwright:
        try:
            started = launch(playwright)
        except NoBrowser as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        with started:
            yield started
            # Inside that loop this thread has connections of its own, which nobody else closes.
            connections.close_all()


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """Whatever the browser complains of: scripts that fail, policies that are broken."""
    found: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            found.append(message.text)

    def answered(response: Response) -> None:
        if response.status >= 400:
            found.append(f"{response.status} {response.url}")

    page.on("console", hear)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("response", answered)
    return found


@pytest.fixture
def page(browser: Browser) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(10_000)
    return page


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


def assert_fits(page: Page) -> None:
    """Nothing makes the page itself scroll sideways on a small screen."""
    page.set_viewport_size({"width": 360, "height": 740})
    wide, shown = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert wide <= shown, f"{page.url} is {wide} px wide on a screen of {shown} px"
