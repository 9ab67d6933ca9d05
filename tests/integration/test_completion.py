"""Completion in a real bash on a terminal, set up by the lines that the documentation gives."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from shell import Shell

pytestmark = pytest.mark.heavy

COMMANDS = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
PROMPT = "ready$ "


class Bash:
    """An interactive bash in `directory`, with the installed commands on its path."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        bash = shutil.which("bash")
        if bash is None:
            pytest.skip("bash is not installed")
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._terminal, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [bash, "--norc", "--noprofile", "-i"],
            cwd=directory,
            env={**environ, "PATH": programs, "PS1": PROMPT, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._read_until(PROMPT)

    def run(self, keys: str) -> str:
        """Type a line, and what it prints."""
        os.write(self._terminal, f"{keys}\n".encode())
        return self._read_until(f"\n{PROMPT}").rpartition("\n")[0]

    def complete(self, begun: str) -> str:
        """What one press of TAB makes of a line."""
        home = "\x01"  # Ctrl-A: what is completed as a command's line is then printed
        return self.run(f"{begun}\t{home}echo ").splitlines()[-1].strip()

    def end(self) -> None:
        """Close it."""
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _read_until(self, end: str) -> str:
        seen = ""
        while not seen.endswith(end):
            seen += os.read(self._terminal, 65536).decode().replace("\r", "")
        return seen


@pytest.fixture
def bash(shell: Shell) -> Iterator[Bash]:
    """A person's bash, after the documentation's lines."""
    lines = re.findall(r'^ {4}(eval "\$\(_VEC.*)$', COMMANDS.read_text(), re.M)
    assert len(lines) == 2
    (shell.directory / "deploy" / "demo").mkdir(parents=True)
    shell.write("deploy/demo/corpus one.jsonl", {"id": "a", "text": "b"})
    shell.write("wiki.jsonl", {"id": "a", "text": "b"})
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    prompt = Bash(shell.directory, shell.environ)
    for line in lines:
        prompt.run(line)
    yield prompt
    prompt.end()


COMPLETED = {
    "vec-enqueue deploy/de": "vec-enqueue deploy/demo/",
    "vec-enqueue deploy/demo/corp": "vec-enqueue deploy/demo/corpus one.jsonl",
    "vec-enqueue wi": "vec-enqueue wiki.jsonl",
    "vec-enqueue wiki.jsonl dep": "vec-enqueue wiki.jsonl deploy/",
    "vec-enqueue wiki.jsonl -o wi": "vec-enqueue wiki.jsonl -o wiki.jsonl",
    "vec-enqueue --dry": "vec-enqueue --dry-run",
    "vec verify wi": "vec verify wiki.jsonl",
    "vec verify wiki.jsonl --export dep": "vec verify wiki.jsonl --export deploy/",
    "vec export wiki -o dep": "vec export wiki -o deploy/",
    "vec stat": "vec status",
    "vec status w": "vec status wiki",
}


def test_a_tab_completes_files_directories_commands_options_and_collections(bash: Bash) -> None:
    assert {begun: bash.complete(begun) for begun in COMPLETED} == COMPLETED
