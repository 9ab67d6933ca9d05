"""The commands as a person runs them: real processes, a real Redis, a real worker."""

from __future__ import annotations

import gzip
import json
import os
import pty
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from servers import API, TcpProxy, WorkerProcess, wait_for_heartbeat, wait_until
from shell import Shell

from worker.local.lock import Lock
from worker.local.redis_server import RedisServer

StartWorker = Callable[..., WorkerProcess]


def texts(number: int) -> list[dict[str, str]]:
    return [{"id": f"doc-{index}", "text": f"text {index}"} for index in range(number)]


def read_status(shell: Shell, name: str) -> dict[str, object]:
    answer: dict[str, object] = json.loads(shell("vec", "status", name, "--json").stdout)
    return answer


# Enqueuing


def test_an_enqueue_says_what_it_did_and_the_same_again_costs_nothing(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3), {"id": "doc-0", "text": "another text 0"})

    first, second = shell("vec-enqueue", "wiki.jsonl"), shell("vec-enqueue", "wiki.jsonl")

    assert first.stdout == "wiki: 3 new, 0 unchanged, 0 rejected, 1 duplicate\n"
    assert second.stdout == "wiki: 0 new, 3 unchanged, 0 rejected, 1 duplicate\n"
    assert (first.returncode, first.stderr) == (second.returncode, second.stderr) == (0, "")


def test_each_corpus_goes_to_its_own_collection_and_has_its_own_line(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(2))
    (shell.directory / "my news.txt.gz").write_bytes(gzip.compress(b"one\ntwo\nthree\n"))

    answer = shell("vec-enqueue", "wiki.jsonl", "my news.txt.gz")

    assert answer.stdout.splitlines() == [
        "wiki: 2 new, 0 unchanged, 0 rejected, 0 duplicates",
        "my-news: 3 new, 0 unchanged, 0 rejected, 0 duplicates",
    ]


def test_standard_input_is_a_corpus(shell: Shell) -> None:
    lines = '{"text": "one"}\nbroken\n'

    answer = shell("vec-enqueue", "-", "--collection", "piped", stdin=lines)

    assert answer.returncode == 1
    assert answer.stdout.startswith("piped: 1 new, 0 unchanged, 1 rejected")
    assert "standard input:2: rejected: malformed JSON" in answer.stderr
    assert (shell.directory / "piped.rejected.jsonl").exists()


def test_rejected_lines_are_kept_with_their_numbers_until_there_are_none(shell: Shell) -> None:
    bad = [{"id": index, "text": ""} for index in range(7)]
    shell.write("wiki.jsonl", {"id": "good", "text": "good"}, *bad)
    kept = shell.directory / "wiki.rejected.jsonl"

    answer = shell("vec-enqueue", "wiki.jsonl")

    assert answer.returncode == 1
    assert answer.stdout == (
        "wiki: 1 new, 0 unchanged, 7 rejected (see wiki.rejected.jsonl), 0 duplicates\n"
    )
    shown = answer.stderr.splitlines()
    assert shown[0] == "wiki.jsonl:2: rejected: text: empty"
    assert shown[5:] == ["... and 2 more rejected"]
    rejections = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [one["line"] for one in rejections] == list(range(2, 9))
    assert rejections[0] == {
        "line": 2,
        "id": "0",
        "reason": "text: empty",
        "raw": '{"id": 0, "text": ""}',
    }

    shell.write("wiki.jsonl", {"id": "good", "text": "good"})
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    assert not kept.exists()


def test_two_corpora_of_one_stem_share_their_file_of_rejections(shell: Shell) -> None:
    shell.write("wiki.jsonl", "broken")
    (shell.directory / "wiki.csv").write_text('id,text\n1,""\n')

    shell("vec-enqueue", "wiki.jsonl", "wiki.csv", "--collection", "wiki")

    assert len((shell.directory / "wiki.rejected.jsonl").read_text().splitlines()) == 2


