"""Pages that stay open while the fleet behind them is filled, paused, killed and refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from servers import wait_until

from worker.store.connection import connect
from worker.throttle.holds import hold, release

from .scenes import BAD, Stage
from .watching import Heard, legend, status_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
FIGURES = ("embedded", "evicted", "dead", "pending", "leased")


class Watched:
    """The overview and the page of `wiki`, each opened once."""

    def __init__(self, stage: Stage, browser: Browser) -> None:
        self._stage = stage
        self.heard = Heard(urlsplit(stage.url).netloc)
        self._pages = [browser.new_page() for _ in range(2)]
        for page, path in zip(self._pages, ("", "collections/wiki")):
            self.heard.listen(page)
            page.goto(stage.url + path)
            page.evaluate("window.opened = true")

    def until(self, state: str, title: str) -> None:
        """Wait until both say this, and the figures that `vec status --json` says then."""
        seen: list[object] = []

        def agree() -> bool:
            said = status_of(self._stage)
            shown = [(page.title(), legend(page)) for page in self._pages]
            seen[:] = [said, *shown]
            return (
                said["state"] == state
                and shown[0][0] == f"{title} - Vectors"
                and shown[1][0] == f"wiki: {state} - Vectors"
                and all(
                    {name: figures.get(name, 0) for name in FIGURES}
                    == {name: said[name] for name in FIGURES}
                    for _, figures in shown
                )
            )

        deadline = time.monotonic() + 60
        while not agree():
            assert time.monotonic() < deadline, (state, title, seen)
            time.sleep(0.3)
        assert all(page.evaluate("window.opened") for page in self._pages)

    def says(self, words: str) -> None:
        """Wait until both have these words."""
        for page in self._pages:
            found = page.get_by_text(words).first
            wait_until(found.is_visible, 40, f"{words!r} on {page.url}", 0.2)


def test_open_pages_say_at_each_turn_what_vec_status_says(tmp_path: Path, browser: Browser) -> None:
    with Stage(tmp_path) as stage:
        stage.api.faults(latency=1)
        wiki = stage.add("wiki", 20_000)
        redis = connect(stage.settings)
        watched = Watched(stage, browser)
        watched.until("waiting", "No worker: 20,000 texts to do")

        worker = stage.worker()
        stage.until("wiki", lambda it: it.embedded > 200)
        hold(redis, "vec", "wiki", "the night's backup")
        stage.until("wiki", lambda it: not it.leased)
        watched.until("paused", f"Paused: {wiki.status().backlog:,} texts to do")
        watched.says("the night's backup")

        stage.api.faults(latency=30)
        release(redis, "vec", "wiki")
        stage.until("wiki", lambda it: it.leased > 100)
        worker.kill()
        watched.until("waiting", f"No worker: {wiki.status().backlog:,} texts to do")
        watched.says("leased")

        stage.api.faults(rules=[{"answer": "revoked"}])
        stage.worker()
        stage.until("wiki", lambda it: it.state == "halted")
        watched.until("halted", f"Halted: {wiki.status().backlog:,} texts to do")

        stage.line.refuse()
        watched.says("Redis does not answer")
        stage.line.refuse(False)
        watched.until("halted", f"Halted: {wiki.status().backlog:,} texts to do")

        stage.api.faults(rules=[BAD])
        stage.add("wiki", 20_010, bad=10)
        stage.run("resume", "wiki")
        stage.until("wiki", lambda it: not it.backlog)
        watched.until("idle", "Done, but for 10 texts that cannot be embedded")

        stage.api.faults(quota=stage.api.log().charged)
        stage.add("wiki", 20_400)
        stage.until("wiki", lambda it: it.state == "paused")
        watched.until("paused", f"Paused: {wiki.status().backlog:,} texts to do")
        watched.says("Limit exceeded")
        assert not watched.heard.strangers
        assert not [one for one in watched.heard.complaints if "status of 503" not in one]
