"""A command that a message tells is about the same Redis: no message spells one by itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_obstacle import CAUSES, status, worker

import worker as package
from worker.cli import key_lines, report, vec
from worker.cli.board import View, board, news
from worker.cli.command import Target
from worker.cli.commands.doctor import finding_line
from worker.cli.commands.workers import workers_table
from worker.engine import checkup
from worker.engine.checkup import Finding
from worker.monitor.obstacle import obstacle
from worker.types import ThrottleStatus

URL = "redis://other:1/3"
command = Target(URL, False).command
HOUSE = Path(package.__file__).parent
COMMAND = re.compile(rf"\bvec ({'|'.join(vec.commands)})\b")

# What names a command and tells no one to type it about a Redis that a command line names.
KNOWN = {
    # The log of a worker, which was started with its own environment.
    "engine/fitness.py": 2,
    "monitor/metrics.py": 1,  # describes a metric
    # "another vec export": what happens meanwhile.
    "export/folder.py": 1,
    "export/pgvector/__init__.py": 2,
    "export/pgvector/address.py": 1,
    "export/qdrant/notes.py": 1,
    "store/errors.py": 3,  # one is for programs, as is the next; the command line has its own words
    "export/rows.py": 1,
    # Help of an option.
    "cli/enqueue.py": 1,
    "cli/commands/pause.py": 1,
}


def spelt(path: Path) -> Iterator[str]:
    """The strings of a file that spell a command, but for docstrings."""
    if COMMAND.search(path.read_text()) is None:
        return  # to parse them all takes seconds
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield from COMMAND.findall(node.value)


def test_no_message_spells_a_command_by_itself() -> None:
    found = {
        str(path.relative_to(HOUSE)): len(list(spelt(path))) for path in sorted(HOUSE.rglob("*.py"))
    }

    assert {path: number for path, number in found.items() if number} == KNOWN


@pytest.mark.parametrize("kind", ["html", "js"])
def test_no_file_of_the_page_does(kind: str) -> None:
    files = sorted(HOUSE.rglob(f"*.{kind}"))

    assert files
    assert [str(path) for path in files if COMMAND.search(path.read_text())] == []


def unnamed(said: str, option: str = f"--redis-url {URL}") -> list[str]:
    """The commands in a text that do not have `option`, which names a Redis."""
    said = " ".join(said.split()).replace(f"env VECTOR_EMBED_REDIS_URL={URL} vec worker", "")
    _, *told = re.split(r"\b(?=vec(?:-enqueue)? )", said)
    return [one for one in told if option not in one]


@pytest.mark.parametrize("cause", CAUSES)
def test_what_blocks_a_collection_tells_commands_about_its_redis(cause: str) -> None:
    seen, _ = CAUSES[cause]
    found = obstacle(replace(seen, command=command))

    assert found is not None and unnamed(found.line) == []


@pytest.mark.parametrize("cause", CAUSES)
def test_of_a_local_stack_they_are_for_that_one(cause: str) -> None:
    seen, _ = CAUSES[cause]

    found = obstacle(replace(seen, command=Target(None, True).command))

    assert found is not None and unnamed(found.line, "--local") == []
    is_lost = found.kind == "no worker"
    assert is_lost == found.line.endswith(": --local starts one for a command that waits")


def throttle(name: str) -> ThrottleStatus:
    names = ("reason", "paused_until", "rate", "learned_limit", "quota_limit", "quota_resets_at")
    return ThrottleStatus(
        **dict.fromkeys(names),
        state="running",
        in_flight=0,
        in_flight_ceiling=8,
        quota_used=0,
        name=name,
    )


NO_WORKER = status(workers=0, state="waiting")
LOST = worker(seen_seconds=40.0)
UNFIT = worker(state="unfit", reason="socksio is missing")
SCREENS = {
    "the number of workers": report.workers_line(0, command),
    "a note of a run": report.note(NO_WORKER, command)[1],
    "the news of a collection": news(NO_WORKER, command),
    "the keys": "\n".join(key_lines.short_line(status(keys=[*map(throttle, "ab")]), command)),
    "no workers": "\n".join(workers_table([], "vec.wakeups", command)),
    "a worker that is unfit": "\n".join(workers_table([UNFIT], "vec.wakeups", command)),
    "the screen of vec watch": "\n".join(
        line.text for line in board(View([NO_WORKER], [LOST], 0.0, command), 200, 50)
    ),
}


@pytest.mark.parametrize("screen", SCREENS)
def test_what_is_shown_tells_commands_about_its_redis(screen: str) -> None:
    said = SCREENS[screen]

    assert "vec " in said, said
    assert unnamed(said) == []


NAMES = ["w", "wiki", "wikipedia-english", "wikipedia-english-articles-of-2026"]
OTHERS = {"a URL": Target(URL, False), "local": Target(None, True), "none": Target(None, False)}


@pytest.mark.parametrize("where", OTHERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reason", ["by hand", "the API refuses the key: it is of another account"])
def test_a_line_that_is_folded_has_the_whole_of_a_command(
    name: str, where: str, reason: str
) -> None:
    told = OTHERS[where].command
    held = status(collection=name, state="paused", reason=reason, held=True)
    running = status(collection=name, state="running", pending=3, workers=1)
    resume = told("resume", name)
    screen = board(View([running], [], 0.0, told, None, {name: f"{reason}: {resume}"}), 100, 50)
    stopped = Finding(checkup.WARNING, f"{name} is paused: {reason}", f"to continue: {resume}")
    shown = {
        "the table": report.status_table([held], told),
        "the page": report.status_page(held, "", resume),
        "the screen": [line.text for line in screen],
        "the doctor": finding_line(stopped, 80).splitlines(),
    }

    for place, lines in shown.items():
        assert any(resume in line for line in lines), place
