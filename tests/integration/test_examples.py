"""The examples of the documentation, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import StartWorker
from servers import API, API_KEY
from shell import Shell

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", re.M | re.S)
# An example that is a test is run as one.
TESTS = "\nfor name in [one for one in globals() if one.startswith('test_')]: globals()[name]()\n"


class Example(NamedTuple):
    """A block of Python on a page, and the output that the page shows after it."""

    page: str
    code: str
    output: str


def examples() -> list[Example]:
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for code, output in BLOCK.findall(page.read_text()):
            found.append(Example(str(page.relative_to(ROOT)), code, output))
    # What is logged goes by the clock. test_index runs the one that needs Redis 8, tests/frameworks
    # those of the frameworks, and test_other_readers.py and test_qdrant.py those of other programs.
    elsewhere = (
        "FT.CREATE",
        "logging",
        "vector_embed_client.integrations",
        "import duckdb",
        "import faiss",
        "qdrant_client",
    )
    return [one for one in found if not any(word in one.code for word in elsewhere)]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.page)
def test_an_example_of_the_documentation_runs_and_prints_what_the_page_shows(
    example: Example, shell: Shell, api: API, worker_process: StartWorker
) -> None:
    (shell.directory / "texts.txt").write_text("one text\n\nanother\n")
    if "from worker" in example.code:
        worker_process()
        shell.write("wiki.jsonl", *({"id": id, "text": id} for id in ("q42", "q64")))
        assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0
    environ = {"VECTOR_EMBED_API_KEY": API_KEY, "VECTOR_EMBED_BASE_URL": api.base_url}
    environ["VECTOR_EMBED_LOCAL_DIR"] = str(shell.directory / "local")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", example.code + TESTS],
        cwd=shell.directory,
        env={**shell.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert example.output in ended.stdout


def test_the_tutorial_prints_what_it_shows(tmp_path: Path) -> None:
    tutorial = (ROOT / "docs" / "tutorial.md").read_text().partition("## Embed a corpus")[2]
    tutorial = BLOCK.sub("", tutorial)  # its Python is run above
    (tmp_path / "deploy").mkdir()
    shutil.copytree(ROOT / "deploy" / "demo", tmp_path / "deploy" / "demo")
    typed = "".join(line[4:] for line in re.findall(r"^ {4}.*\n", tutorial, re.M))
    shown = "".join(re.findall(r"^```(?:json)?\n(.*?)^```$", tutorial, re.M | re.S))
    programs = Path(sys.executable).parent
    ended = subprocess.run(
        ["bash", "-c", typed],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if "VECTOR_EMBED" not in name},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "VECTOR_EMBED_LOCAL_DIR": str(tmp_path / "data"),
            "COLUMNS": "80",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert without_times(ended.stdout).splitlines() == without_times(shown).splitlines()


def without_times(said: str) -> str:
    return re.sub(r"embedded in [^;]+", "embedded in a moment", said)


def test_the_generated_pages_are_what_the_code_says() -> None:
    # In a process of its own: Click keeps how a command was first asked for help.
    script = (
        "import json, runpy; pages = runpy.run_path('docs/generate.py')['pages'](); "
        "print(json.dumps({str(path): text for path, text in pages.items()}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for page, text in json.loads(ended.stdout).items():
        assert Path(page).read_text() == text, f"run `python docs/generate.py`: {page} is stale"
