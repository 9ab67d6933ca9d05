"""Pictures of the page in every scene, at three widths, light and dark.

    python -m tests.browser.pictures DIRECTORY [SCENE...]

writes `SCENE[-PAGE]-WIDTH-light.png` and so on. It needs Chromium and the extra `browser`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from browser.chromium import chromium  # noqa: E402
from browser.scenes import SCENES, staged  # noqa: E402

WIDTHS = (360, 768, 1440)


def main(directory: Path, names: Sequence[str]) -> None:
    """Take the pictures of these scenes."""
    directory.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name in names:
            with tempfile.TemporaryDirectory() as scratch:
                for stage, paths in staged(name, Path(scratch)):
                    for width in WIDTHS:
                        for scheme in ("light", "dark"):
                            context = browser.new_context(
                                viewport={"width": width, "height": 900}, color_scheme=scheme
                            )
                            page = context.new_page()
                            for path in paths:
                                page.goto(stage.url + path)
                                place = path.strip("?").replace("/", "-").replace("=", "-")
                                label = "-".join(filter(None, [name, place, str(width), scheme]))
                                page.screenshot(path=directory / f"{label}.png", full_page=True)
                                print(directory / f"{label}.png", flush=True)
                            context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(SCENES))