def test_rejected_lines_that_no_file_can_take_are_shown_whole(shell: Shell) -> None:
    (shell.directory / "piped.rejected.jsonl").mkdir()
    bad = [json.dumps({"id": index, "text": "\x1b" * 20_000}) for index in range(20)]

    answer = shell("vec-enqueue", "-", "--collection", "piped", stdin="\n".join(bad) + "\n")

    assert answer.returncode == 1
    warning, *shown = answer.stderr.splitlines()
    assert warning.startswith("Warning: piped.rejected.jsonl cannot be written (Is a directory)")
    assert [json.loads(line)["line"] for line in shown] == list(range(1, 21))
    assert answer.stdout == "piped: 0 new, 0 unchanged, 20 rejected, 0 duplicates\n"


def test_a_folder_is_one_corpus_whose_rejections_name_their_files(shell: Shell) -> None:
    folder = shell.directory / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.md").write_text("# A page")
    (folder / "logo.png").write_bytes(b"PNG")
    shell.write("docs/b.jsonl", {"id": "b", "text": "b"}, "broken")

    unnamed = shell("vec-enqueue", "docs")
    assert unnamed.returncode == 2
    assert "Name the collection of docs with --collection." in unnamed.stderr

    answer = shell("vec-enqueue", "docs", "--collection", "docs")
    assert answer.returncode == 1
    assert answer.stdout.startswith(
        "docs: 2 new, 0 unchanged, 1 rejected (see docs.rejected.jsonl)"
    )
    assert answer.stderr.splitlines() == [
        "docs: 1 file of other kinds skipped: .png",
        "docs/b.jsonl:2: rejected: malformed JSON: Expecting value (character 1)",
    ]
    kept = json.loads((shell.directory / "docs.rejected.jsonl").read_text())
    assert (kept["file"], kept["line"]) == ("docs/b.jsonl", 2)

    again = shell("vec-enqueue", "docs", "--collection", "docs", "--whole-files")
    assert "2 unchanged" in again.stdout
    assert "pending: " in shell("vec", "verify", "docs", "--collection", "docs").stderr


def test_shards_of_a_pattern_that_share_ids_are_warned_of(shell: Shell) -> None:
    (shell.directory / "s").mkdir()
    for shard in range(3):
        shell.write(f"s/{shard}.jsonl", *({"id": n, "text": f"{shard} {n}"} for n in range(5)))

    answer = shell("vec-enqueue", "s/*.jsonl", "--collection", "s")

    assert "Warning: s: 10 ids in more than one source" in answer.stderr


def test_an_unreadable_shard_prunes_nothing(shell: Shell) -> None:
    (shell.directory / "s").mkdir()
    shell.write("s/a.jsonl", *texts(3))
    shell.write("s/b.jsonl", {"id": "gone", "text": "gone"})
    prune = ("vec-enqueue", "s/*", "--collection", "s", "--prune", "--yes")
    assert shell(*prune).returncode == 0
    (shell.directory / "s" / "b.jsonl").rename(shell.directory / "s" / "b.jsonl.gz")

    answer = shell(*prune)

    assert answer.returncode == 1
    assert "s/b.jsonl.gz:1: rejected: is not gzip data" in answer.stderr
    assert "s: nothing is pruned: s/*: s/b.jsonl.gz: is not gzip data" in answer.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text-field", "a", "--text-field", "b"), "is given twice: to join fields"),
        (("--text-field", "a", "--template", "{b}"), "--template makes the text"),
        (("--delimiter", "ab"), "is one character"),
        (("--template", "x"), "names no field"),
    ],
)
def test_options_that_do_not_go_together_are_an_error(
    shell: Shell, words: tuple[str, ...], message: str
) -> None:
    shell.write("wiki.jsonl", {"a": "x"})
    answer = shell("vec-enqueue", "wiki.jsonl", *words)
    assert answer.returncode == 2
    assert message in answer.stderr


# Two sources


