"""A headless Chromium, for the browser test and the screenshots: the machine's own, else the one
that playwright brings. Needs the development packages; never imported by the running app.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Playwright

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_INSTALL_SECONDS: Final = 300


class NoBrowser(Exception):
    """There is none, and none could be installed; the message says what to do."""


def launch(playwright: Playwright) -> Browser:
    """Starts a browser. Raises NoBrowser."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and not Path(playwright.chromium.executable_path).exists():
        _install()
    return playwright.chromium.launch(executable_path=found, args=list(_FLAGS))


def _install() -> None:
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoBrowser(
            "No Chromium on PATH, and `playwright install chromium` failed. Install Chromium or "
            "Chrome, then try again."
        ) from error
