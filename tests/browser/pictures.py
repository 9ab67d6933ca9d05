"""Pictures of the page in every scene, at three widths, light and dark.

    python -m tests.browser.pictures DIRECTORY [SCENE...]
    python -m tests.browser.pictures --docs

The first writes `SCENE[-PAGE]-WIDTH-light.png` and so on into a directory, to be looked at; the
second the pictures in `docs/pictures`. It needs Chromium and the extra `browser`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from browser.chromium import chromium  # noqa: E402
from browser.scenes import SCENES, staged  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTHS = (360, 768, 1440)
DOCS = ROOT / "docs" / "pictures"


def take(
    browser: Browser, address: str, file: Path, width: int, scheme: str, *, whole: bool = True
) -> None:
    """A picture of a page, or of its beginning."""
    context = browser.new_context(
        viewport={"width": width, "height": 780},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(address)
    page.screenshot(path=file, full_page=whole)
    context.close()
    print(file, flush=True)


def every(directory: Path, names: Sequence[str]) -> None:
    """Take the pictures of these scenes."""
    directory.mkdir(parents=True, exist_ok=True)
    with chromium() as browser, tempfile.TemporaryDirectory() as scratch:
        for name in names:
            place = Path(scratch) / name
            place.mkdir()
            for stage, paths in staged(name, place):
                for path in paths:
                    shown = path.strip("?").replace("/", "-").replace("=", "-")
                    for width in WIDTHS:
                        for scheme in ("light", "dark"):
                            label = "-".join(filter(None, [name, shown, str(width), scheme]))
                            file = directory / f"{label}.png"
                            take(browser, stage.url + path, file, width, scheme)


def docs() -> None:
    """Take those of the documentation; the map is one of real vectors."""
    with chromium() as browser, tempfile.TemporaryDirectory() as scratch:
        for stage, _ in staged("working", Path(scratch)):
            _beginnings(browser, "overview", stage.url)
            _beginnings(browser, "collection", f"{stage.url}collections/products")
        _beginnings(browser, "map", _demo_map(Path(scratch)).as_uri())


def _beginnings(browser: Browser, name: str, address: str) -> None:
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            file = DOCS / f"{name}-{width}-{scheme}.png"
            take(browser, address, file, width, scheme, whole=False)


def _demo_map(directory: Path) -> Path:
    """A map of the demo corpus, made by a local stack."""
    environ = {**os.environ, "VECTOR_EMBED_LOCAL_DIR": str(directory / "stack")}
    corpus = str(ROOT / "deploy" / "demo" / "corpus.jsonl")
    for program, *words in (
        ("vec_enqueue", corpus, "--collection", "corpus"),
        ("vec", "map", "corpus", "-o", "corpus.html"),
    ):
        entry = f"from worker.cli import {program} as run; run()"
        command = [sys.executable, "-c", entry, *words, "--local"]
        subprocess.run(command, cwd=directory, env=environ, check=True)
    return directory / "corpus.html"


if __name__ == "__main__":
    if sys.argv[1:] == ["--docs"]:
        docs()
    else:
        every(Path(sys.argv[1]), sys.argv[2:] or list(SCENES))