@pytest.mark.heavy
def test_two_sources_of_one_name_are_refused_before_anything_is_sent(shell: Shell) -> None:
    for directory in ("en", "de"):
        (shell.directory / directory).mkdir()
        shell.write(f"{directory}/train.jsonl", *texts(3))
    long = "x" * 100
    for name in (f"{long}1.jsonl", f"{long}2.jsonl", "wiki.jsonl", "wiki.csv"):
        shell.write(name, *texts(1))

    for pair in (
        ("en/train.jsonl", "de/train.jsonl"),
        (f"{long}1.jsonl", f"{long}2.jsonl"),
        ("wiki.jsonl", "wiki.csv"),
    ):
        answer = shell("vec-enqueue", *pair)

        assert answer.returncode == 2
        said = answer.stderr.splitlines()[-1]
        assert said.startswith(f"Error: {pair[0]}, {pair[1]} would all go into collection ")
        assert "--collection" in said
    assert json.loads(shell("vec", "status", "--json").stdout) == []


def test_a_name_without_a_letter_that_can_stay_is_refused(shell: Shell) -> None:
    shell.write("文書.jsonl", *texts(1))

    for command in (["vec-enqueue"], ["vec", "verify"]):
        answer = shell(*command, "文書.jsonl")

        assert answer.returncode == 2
        assert "name one with --collection" in answer.stderr
    assert shell("vec-enqueue", "文書.jsonl", "--collection", "docs").returncode == 0


@pytest.mark.heavy
def test_ids_that_sources_of_one_run_share_are_counted_and_nothing_is_called_lost(
    shell: Shell, worker_process: StartWorker
) -> None:
    worker_process()
    shell.write("en.jsonl", *texts(200))
    shell.write(
        "de.jsonl", *[{"id": f"doc-{index}", "text": f"Text {index}"} for index in range(150)]
    )
    command = ("vec-enqueue", "en.jsonl", "de.jsonl", "--collection", "both", "--wait")

    first, again = shell(*command), shell(*command)

    assert first.returncode == 0, first.stderr
    assert "Warning: both: 150 ids in more than one source: of each the last" in first.stderr
    assert first.stdout.startswith("both: 200 new, 150 duplicates, all embedded")
    assert "150 ids in more than one source" in again.stderr
    assert again.returncode == 0


@pytest.mark.heavy
def test_another_source_under_the_same_ids_is_said_and_the_same_one_changed_is_not(
    shell: Shell,
) -> None:
    for directory in ("en", "de"):
        (shell.directory / directory).mkdir()
    shell.write("en/train.jsonl", *texts(3))
    shell.write("de/train.jsonl", *[{"id": f"doc-{index}", "text": "Text"} for index in range(4)])
    shell("vec-enqueue", "en/train.jsonl")

    other = shell("vec-enqueue", "de/train.jsonl")

    assert other.stdout.startswith("train: 4 new (3 in place of another text), 0 unchanged")
    [warning] = other.stderr.splitlines()
    assert warning.startswith(
        f"Warning: train was fed from {shell.directory}/en/train.jsonl so far"
    )
    assert warning.endswith("name another collection with --collection")
    assert shell("vec-enqueue", "en/train.jsonl").stderr == ""  # both are known now
    shell.write("fresh.jsonl", {"id": "other", "text": "other"})
    assert shell("vec-enqueue", "fresh.jsonl", "--collection", "train").stderr == ""


def test_a_collection_keeps_to_one_model(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(1))
    shell("vec-enqueue", "wiki.jsonl", "--model", "first")

    answer = shell("vec-enqueue", "wiki.jsonl", "--model", "second")

    assert answer.returncode == 2
    assert answer.stderr.startswith("Error: collection wiki has vectors of model first, not second")


# Waiting


def test_wait_ends_with_every_vector_and_one_line(
    shell: Shell, worker_process: StartWorker
) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(250))

    answer = shell("vec-enqueue", "wiki.jsonl", "--keep-text", "-o", "wiki.vectors.jsonl")

    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "wiki: waiting for 250 texts\n"
    assert answer.stdout.startswith("wiki: 250 new, all embedded in ")
    assert answer.stdout.endswith("; 250 vectors written to wiki.vectors.jsonl\n")
    lines = (shell.directory / "wiki.vectors.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in lines]
    assert {one["id"]: one["text"] for one in written} == {
        one["id"]: one["text"] for one in texts(250)
    }
    verified = shell("vec", "verify", "wiki.jsonl")
    assert (verified.returncode, verified.stdout) == (
        0,
        "wiki: 250 of 250 texts embedded, 0 pending, 0 dead, 0 missing; 0 lines rejected: "
        "complete\n",
    )


def test_results_on_standard_output_are_the_vectors_alone(
    shell: Shell, worker_process: StartWorker
) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(3))

    answer = shell("vec-enqueue", "wiki.jsonl", "-o", "-")

    assert sorted(json.loads(line)["id"] for line in answer.stdout.splitlines()) == [
        "doc-0",
        "doc-1",
        "doc-2",
    ]
    assert answer.stderr.endswith("; 3 vectors written to standard output\n")


