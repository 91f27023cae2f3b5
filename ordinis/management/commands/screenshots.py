"""`manage.py screenshots`: pictures of the running console, for the README.

Only looks: logs in, opens pages, writes PNG files. Decides nothing.
"""

from argparse import ArgumentParser
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

if TYPE_CHECKING:
    from playwright.sync_api import Page

_DECIDE = "Decide the correction"


class Command(BaseCommand):
    help = "Takes pictures of Today, a correction, a break, positions, Trading control, an order."
    requires_system_checks: list[str] = []  # it only talks to the running console

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--url", default=f"http://127.0.0.1:{settings.PORT}")
        parser.add_argument("--username", required=True, help="Somebody who may decide.")
        parser.add_argument("--password", help="Asked for when left out.")
        parser.add_argument("--out", type=Path, default=Path("docs/images"))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from playwright.sync_api import Error, sync_playwright

            from ordinis.console.browser import NoBrowser, launch
        except ImportError as error:
            raise CommandError(
                "Playwright is not installed: run `make setup`, which installs what development "
                "needs."
            ) from error
        password = options["password"] or getpass(f"Password of {options['username']}: ")
        out: Path = options["out"]
        out.mkdir(parents=True, exist_ok=True)
        try:
            with sync_playwright() as playwright, launch(playwright) as browser:
                for suffix in ("", "-dark"):
                    page = browser.new_context(
                        viewport={"width": 1280, "height": 860},
                        color_scheme="dark" if suffix else "light",
                    ).new_page()
                    self._log_in(page, options["url"], options["username"], password)
                    self._take(page, out, suffix)
        except NoBrowser as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(
                f"The console at {options['url']} could not be photographed: {error.message}"
            ) from error

    def _log_in(self, page: "Page", url: str, username: str, password: str) -> None:
        page.goto(f"{url}/login/")
        page.get_by_label("User name").fill(username)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        if page.get_by_role("button", name="Log out").count() == 0:
            raise CommandError(f"{username} could not log in at {url}. Check name and password.")

    def _take(self, page: "Page", out: Path, suffix: str) -> None:
        decide = page.get_by_role("link", name=_DECIDE).first
        if decide.count() == 0:
            raise CommandError(
                "No correction waits that this person may decide, so there is no drift to show. "
                "Trade by hand at the simulator (its page is at /sim/), wait until two "
                "comparisons have seen it, and try again."
            )
        self._shoot(page, out / f"today{suffix}.png")
        decide.click()
        self._shoot(page, out / f"correction{suffix}.png")
        page.get_by_role("link", name="Breaks", exact=True).click()
        page.locator("#result_list tbody th a").first.click()
        self._shoot(page, out / f"break{suffix}.png")
        page.get_by_role("link", name="Positions", exact=True).click()
        self._shoot(page, out / f"positions{suffix}.png")
        page.get_by_role("link", name="Trading control", exact=True).click()
        self._shoot(page, out / f"trading{suffix}.png")
        page.get_by_role("link", name="Orders", exact=True).click()
        page.get_by_role("link", name="Filled", exact=True).click()
        first = page.locator("#result_list tbody th a").first
        if first.count() == 0:
            raise CommandError("No order has filled yet; let a strategy trade, and try again.")
        first.click()
        self._shoot(page, out / f"order{suffix}.png")

    def _shoot(self, page: "Page", path: Path) -> None:
        page.screenshot(path=path)
        self.stdout.write(f"{path}")
