"""Debian's Chromium, driven by Playwright. Its own download is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PROGRAM = Path("/usr/bin/chromium")
_OPTIONS = [
    "--no-sandbox",  # as root, in a container
    "--disable-gpu",
    "--disable-lcd-text",  # letters without coloured edges: smaller pictures
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window, ended with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()
