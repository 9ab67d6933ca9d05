"""Write the pages of the reference that are made from the code: `python docs/generate.py`.

The pages are kept in the repository, so that they can be read there; a test fails when one of them
is no longer what the code says.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from worker.cli import vec, vec_enqueue
from worker.store import keys

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Made from the code by `python docs/generate.py`: do not edit it here. -->\n"
COMMANDS = """
# Commands

`vec-enqueue` puts texts into a collection. `vec` does everything else. This page shows what
`--help` prints.

| exit code | meaning |
|---|---|
| 0 | everything that was asked for is done |
| 1 | something was rejected, is dead, missing or halted; the output says so in one line each |
| 2 | wrong usage, or nothing to work on: no Redis, no such file or collection |
| 130 | Ctrl-C |

Bash completes commands, options and names of collections after these lines (put them into
`~/.bashrc`; for other shells use `zsh_source` or `fish_source`):

    eval "$(_VEC_COMPLETE=bash_source vec)"
    eval "$(_VEC_ENQUEUE_COMPLETE=bash_source vec-enqueue)"
"""
KEYS = """
# Redis keys

This is the table that heads `worker/store/keys.py`. No other module builds a key.
"""


def pages() -> dict[Path, str]:
    """Each generated page, by its path."""
    return {
        REFERENCE / "commands.md": NOTE + COMMANDS + "".join(_commands()),
        REFERENCE / "redis-keys.md": NOTE + _keys(),
    }


def _keys() -> str:
    """The docstring of the module of the keys. Its indented tables are code blocks in Markdown."""
    table = (inspect.getdoc(keys) or "").partition("\n\n")[2]
    return f"{KEYS}\n{table}\n"


def _commands() -> Iterator[str]:
    yield _help("vec-enqueue", vec_enqueue)
    yield _help("vec", vec)
    for name in vec.commands:
        yield _help("vec", vec, name)


def _help(program: str, command: click.Command, *words: str) -> str:
    asked = CliRunner().invoke(
        command, [*words, "--help"], prog_name=program, terminal_width=80, catch_exceptions=False
    )
    return f"\n## {' '.join((program, *words))}\n\n```\n{asked.stdout}```\n"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path)
