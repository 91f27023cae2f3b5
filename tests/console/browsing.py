"""A real browser for tests of pages: its page, what it complains of, and whether a page fits."""

import os
from collections.abc import Iterator

import pytest
from django.db import connections
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

from ordinis.console.browser import NoBrowser, launch


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


def assert_fits(page: Page) -> None:
    """Nothing makes the page itself scroll sideways on a small screen."""
    page.set_viewport_size({"width": 360, "height": 740})
    wide, shown = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert wide <= shown, f"{page.url} is {wide} px wide on a screen of {shown} px"
