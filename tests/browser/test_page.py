"""The page as Chromium shows it, with real workers behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest
from servers import wait_until

from .watching import Heard, legend, status_of  # skips what follows where there is no browser

# isort: split
from axe_playwright_python.sync_playwright import Axe

from .scenes import Stage, staged

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
WIDTHS = (360, 768, 1440)
SEEN = ("empty", "waiting", "paused", "halted", "away", "dropped", "hostile", "mapped")


class Scene(NamedTuple):
    """A stage in a state, and the addresses that show it."""

    name: str
    stage: Stage
    addresses: Sequence[str]


@pytest.fixture(scope="module", params=SEEN)
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    for stage, paths in staged(request.param, tmp_path_factory.mktemp(request.param)):
        yield Scene(request.param, stage, [stage.url + path for path in paths])


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[Stage]:
    for stage, _ in staged("paused", tmp_path):
        yield stage


def test_every_scene_is_well_made(scene: Scene, browser: Browser) -> None:
    heard = Heard(urlsplit(scene.stage.url).netloc)
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        heard.listen(page)
        for address in scene.addresses:
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(address)
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (address, width, wide)
            found = Axe().run(page).response["violations"]
            grave = [one for one in found if one["impact"] in ("serious", "critical")]
            assert not grave, [(one["id"], one["nodes"][0]["html"]) for one in grave]
            assert "owned" not in page.title()
        context.close()
    expected = 404 if scene.name == "dropped" else 503 if scene.name == "away" else 200
    assert not [one for one in heard.complaints if f"status of {expected}" not in one]
    assert not heard.strangers


def test_all_is_readable_without_a_script(scene: Scene, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for address in scene.addresses:
        page.goto(address)
        assert page.locator("h1").inner_text()
        assert not page.locator("button.copy").filter(visible=True).count()
        still = page.locator("noscript a", has_text="Hold still")
        assert still.count() == (scene.name != "mapped")
    context.close()


def test_the_page_follows_by_itself_and_says_what_vec_status_says(
    paused: Stage, browser: Browser
) -> None:
    page = browser.new_page()
    page.goto(paused.url)
    page.locator("a", has_text="wiki").first.focus()
    page.evaluate("window.same = document.querySelector('main')")
    paused.add("later", 77)
    paused.until("wiki", lambda it: not it.leased)
    said = status_of(paused)
    names = ("embedded", "dead", "pending", "enqueued")

    def is_shown() -> bool:
        row = page.locator("#row-wiki").inner_text()
        done = int(str(said["enqueued"])) - int(str(said["pending"]))
        return (
            f"{done:,} of {said['enqueued']:,}" in row and page.locator("#row-later").count() == 1
        )

    wait_until(is_shown, 30, "the page to follow", 0.2)
    assert page.evaluate("window.same === document.querySelector('main')")  # no new page
    assert page.evaluate("document.activeElement.textContent") == "wiki"
    assert "the night's backup" in page.locator("#row-wiki").inner_text()
    page.goto(f"{paused.url}collections/wiki")
    assert {name: legend(page)[name] for name in names} == {name: said[name] for name in names}
    page.close()


def test_it_tells_when_the_exporter_is_gone_and_can_be_held_still(
    paused: Stage, browser: Browser
) -> None:
    page = browser.new_page()
    page.goto(paused.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    held = page.get_by_role("button", name="Hold still")
    held.click()
    assert held.get_attribute("aria-pressed") == "true"
    held.click()
    paused.exporter.kill()
    lost = page.locator("#lost")
    wait_until(lost.is_visible, 30, "the page to say that the exporter is gone", 0.2)
    assert "does not answer" in lost.inner_text()
    page.close()


def test_a_map_in_one_file_tells_what_a_dot_is(tmp_path: Path, browser: Browser) -> None:
    for stage, _ in staged("mapped", tmp_path):
        html = tmp_path / "wiki.html"
        stage.run("map", "wiki", "-o", str(html))
    heard = Heard("")
    page = browser.new_page()
    heard.listen(page)
    page.goto(html.as_uri())
    page.get_by_role("button", name="Show 1:").first.click()
    assert page.locator("#marks circle").count() == 2
    page.locator("#plane").hover()
    box = page.locator("#marks circle").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator("#told")
    wait_until(lambda: "text" in told.inner_text(), 10, "the passage of a dot", 0.05)
    assert page.locator("#marks circle").count() == 1 and page.title() == "Map of wiki"
    assert not heard.strangers and not heard.complaints
    page.close()


def test_a_command_can_be_copied(paused: Stage, browser: Browser) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{paused.url}collections/wiki")
    page.get_by_role("button", name="Copy vec resume wiki").first.click()
    wait_until(lambda: page.get_by_text("Copied").count() == 1, 10, "the button to say so", 0.05)
    assert page.evaluate("navigator.clipboard.readText()").startswith("vec resume wiki")
    context.close()


def test_a_map_comes_to_life_after_a_notice_and_answers_a_finger(
    tmp_path: Path, browser: Browser
) -> None:
    for stage, [path] in staged("mapped", tmp_path):
        stage.line.refuse()
        context = browser.new_context(viewport={"width": 360, "height": 780}, has_touch=True)
        page = context.new_page()
        page.goto(stage.url + path)
        assert page.locator("#plane").count() == 0
        stage.line.refuse(False)
        told = page.locator("#told")
        wait_until(told.is_visible, 40, "the map in place of the notice", 0.2)
        plane = page.locator("#plane")
        box = plane.bounding_box()
        assert box is not None
        x, y = page.evaluate("JSON.parse(document.getElementById('points').textContent)[0]")[:2]
        at = box["width"] / 1000
        plane.tap(position={"x": x * at, "y": y * at})
        page.locator("#marks circle").wait_for()
        assert "text" in told.inner_text()
        context.close()
