"""The way of people from a break to its end, in a real browser against the real simulator."""

import pytest
from django.conf import LazySettings
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from ordinis.accounts.models import BrokerAccount
from positions.models import Position
from reconciliation.models import Break, Rebuild
from reconciliation.run import reconcile
from tests.conftest import hold
from tests.console.browsing import assert_fits
from tests.console.conftest import PASSWORD, Person
from tests.simulator_server import SimulatorServer


@pytest.fixture
def drifted(sim: SimulatorServer, settings: LazySettings, account: BrokerAccount) -> Break:
    """100 AAPL and 50 KO in the book; 40 AAPL sold by hand at the broker, seen twice."""
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "AAPL", "100", "210")
    hold(sim, "KO", "50", "60")
    reconcile(account)
    hold(sim, "AAPL", "60", "210")
    reconcile(account)
    reconcile(account)
    return Break.objects.get()


def enter(page: Page, url: str, name: str) -> None:
    page.goto(url)
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_a_break_is_taken_commented_on_and_its_correction_approved(
    live_server: LiveServer,
    drifted: Break,
    person: Person,
    page: Page,
    complaints: list[str],
) -> None:
    person("ann", "Operator", "Approver")
    enter(page, f"{live_server.url}/reconciliation/break/", "ann")

    # Several at once, from the list.
    page.get_by_label("All on this page").check()
    expect(page.get_by_label("Choose AAPL, quantity")).to_be_checked()
    assert_fits(page)
    page.get_by_role("button", name="Assign to me").click()
    expect(page.get_by_text("1 break assigned to you.")).to_be_visible()
    page.get_by_role("link", name="AAPL", exact=True).click()
    expect(page.get_by_role("row", name="Shares 100 60 −40", exact=True)).to_be_visible()

    # By keyboard alone.
    page.locator("summary", has_text="Comment").press("Enter")
    page.locator("details[open]").get_by_label("Comment").fill("Asked the desk: sold by hand.")
    assert_fits(page)
    page.get_by_role("button", name="Add the comment").press("Enter")
    expect(page.get_by_text("Your comment is in the history.")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="Asked the desk")).to_be_visible()

    page.get_by_role("link", name="Decide the correction").click()
    expect(page.get_by_role("row", name="AAPL in our book, shares 100 60")).to_be_visible()
    assert_fits(page)
    page.get_by_label("Comment").fill("The desk confirms it.")
    page.get_by_role("button", name="Approve: add −40 AAPL to the book").click()
    expect(page.get_by_text("Our book of AAPL is now 60")).to_be_visible()
    assert_fits(page)
    page.get_by_role("link", name="The break", exact=True).click()
    expect(
        page.get_by_role("listitem").filter(has_text="The desk confirms it.").first
    ).to_be_visible()
    assert_fits(page)

    page.get_by_role("link", name="Reconciliation", exact=True).click()
    page.get_by_role("button", name="Dry run of main: show what would be done").click()
    expect(page.get_by_text("A dry run: nothing was kept of it but this report.")).to_be_visible()
    assert_fits(page)
    page.get_by_role("link", name="The broker's answer", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the raw evidence").click()
    assert '"AAPL"' in download.value.path().read_text()
    assert_fits(page)

    drifted.refresh_from_db()
    assert drifted.status == Break.Status.RESOLVED
    assert drifted.assignee is not None
    assert Position.objects.get(symbol="AAPL").qty == 60
    assert complaints == []


def test_a_book_is_rebuilt_in_an_emergency_once_trading_is_halted(
    live_server: LiveServer,
    drifted: Break,
    person: Person,
    page: Page,
    complaints: list[str],
) -> None:
    person("ann", "Operator", "Approver")
    enter(page, f"{live_server.url}/reconciliation/rebuild/", "ann")

    page.get_by_role("link", name="Emergency rebuild…").click()
    expect(page.get_by_text("Halt trading of main first")).to_be_visible()
    assert_fits(page)
    page.get_by_role("link", name="Halt", exact=True).click()
    page.get_by_label("Why").fill("The book can not be trusted.")
    page.get_by_role("button", name="Halt, and leave open orders working").click()
    page.goto(f"{live_server.url}/reconciliation/rebuild/now/")
    expect(page.get_by_role("row", name="AAPL 100 60")).to_be_visible()
    assert_fits(page)
    page.get_by_label("Type the account's name, main, to confirm").fill("main")
    page.get_by_label("Why").fill("The broker is right.")
    page.get_by_role("button", name="Rebuild the book of main").click()
    expect(page.get_by_text("Trading stays halted until somebody resumes it.")).to_be_visible()
    assert_fits(page)

    assert Rebuild.objects.get().actor == "ann"
    assert Position.objects.get(symbol="AAPL").qty == 60
    assert complaints == []
