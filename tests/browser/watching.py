"""What a page shows, what it asks for, and what `vec status` says meanwhile.

Tests that import this are skipped where there is no browser.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright")
pytest.importorskip("axe_playwright_python")

from .chromium import PROGRAM  # noqa: E402
from .scenes import Stage  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, Request

if not PROGRAM.exists():
    pytest.skip(f"{PROGRAM} is not installed", allow_module_level=True)


class Heard:
    """What pages asked other hosts for, and what Chromium complained of."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self.strangers: list[str] = []
        self.complaints: list[str] = []

    def listen(self, page: Page) -> None:
        """Listen to a page from now on."""
        page.on("request", self._request)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))

    def _request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self._ours:
            self.strangers.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


def status_of(stage: Stage) -> dict[str, object]:
    """What `vec status wiki --json` says."""
    said: dict[str, object] = json.loads(stage.run("status", "wiki", "--json"))
    return said


def legend(page: Page) -> dict[str, int]:
    """The figures below the bar, as they are seen."""
    words = page.locator(".legend").first.inner_text().split()
    names = [word for word in words if word.isalpha()]
    return dict(zip(names, [int(w.replace(",", "")) for w in words if w[0].isdigit()]))
