"""The examples of the documentation, each in a fresh process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "client" / "integrations.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```\n\n```\n(.*?)^```\n", re.M | re.S)
FRAMEWORK = re.compile(r"^(?:from|import) (langchain_core|llama_index|haystack|chromadb)", re.M)


@pytest.mark.parametrize("code, output", EXAMPLE.findall(PAGE.read_text()))
def test_an_example_runs_and_prints_what_the_page_shows(code: str, output: str) -> None:
    framework = FRAMEWORK.search(code)
    assert framework is not None
    pytest.importorskip(framework[1])
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == output
    assert "Warning" not in ended.stderr


def test_the_page_has_an_example_for_each_framework() -> None:
    assert len(EXAMPLE.findall(PAGE.read_text())) == 4
