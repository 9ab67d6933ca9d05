"""The documentation's links, names and examples, as far as they can be checked without a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vector_embed_client
import worker

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