def test_a_wait_without_a_worker_says_so_and_how_to_start_one(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))
    waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait")
    assert waiting.stderr is not None

    assert waiting.stderr.readline() == "wiki: waiting for 3 texts\n"
    assert waiting.stderr.readline().startswith(
        "wiki: no worker is alive: start one with vec worker"
    )

    waiting.send_signal(signal.SIGINT)
    _, rest = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert rest == (
        "Stopped: 0 of 3 texts done. The work continues; to look at it: vec status wiki\n"
    )


@pytest.mark.heavy
def test_a_dead_text_is_exit_code_1_and_can_be_seen_and_tried_again(
    shell: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    api.faults(rules=[{"answer": "named", "marker": "text 1"}])
    shell.write("wiki.jsonl", *texts(3))

    answer = shell("vec-enqueue", "wiki.jsonl", "--wait")

    assert answer.returncode == 1
    assert answer.stdout.startswith(
        "wiki: 3 new, 1 dead (see vec dead wiki), the rest embedded in "
    )
    [letter] = json.loads(shell("vec", "dead", "wiki", "--json").stdout)
    assert (letter["id"], letter["text"]) == ("doc-1", "text 1")
    table = shell("vec", "dead", "wiki").stdout
    assert "doc-1" in table
    assert table.splitlines()[-1].startswith("1 dead letter: 1 ")
    [reason] = json.loads(shell("vec", "dead", "wiki", "--count", "--json").stdout)
    assert reason == {"count": 1, "code": letter["code"], "reason": letter["reason"]}
    none_of_these = shell("vec", "dead", "wiki", "--code", "other").stdout
    assert none_of_these == "no dead letters of code other\n"
    chosen = shell("vec", "dead", "wiki", "--code", letter["code"]).stdout
    assert f"vec retry wiki --code {letter['code']}" in chosen.splitlines()[-1]
    verified = shell("vec", "verify", "wiki.jsonl")
    assert verified.returncode == 1
    assert "dead: doc-1\n" in verified.stderr

    again = shell("vec-enqueue", "wiki.jsonl")
    assert again.returncode == 1
    assert "1 dead before (see vec dead wiki)" in again.stdout

    api.faults()
    none = shell("vec", "retry", "wiki", "--code", "other")
    assert (none.returncode, none.stdout) == (0, "wiki: 0 dead letters put back\n")
    put_back = shell("vec", "retry", "wiki", "doc-1", "doc-2", "--code", letter["code"])
    assert put_back.stdout == "wiki: 1 dead letter put back\n"
    assert put_back.returncode == 1  # doc-2 was none
    assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0
    assert shell("vec", "verify", "wiki.jsonl").returncode == 0


def test_a_halt_ends_the_wait_with_its_reason_and_resume_goes_on(
    shell: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    api.faults(rules=[{"answer": "revoked"}])
    shell.write("wiki.jsonl", *texts(3))

    answer = shell("vec-enqueue", "wiki.jsonl", "-o", "vectors.jsonl")

    assert answer.returncode == 1
    assert answer.stdout == "wiki: 3 new, 3 not embedded\n"
    begun, halt, file = answer.stderr.splitlines()
    assert begun == "wiki: waiting for 3 texts"
    assert halt.startswith("wiki is halted: the API refuses the key")
    assert halt.endswith("When that is fixed: vec resume wiki")
    assert file == "vectors.jsonl is not written: vectors are missing"
    assert not (shell.directory / "vectors.jsonl").exists()
    assert read_status(shell, "wiki")["state"] == "halted"
    queued = shell("vec-enqueue", "wiki.jsonl")
    assert (queued.returncode, queued.stderr) == (1, halt + "\n")

    api.faults()
    assert shell("vec", "resume").stdout == "wiki: resumed\n"
    assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0


def test_a_wait_ends_in_time_with_exit_code_1_and_a_line(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))

    enqueued = shell("vec-enqueue", "wiki.jsonl", "--wait", "--timeout", "0.1")
    waited = shell("vec", "wait", "wiki", "--timeout", "0.1")

    left = "wiki: 3 texts not done in time: no worker is alive: start one with "
    for answer in (enqueued, waited):
        assert answer.returncode == 1
        begun, end = answer.stderr.splitlines()
        assert begun == "wiki: waiting for 3 texts"
        assert end.startswith(left)
    assert enqueued.stdout == "wiki: 3 new, 3 not embedded\n"
    assert waited.stdout == "wiki: 0 of 3 embedded, 3 not embedded\n"


def test_a_wait_ends_in_time_with_exit_code_1_while_redis_is_away(
    shell: Shell, redis_server: RedisServer, proxy: Callable[[str], TcpProxy]
) -> None:
    line = proxy(redis_server.url)
    shell.write("wiki.jsonl", *texts(1))
    limit = ["--timeout", "5", "--redis-url", line.url]
    waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait", *limit)
    assert waiting.stderr is not None
    assert "waiting for 1 text" in waiting.stderr.readline()

    line.refuse()
    _, rest = waiting.communicate(timeout=30)
    assert waiting.returncode == 1
    assert "wiki: not done in time: Redis does not answer" in rest.splitlines()[-1]


def test_a_wait_for_room_in_redis_ends_in_time_with_exit_code_1(
    shell: Shell, redis_client: redis.Redis
) -> None:
    shell.write("wiki.jsonl", *texts(1))
    redis_client.config_set("maxmemory", "1mb")
    try:
        waited = shell("vec-enqueue", "wiki.jsonl", "--wait", "--timeout", "1")
    finally:
        redis_client.config_set("maxmemory", "0")
    assert waited.returncode == 1
    last = waited.stderr.splitlines()[-1]
    assert last.startswith("wiki: not all queued in time: waiting: Redis is ")


@pytest.mark.parametrize("seconds", ["nan", "-1", "soon"])
def test_a_wait_refuses_a_time_that_is_none(shell: Shell, seconds: str) -> None:
    for words in (["vec", "wait", "wiki"], ["vec-enqueue", "wiki.jsonl", "--wait"]):
        done = shell(*words, "--timeout", seconds)
        assert done.returncode == 2
        assert "--timeout" in done.stderr and seconds in done.stderr


def test_a_collection_can_be_waited_for_by_another_process(
    shell: Shell, worker_process: StartWorker
) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")
    worker_process()

    answer = shell("vec", "wait", "wiki")

    assert (answer.returncode, answer.stdout) == (0, "wiki: 3 of 3 embedded\n")


def test_what_is_enqueued_into_a_pause_is_said_to_stand_still(
    shell: Shell, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl", "--wait")
    shell("vec", "pause", "--reason", "a rest")
    wait_for_heartbeat(redis_client)
    shell.write("wiki.jsonl", *texts(5))

    answer = shell("vec-enqueue", "wiki.jsonl")

    assert answer.returncode == 0
    assert answer.stderr == "wiki is paused: by hand: a rest. To continue: vec resume wiki\n"


def test_a_wait_outlasts_a_redis_that_is_away_for_a_moment(
    shell: Shell, redis_server: RedisServer, proxy: Callable[[str], TcpProxy]
) -> None:
    line = proxy(redis_server.url)
    shell.write("wiki.jsonl", *texts(1))
    waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait", "--redis-url", line.url)
    assert waiting.stderr is not None
    assert "waiting for 1 text" in waiting.stderr.readline()
    assert "no worker is alive" in waiting.stderr.readline()

    line.refuse()
    assert "wiki: Redis does not answer" in waiting.stderr.readline()
    line.refuse(False)

    waiting.send_signal(signal.SIGINT)
    _, rest = waiting.communicate(timeout=20)
    assert rest.startswith("Stopped: 0 of 1 text done.")


def test_a_terminal_shows_how_far_it_is_and_is_left_clean(
    shell: Shell, api: API, worker_process: StartWorker
) -> None:
    worker_process()
    api.faults(latency=0.3)
    shell.write("wiki.jsonl", *texts(3000))
    ours, theirs = pty.openpty()

    running = shell.start("vec-enqueue", "wiki.jsonl", "--wait", terminal=theirs)
    os.close(theirs)
    screen = _read_terminal(ours)

    out, _ = running.communicate(timeout=50)
    assert running.returncode == 0
    assert "/3,000" in screen
    assert "/s" in screen
    assert "left" in screen
    assert out.startswith("wiki: 3,000 new, all embedded in ")
    assert out.count("\n") == 1


def _read_terminal(ours: int) -> str:
    """All that is written to a terminal until its writers have gone."""
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # so Linux says that the other side is closed
            part = b""
        if not part:
            os.close(ours)
            return seen.decode()
        seen += part


# Looking


def test_status_as_json_is_an_array_or_one_object(shell: Shell) -> None:
    assert json.loads(shell("vec", "status", "--json").stdout) == []
    assert shell("vec", "status").stdout == "no collections yet\n"
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")

    [one] = json.loads(shell("vec", "status", "--json").stdout)

    assert one == read_status(shell, "wiki")
    asked = (
        "collection model dimensions enqueued embedded evicted cached dead pending leased "
        "unchanged state reason"
    )
    assert set(asked.split()) <= set(one)
    assert (one["collection"], one["enqueued"], one["pending"], one["state"]) == (
        "wiki",
        3,
        3,
        "waiting",
    )


def test_tables_in_a_pipe_have_no_colour(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")

    for arguments in (["status"], ["status", "wiki"], ["dead", "wiki"]):
        assert "\x1b" not in shell("vec", *arguments).stdout


def test_an_unknown_collection_is_named_with_the_known_ones(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(1))
    shell("vec-enqueue", "wiki.jsonl")

    for arguments in (
        ["status", "nope", "--json"],
        ["export", "nope", "-o", "nope.jsonl"],
        ["verify", "wiki.jsonl", "--collection", "nope"],
        ["dead", "nope"],
        ["retry", "nope"],
        ["resume", "nope"],
    ):
        answer = shell("vec", *arguments)

        assert answer.returncode == 2
        assert answer.stderr == "Error: no collection 'nope' here; there is wiki\n"
        assert answer.stdout == ""


def test_an_export_tells_what_is_not_in_it(shell: Shell) -> None:
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl")

    answer = shell("vec", "export", "wiki", "-o", "wiki.npz")

    assert answer.returncode == 0  # as other programs that export do
    assert answer.stdout == "wiki: 0 vectors written to wiki.npz (3 not embedded yet)\n"
    assert answer.stderr == "Warning: wiki: the export has no vectors: nothing is embedded yet\n"


def test_a_npy_is_written_with_its_ids_beside_it(shell: Shell, worker_process: StartWorker) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(3))
    shell("vec-enqueue", "wiki.jsonl", "--wait")

    answer = shell("vec", "export", "wiki", "-o", "wiki.npy")

    assert answer.stdout == "wiki: 3 vectors written to wiki.npy, their ids to wiki.ids.json\n"
    ids = json.loads((shell.directory / "wiki.ids.json").read_text())
    assert ids == ["doc-0", "doc-1", "doc-2"]


@pytest.mark.parametrize("name", ["wiki.npy", "wiki.NPZ"])
def test_an_array_is_no_name_for_a_folder(shell: Shell, name: str) -> None:
    answer = shell("vec", "export", "wiki", "-o", name, "--follow")

    assert answer.returncode == 2
    assert "write .jsonl or .parquet files into a folder: name one with -o" in answer.stderr
    assert not (shell.directory / name).exists()


def test_nobody_reading_on_is_no_error(shell: Shell, worker_process: StartWorker) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(200))
    shell("vec-enqueue", "wiki.jsonl", "--wait")

    reading = shell.start("vec", "export", "wiki", "-o", "-")
    assert reading.stdout is not None
    assert reading.stdout.readline().startswith('{"id":"doc-')
    reading.stdout.close()

    assert reading.stderr is not None
    assert reading.stderr.read() == ""
    assert reading.wait(20) == 141


def test_an_export_of_what_is_dropped_meanwhile_is_an_error(
    shell: Shell, worker_process: StartWorker
) -> None:
    worker_process()
    shell.write("wiki.jsonl", *texts(1000))
    shell("vec-enqueue", "wiki.jsonl", "--wait")
    reading = shell.start("vec", "export", "wiki", "-o", "-")
    assert reading.stdout is not None and reading.stderr is not None
    reading.stdout.readline()  # the rest waits for the pipe

    shell("vec", "drop", "wiki", "--yes")

    assert 0 < len(reading.stdout.readlines()) < 999
    assert reading.stderr.read() == (
        "Error: collection wiki was dropped, or lost by Redis, while it was read: "
        "what was read is not all: see vec status wiki\n"
    )
    assert reading.wait(20) == 2


def test_names_outside_the_locale_are_escaped(shell: Shell) -> None:
    shell.write("wiki文.jsonl", "broken")

    answer = shell("vec-enqueue", "wiki文.jsonl", PYTHONIOENCODING="latin-1")

    assert answer.returncode == 1
    assert r"1 rejected (see wiki\u6587.rejected.jsonl)" in answer.stdout
    assert answer.stderr.startswith(r"wiki\u6587.jsonl:1: rejected")


# On one machine


def test_local_embeds_with_nothing_but_this_machine_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "local"
    nowhere = "redis://127.0.0.1:1/0"
    environ = {
        "VECTOR_EMBED_LOCAL_DIR": str(directory),
        "VECTOR_EMBED_REDIS_URL": nowhere,
        "VECTOR_EMBED_API_KEY": "not for this",
    }
    shell = Shell(tmp_path, environ)
    shell.write("corpus.jsonl", *texts(30))

    first = shell("vec-enqueue", "corpus.jsonl", "--local")
    second = shell("vec-enqueue", "corpus.jsonl", "--local")

    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("corpus: 30 new, all embedded in ")
    written = "; 30 vectors written to corpus.vectors.jsonl\n"
    assert first.stdout.endswith(written)
    assert second.stdout == f"corpus: 0 new, 30 unchanged, all embedded{written}"
    line = json.loads((tmp_path / "corpus.vectors.jsonl").read_text().splitlines()[0])
    assert line["text"].startswith("text ")
    assert shell("vec", "verify", "corpus.jsonl", "--local").returncode == 0
    assert _is_gone(directory)


def test_ctrl_c_under_local_stops_what_was_started(tmp_path: Path) -> None:
    directory = tmp_path / "local"
    shell = Shell(tmp_path, {"VECTOR_EMBED_LOCAL_DIR": str(directory)})
    # Never read to its end: nobody writes into this pipe.
    corpus = tmp_path / "endless.jsonl"
    os.mkfifo(corpus)
    writer = os.open(corpus, os.O_RDWR)
    running = shell.start("vec-enqueue", "endless.jsonl", "--local")
    wait_until(lambda: (directory / "worker.log").exists(), 60, "the local worker")

    running.send_signal(signal.SIGINT)

    running.communicate(timeout=60)
    os.close(writer)
    assert running.returncode == 130
    assert _is_gone(directory)


def _is_gone(directory: Path) -> bool:
    """Whether nothing of the local stack runs any more."""
    with Lock(directory / "keeper.lock") as keeper:
        return keeper.take()


def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_traceback(shell: Shell) -> None:
    (shell.directory / "click.py").write_text("raise KeyboardInterrupt\n")
    for name in ("vec", "vec-enqueue"):
        ended = shell(name, "--help", PYTHONPATH=str(shell.directory))
        assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
