"""The commands where the world around them is odd: no colour, no reader, no Unicode, no room."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
from pathlib import Path

import pytest
from shell import Finished, Shell

from worker.cli import vec

pytestmark = pytest.mark.heavy

EVERY_COMMAND = [("vec-enqueue",), ("vec",), *(("vec", name) for name in vec.commands)]
ODD = {"id": "文档-ü", "text": "ein Text"}


def enqueued(shell: Shell, *records: object) -> None:
    shell.write("wiki.jsonl", *(records or [ODD]))
    answer = shell("vec-enqueue", "wiki.jsonl")
    assert answer.stdout.startswith("wiki: "), answer.stderr


# Help


@pytest.mark.parametrize("command", EVERY_COMMAND, ids="-".join)
def test_each_command_helps_at_once_without_a_server(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    away = Shell(tmp_path, {"VECTOR_EMBED_REDIS_URL": "redis://127.0.0.1:1"})

    answer = away(*command, "--help")

    assert (answer.returncode, answer.stderr) == (0, "")
    assert "  Example:\n" in answer.stdout


# Encodings


@pytest.mark.parametrize(
    "environ",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["C", "ascii", "latin-1"],
)
def test_what_the_locale_cannot_show_is_escaped(shell: Shell, environ: dict[str, str]) -> None:
    shell.write("wiki.jsonl", {"id": "文档-ü", "text": ""}, {**ODD, "id": "ü" * 2000})
    shell.environ.update(environ)

    rejected = shell("vec-enqueue", "wiki.jsonl", "--text-field", "täxt", "--collection", "wiki")
    verified = shell("vec", "verify", "wiki.jsonl", "--collection", "文")
    status = shell("vec", "status", "文")

    for answer in (rejected, verified, status):
        assert "Traceback" not in answer.stderr
    assert rejected.returncode == 1
    assert (verified.returncode, status.returncode) == (2, 2)
    assert "must be 1 to 100 letters" in status.stderr


def test_an_id_of_any_script_is_shown_as_the_locale_can(shell: Shell) -> None:
    enqueued(shell)

    plain = shell("vec", "verify", "wiki.jsonl")
    latin = shell("vec", "verify", "wiki.jsonl", PYTHONIOENCODING="latin-1")

    assert plain.stderr == "pending: 文档-ü\n"
    assert latin.stderr == "pending: \\u6587\\u6863-\\xfc\n"
    assert plain.stdout == latin.stdout


# Colours


@pytest.mark.parametrize(
    "arguments", [["status"], ["workers"], ["status", "wiki"], ["dead", "wiki"]]
)
def test_tables_have_no_colour_even_on_a_terminal(shell: Shell, arguments: list[str]) -> None:
    enqueued(shell)

    assert "\x1b" not in on_terminal(shell, "vec", *arguments)


def test_no_color_is_obeyed_by_the_live_screen(shell: Shell) -> None:
    enqueued(shell)
    shell.environ["NO_COLOR"] = "1"

    shown = on_terminal(shell, "vec", "watch", until="Ctrl-C leaves")

    colours = [f"\x1b[{number}m" for number in (*range(30, 38), *range(90, 98))]
    assert not any(colour in shown for colour in colours)


def on_terminal(shell: Shell, name: str, *arguments: str, until: str | None = None) -> str:
    """All that a command writes to a terminal, until it says something or ends."""
    ours, theirs = pty.openpty()
    process = shell.start(name, *arguments, terminal=theirs, output=True)
    os.close(theirs)
    seen = b""
    while until is None or until.encode() not in seen:
        try:
            part = os.read(ours, 65536)
        except OSError:  # so Linux says that the other side is closed
            break
        if not part:
            break
        seen += part
    process.terminate()
    process.wait(20)
    os.close(ours)
    return seen.decode()


# Readers


@pytest.mark.parametrize(
    "command", ["vec status", "vec workers", "vec watch", "vec doctor", "vec-enqueue wiki.jsonl"]
)
def test_nobody_reading_is_no_error(shell: Shell, command: str) -> None:
    shell.write("wiki.jsonl", ODD)
    name, *arguments = command.split()
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        shell.command(name, *arguments),
        cwd=shell.directory,
        env=shell.environ,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)

    _, error = process.communicate(timeout=60)

    assert process.returncode == 141  # as what SIGPIPE ends
    assert error == ""


def test_a_closed_standard_output_is_no_traceback(shell: Shell) -> None:
    enqueued(shell)

    for command in ("vec status", "vec watch", "vec doctor"):
        answer = closed_output(shell, command)

        assert "Traceback" not in answer.stderr


def closed_output(shell: Shell, command: str) -> Finished:
    """Run a command as `COMMAND >&-` does, at most some seconds."""
    name, *arguments = command.split()
    script = 'exec timeout 20 "$@" >&-'
    return subprocess.run(
        ["sh", "-c", script, "sh", *shell.command(name, *arguments)],
        cwd=shell.directory,
        env=shell.environ,
        stderr=subprocess.PIPE,
        text=True,
    )


# Room


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory in which nothing can be made."""
    if os.geteuid() == 0:
        return Path("/proc")  # where even root can make nothing
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o555)
    return directory


def test_a_directory_that_cannot_be_written_is_told_before_work_begins(
    shell: Shell, closed: Path
) -> None:
    corpus = shell.write("wiki.jsonl", ODD, "broken")
    shell.directory = closed

    output = shell("vec-enqueue", str(corpus), "-o", "wiki.vectors.jsonl")
    piped = shell("vec-enqueue", "-", "--collection", "wiki", stdin=corpus.read_text())

    assert output.returncode == 2
    assert output.stdout == ""
    first, second, *_ = piped.stderr.splitlines()
    kept = json.loads(second)
    assert first.startswith("Warning: wiki.rejected.jsonl cannot be written (")
    assert first.endswith("rejected lines are shown here instead, each as a line of JSON")
    assert (kept["line"], kept["raw"]) == (2, "broken")
    assert piped.stdout.startswith("wiki: 1 new, 0 unchanged, 1 rejected, 0 duplicates")


# Completion


def complete(shell: Shell, words: str) -> list[str]:
    """What a shell is offered for the last of these words."""
    answer = shell(
        "vec",
        _VEC_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    assert answer.stderr == ""
    return [line.partition(",")[2] for line in answer.stdout.split()]


def test_commands_and_names_of_collections_are_completed(shell: Shell) -> None:
    enqueued(shell)
    shell.write("news.jsonl", ODD)
    shell("vec-enqueue", "news.jsonl")

    assert complete(shell, "vec sta") == ["status"]
    assert complete(shell, "vec status ") == ["news", "wiki"]
    assert complete(shell, "vec export w") == ["wiki"]


def test_a_redis_that_is_away_or_silent_has_no_names(shell: Shell) -> None:
    enqueued(shell)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (
            f"redis://127.0.0.1:{silent.getsockname()[1]}",
            "redis://127.0.0.1:1",
            "no url at all",
        ):
            shell.environ["VECTOR_EMBED_REDIS_URL"] = url
            assert complete(shell, "vec status w") == []
    shell.environ["VECTOR_EMBED_REDIS_ULR"] = "a misspelt name"
    assert complete(shell, "vec status w") == []
