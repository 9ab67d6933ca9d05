"""The commands without a server: usage, help, and the words of their reports."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from vector_embed_client.http import VERSION
from worker.cli import report, vec, vec_enqueue
from worker.cli.command import Target
from worker.cli.own import Counts
from worker.export.verify import Verification
from worker.monitor import figures
from worker.producer import Progress
from worker.types import DeadLetter, Status

EVERY_COMMAND = [vec_enqueue, vec, *vec.commands.values()]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: a corpus lies there, and the environment says nothing of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("VECTOR_EMBED_REDIS_URL", "REDIS_URL", "VECTOR_EMBED_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "wiki.jsonl").write_text('{"text": "hello"}\n')
    return tmp_path


def run(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def status(**changes: object) -> Status:
    values: dict[str, object] = {
        "collection": "wiki",
        "model": "nomic-v1.5",
        "dimensions": 768,
        "enqueued": 0,
        "embedded": 0,
        "evicted": 0,
        "cached": 0,
        "dead": 0,
        "pending": 0,
        "leased": 0,
        "unchanged": 0,
        "state": "idle",
        "reason": None,
        "paused_until": None,
        "workers": 1,
        **changes,
    }
    return Status(**values)  # type: ignore[arg-type]  # the names are those above


def letter(id: str, code: str = "invalid_request", reason: str = "it is refused") -> DeadLetter:
    return DeadLetter(id, "a text", None, code, reason, 5, 1_700_000_000.0)


# Help


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=lambda command: str(command.name))
def test_help_has_one_example_and_fits_into_80_columns(command: click.Command) -> None:
    shown = run(command, "--help")

    assert shown.exit_code == 0
    assert shown.output.count("Example:") == 1
    assert max(map(len, shown.output.splitlines())) <= 80


def test_the_overview_cuts_no_command_short() -> None:
    assert "..." not in run(vec, "--help").output.replace("[ARGS]...", "")


def test_collections_that_fare_alike_are_named_up_to_three() -> None:
    assert figures.names(["wiki"]) == "wiki"
    assert figures.names(["a", "b", "c"]) == "a, b, c"
    assert figures.names([*"abcd", *map(str, range(42))]) == "a, b, c and 43 more"


@pytest.mark.parametrize("command", [vec, vec_enqueue], ids=lambda command: str(command.name))
def test_both_commands_say_their_version(command: click.Command) -> None:
    shown = run(command, "--version")

    assert (shown.exit_code, shown.output) == (0, f"{command.name} {VERSION}\n")


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "CORPUS"),
        (["-"], "--collection"),
        (["-", "-", "--collection", "x"], "only once"),
        (["missing.jsonl"], "missing.jsonl does not exist"),
        (["missing"], "missing does not exist"),
        (["missing/", "--collection", "x"], "missing/ does not exist"),
        (["", "--collection", "x"], "'' does not exist"),
        (["wiki.pdf"], "unknown kind of file"),
        (["wiki.jsonl", "--collection", "my wiki"], "must be 1 to 100 letters"),
        (["wiki.jsonl", "--collection", ""], "must be 1 to 100 letters"),
        (["wiki.jsonl", "--local", "--redis-url", "redis://h"], "leave out --redis-url"),
        (["wiki.jsonl", "--redis-url", "http://h"], "must begin with redis://"),
        (["wiki.jsonl", "--redis-url", "redis://h:port"], "cannot be read"),
        (["wiki.jsonl", "-o", "vectors.pdf"], "vectors.pdf"),
        (["wiki.jsonl", "-o", "no/such/vectors.jsonl"], "no/such"),
        (["wiki.jsonl", "-o", "wiki.jsonl"], "where the vectors would be written"),
        (["wiki.jsonl", "other.jsonl", "-o", "both.jsonl"], "-o writes one collection"),
        (["wiki.jsonl", "missing.jsonl", "--collection", "x"], "missing.jsonl does not exist"),
        (["--sql", "SELECT 1"], "Name the database with --database or VECTOR_EMBED_DATABASE_URL."),
        (["--sql", "SELECT 1", "--database", "sqlite://"], "the query with --collection"),
        (["wiki.jsonl", "--sql", "SELECT 1", "--database", "sqlite://"], "leave out CORPUS"),
        (["wiki.jsonl", "--database", "sqlite://"], "--database goes with --sql"),
        (["--sql", "DROP TABLE a", "--database", "sqlite://"], "--sql is no SELECT"),
        (["--sql", "SELECT 1", "--database", "sqlite:///missing.db"], "missing.db does not exist"),
        (["--sql", "SELECT 1", "--database", "me:secret@host"], "like postgresql://USER:PASSWORD@"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2_and_one_line_that_names_it(
    arguments: list[str], named: str
) -> None:
    answer = run(vec_enqueue, *arguments)

    assert answer.exit_code == 2
    assert named in answer.output.splitlines()[-1]
    assert answer.output.splitlines()[-1].startswith("Error: ")


SEVERAL = {"--export", "--filter", "--keep", "--rotate"}  # options that may have several values
SINGLE = [
    (command, option.opts[-1])
    for command in EVERY_COMMAND
    for option in command.params
    if isinstance(option, click.Option) and not option.is_flag and option.opts[-1] not in SEVERAL
]


@pytest.mark.parametrize(("command", "option"), SINGLE)
def test_an_option_that_has_one_value_is_an_error_if_it_is_given_twice(
    command: click.Command, option: str
) -> None:
    answer = run(command, option, "1", "wiki.jsonl", option, "2")

    assert answer.exit_code == 2
    assert option in answer.output.splitlines()[-1]
    assert "is given twice" in answer.output.splitlines()[-1]


def test_a_flag_or_an_option_with_several_values_may_be_given_twice() -> None:
    words = ("--dry-run", "--dry-run", "--keep", "a", "--keep", "b")

    assert run(vec_enqueue, "wiki.jsonl", *words).exit_code == 0


def test_a_file_of_rejections_is_not_taken_for_a_corpus_beside_its_own(directory: Path) -> None:
    (directory / "wiki.rejected.jsonl").write_text('{"line": 1}\n')

    answer = run(vec_enqueue, "wiki.jsonl", "wiki.rejected.jsonl", "--collection", "wiki")

    assert answer.exit_code == 2
    assert "the rejected lines of wiki.jsonl" in answer.output
    assert (directory / "wiki.rejected.jsonl").read_text() == '{"line": 1}\n'


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "wiki", "--json"],
        ["export", "wiki", "-o", "wiki.jsonl.jsonl"],
        ["verify", "wiki.jsonl"],
        ["dead", "wiki"],
        ["retry", "wiki"],
        ["resume"],
    ],
)
def test_a_missing_redis_is_one_line_that_names_the_ways_out(arguments: list[str]) -> None:
    answer = run(vec, *arguments, "--redis-url", "redis://:secret@127.0.0.1:1/0")

    assert answer.exit_code == 2
    assert len(answer.output.splitlines()) == 1
    assert answer.output.startswith("Error: cannot reach Redis at redis://:***@127.0.0.1:1/0")
    assert "--local" in answer.output
    assert "secret" not in answer.output


def test_a_cluster_of_which_no_node_answers_is_one_line_too() -> None:
    environ = {
        "VECTOR_EMBED_REDIS_URL": "redis+cluster://:secret@127.0.0.1:1",
        "VECTOR_EMBED_BROKER_URL": "redis://127.0.0.1:1",
    }
    answer = CliRunner().invoke(vec, ["status"], env=environ)

    assert answer.exit_code == 2
    assert len(answer.output.splitlines()) == 1
    assert answer.output.startswith("Error: cannot reach Redis at redis+cluster://:***@127.0.0.1:1")
    assert "secret" not in answer.output


def test_a_misspelt_variable_is_named_with_the_right_one() -> None:
    answer = CliRunner().invoke(vec, ["status"], env={"VECTOR_EMBED_REDIS_ULR": "redis://h"})

    assert answer.exit_code == 2
    assert "did you mean VECTOR_EMBED_REDIS_URL?" in answer.output


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (Target(None, False), "vec status wiki"),
        (Target(None, True), "vec status wiki --local"),
        (Target("redis://h/1", False), "vec status wiki --redis-url redis://h/1"),
        (
            Target("redis://:secret@h/1", False),
            "vec status wiki --redis-url 'redis://:***@h/1'",
        ),
    ],
)
def test_a_command_to_run_next_is_about_the_same_redis(target: Target, line: str) -> None:
    assert target.command("status", "wiki") == line


def test_the_other_commands_and_their_options_are_about_the_same_redis_too() -> None:
    near, far = Target(None, True), Target("redis://h/1?x=y z", False)
    assert near.command("vec-enqueue", "a.jsonl") == "vec-enqueue a.jsonl --local"
    assert near.command("worker") == ""
    assert far.command("worker") == "env 'VECTOR_EMBED_REDIS_URL=redis://h/1?x=y z' vec worker"
    plain = Target(None, False)
    assert plain.command("map", "wiki", o="wiki.html") == "vec map wiki -o wiki.html"
    assert plain.command("map", "-x", o="./-x.html") == "vec map -o ./-x.html -- -x"
    assert plain.command("dead", "wiki", code=None) == "vec dead wiki"


# What is said of a run


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(1000, 12, 2, 0, 3), "1,000 new, 12 unchanged, 3 rejected (see r), 2 duplicates"),
        (Progress(1, 0, 1, 0, 0), "1 new, 0 unchanged, 0 rejected, 1 duplicate"),
        (
            Progress(0, 5, 0, 2, 0),
            "0 new, 5 unchanged, 0 rejected, 0 duplicates, 2 dead before (see vec dead wiki)",
        ),
    ],
)
def test_an_enqueue_is_told_in_one_line(progress: Progress, line: str) -> None:
    path = "r" if progress.rejected else None

    assert report.enqueued("wiki", progress, path, "vec dead wiki") == f"wiki: {line}"


@pytest.mark.parametrize(
    ("progress", "counts", "line"),
    [
        (Progress(300), Counts(), "300 new, all embedded in 2.1 s"),
        (Progress(300), Counts(missing=100), "300 new, 100 missing"),
        (Progress(0, 300), Counts(), "0 new, 300 unchanged, all embedded"),
        (
            Progress(300, rejected=1),
            Counts(dead=2),
            "300 new, 1 rejected (see r), 2 dead (see vec dead wiki), the rest embedded in 2.1 s",
        ),
        (
            Progress(300),
            Counts(superseded=1),
            "300 new, 1 superseded since, the rest embedded in 2.1 s",
        ),
        (Progress(300), Counts(waiting=120), "300 new, 120 not embedded"),
    ],
)
def test_a_wait_is_told_in_one_line(progress: Progress, counts: Counts, line: str) -> None:
    outcome = report.Outcome(counts, 2.1)
    path = "r" if progress.rejected else None

    assert report.finished("wiki", progress, path, "vec dead wiki", outcome) == f"wiki: {line}"


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"pending": 1, "workers": 0}, "no worker is alive: start one with vec worker"),
        ({"pending": 1, "state": "paused", "paused_until": 0.0, "reason": "429"}, ": 429"),
        ({"pending": 1, "state": "running"}, ""),
        ({"pending": 0, "workers": 0}, ""),
    ],
)
def test_only_what_keeps_a_backlog_from_moving_is_noted(now: dict[str, object], said: str) -> None:
    _, note = report.note(status(**now), Target(None, False).command)

    assert said in note
    assert bool(said) == bool(note)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (2.14, "2.1 s"), (45.2, "45 s"), (192, "3 min 12 s"), (7500, "2 h 5 min")],
)
def test_durations_are_as_exact_as_a_person_wants_them(seconds: float, shown: str) -> None:
    assert figures.duration(seconds) == shown


def test_only_a_complete_verification_says_so() -> None:
    rest = ((), (), (), ())
    complete = Verification(2, 2, 0, 0, 0, 0, *rest)
    one_rejected = Verification(2, 2, 0, 0, 0, 1, *rest)

    assert report.verified("wiki", complete).endswith(": complete")
    assert "complete" not in report.verified("wiki", one_rejected)


# Tables


def test_the_status_table_is_aligned_and_80_columns_wide() -> None:
    rows = [
        status(collection="wiki", enqueued=12_345_678, embedded=12_345_678),
        status(collection="a" * 100, enqueued=5, pending=5, state="running"),
    ]

    header, first, name, second = report.status_table(rows, Target(None, False).command)

    assert name == "a" * 100
    assert all(len(line) <= 80 for line in (header, first, second))
    assert header.index("ENQUEUED") + len("ENQUEUED") == first.index("12,345,678") + 10
    assert len(header) == len(first) == len(second)


def test_a_halt_is_shown_below_its_collection_with_what_to_do() -> None:
    halted = status(state="halted", reason="the API refuses the key", pending=3)

    lines = list(report.status_table([halted], Target(None, False).command))

    assert lines[2] == "  halted: the API refuses the key. When that is fixed: vec resume wiki"


def test_dead_letters_are_counted_by_code() -> None:
    letters = [letter("a"), letter("b"), letter("c", code="server_error")]

    last = list(report.dead_table(letters, "vec retry wiki"))[-1]

    assert last == (
        "3 dead letters: 2 invalid_request, 1 server_error. To try them again: vec retry wiki"
    )


def test_dead_letters_are_counted_by_reason_the_most_frequent_first() -> None:
    letters = [letter("a"), letter("b", code="server_error", reason="no"), letter("c")]

    assert list(report.reasons_table(letters)) == [
        "COUNT  CODE",
        "    2  invalid_request",
        f"  {letters[0].reason}",
        "    1  server_error",
        "  no",
    ]
    assert json.loads(report.reasons_array(letters)) == [
        {"count": 2, "code": "invalid_request", "reason": letters[0].reason},
        {"count": 1, "code": "server_error", "reason": "no"},
    ]
    assert list(report.reasons_table([])) == ["no dead letters"]


def test_wide_characters_do_not_shift_a_column() -> None:
    header, row, *_ = report.dead_table([letter("文档-1")], "")

    assert figures.cells(row[: row.index("invalid")]) == header.index("CODE")


def test_nothing_from_a_corpus_or_the_api_steers_the_terminal() -> None:
    lines = "".join(report.dead_table([letter("\x1b[2Jid", reason="a\x1b]0;b\nc")], ""))

    assert "\x1b" not in lines
    assert r"\x1b[2Jid" in lines
    assert r"b\nc" in lines


@pytest.mark.parametrize("number", [0, 1, 3])
def test_dead_letters_are_one_json_array(number: int) -> None:
    letters = [letter(str(index)) for index in range(number)]

    read = json.loads("\n".join(report.dead_array(letters)))

    assert [one["id"] for one in read] == [one.id for one in letters]
    assert all(one["at"] == "2023-11-14T22:13:20Z" for one in read)
