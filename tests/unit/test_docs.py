"""The documentation's links, names and examples, as far as they can be checked without a server."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import vector_embed_client
import worker
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)#\s]+)")


def pages() -> list[Path]:
    """Every Markdown file of the repository."""
    folders = [ROOT / name for name in ("docs", "deploy", "tests")]
    return [*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))]


def test_every_link_within_the_repository_leads_to_a_file() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages()
        for target in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).is_file()
    ]
    assert missing == []


@pytest.mark.parametrize(
    "module, names",
    [("vector_embed_client", vector_embed_client.__all__), ("worker", worker.__all__)],
)
def test_the_reference_has_each_public_name(module: str, names: list[str]) -> None:
    shown = re.findall(rf"^::: {module}\.(\w+)$", (REFERENCE / "python.md").read_text(), re.M)
    assert sorted(shown) == sorted(name for name in names if not name.startswith("__"))


def test_the_reference_has_each_setting() -> None:
    table = (REFERENCE / "environment.md").read_text()
    shown = re.findall(r"^\| `VECTOR_EMBED_(\w+)` \|", table, re.M)
    settings = {field.name.upper() for field in dataclasses.fields(Settings)}
    assert len(shown) == len(set(shown))
    assert set(shown) == settings | {"LOCAL_DIR", "DATABASE_URL", "SINK_URL"}


def test_every_test_that_a_page_names_is_there() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    for page in pages():
        for name, cut in re.findall(r"`(test_\w+)(\.\.\.)?`", page.read_text()):
            found = any(one.startswith(name) for one in there) if cut else name in there
            assert found, f"{page.relative_to(ROOT)}: {name}"


def test_every_file_that_a_page_of_the_documentation_names_is_there() -> None:
    path = re.compile(r"`((?:worker|tests|docs|deploy|store|throttle)/[\w./-]+)`")
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for name in path.findall(page.read_text()):
            # A step is named as its room knows it; NAME and ROOM are for the reader to fill in.
            is_there = (ROOT / name).exists() or (ROOT / "worker" / name).exists()
            assert is_there or "NAME" in name or "ROOM" in name, f"{page}: {name}"
