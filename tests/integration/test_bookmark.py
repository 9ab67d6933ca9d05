"""Runs of several files that are stopped, and begun again: files that are done are skipped.

What is left must be what reading all of them would leave: see also `tests/chaos/test_bookmark.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

import pytest
import redis
from servers import wait_until
from shell import Finished, Shell
from stored import Bench

from worker.store.adder import Adder
from worker.store.bookmark import Bookmark
from worker.types import Job, Rejection

FILES = ("1.jsonl", "2.jsonl", "3.jsonl")
SKIPPED = "wiki: 2 files skipped: an earlier run had queued all texts of them"
LONG = "word " * 20
SPLIT = ("--long", "split", "--chunk-size", "50")


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A prompt for the model of the bench."""
    shell.environ["VECTOR_EMBED_MODEL"] = "m"
    return shell


def line(id: str, text: str = "") -> dict[str, str]:
    return {"id": id, "text": text or f"text {id}"}


def files(shell: Shell) -> None:
    """Three files of two texts each."""
    for number in "123":
        shell.write(f"{number}.jsonl", line(f"{number}a"), line(f"{number}b"))


def stopped(bench: Bench, shell: Shell, *options: str) -> None:
    """A run of the files, killed when it has done the first two."""
    (shell.directory / "3.jsonl").unlink(missing_ok=True)
    os.mkfifo(shell.directory / "3.jsonl")  # opening it waits for someone who writes
    process = shell.start("vec-enqueue", *FILES, "--collection", "wiki", *options)
    key = bench.collection.keys.bookmark
    wait_until(lambda: bench.redis.hget(key, "2") is not None, 30, "two files are done")
    process.kill()
    process.wait()
    (shell.directory / "3.jsonl").unlink()
    shell.write("3.jsonl", line("3a"), line("3b"))


def again(shell: Shell, *options: str) -> Finished:
    return shell("vec-enqueue", *FILES, "--collection", "wiki", *options)


def texts(bench: Bench) -> dict[str, str]:
    """The text of each id, all of which are queued."""
    entries = bench.redis.xrange(bench.collection.keys.jobs, "-", "+", 10_000)
    return {entry[b"id"].decode(): entry[b"text"].decode() for _, entry in entries}


def test_files_that_a_killed_run_had_done_are_not_opened_again(bench: Bench, shell: Shell) -> None:
    files(shell)
    stopped(bench, shell)
    for name in FILES[:2]:  # a change that no one can see without opening the file
        path = shell.directory / name
        was = path.stat()
        path.write_text("x" * was.st_size)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    done = again(shell)
    assert done.stderr.startswith(SKIPPED)
    assert "wiki (3.jsonl): 2 new, 0 unchanged, 0 rejected, 0 duplicates\n" in done.stdout
    assert "0 duplicates, 1 file of an earlier run skipped" in done.stdout
    assert done.returncode == 0
    assert len(texts(bench)) == 6
    assert not bench.redis.exists(bench.collection.keys.bookmark)


def test_after_a_run_that_ended_no_file_is_skipped(bench: Bench, shell: Shell) -> None:
    files(shell)
    stopped(bench, shell)
    again(shell)
    done = again(shell)
    assert "skipped" not in done.stdout + done.stderr
    assert "wiki (1.jsonl): 0 new, 2 unchanged, 0 rejected" in done.stdout


def rewrite(bench: Bench, shell: Shell) -> None:
    shell.write("1.jsonl", line("1a", "newer"), line("1b"))


def delete(bench: Bench, shell: Shell) -> None:
    assert bench.collection.delete(["1a"]) == 1


def replace(bench: Bench, shell: Shell) -> None:
    bench.add(("2a", "of another producer"))


def drop(bench: Bench, shell: Shell) -> None:
    bench.collection.drop()


def drop_and_begin_again(bench: Bench, shell: Shell) -> None:
    bench.collection.drop()
    bench.add(*((f"other{number}", "text") for number in range(4)))


@pytest.mark.heavy
@pytest.mark.parametrize(
    "happens", [rewrite, delete, replace, drop, drop_and_begin_again], ids=lambda one: one.__name__
)
def test_what_changes_meanwhile_is_read_again(
    bench: Bench, shell: Shell, happens: Callable[[Bench, Shell], None]
) -> None:
    files(shell)
    stopped(bench, shell)
    happens(bench, shell)
    done = again(shell)
    assert done.returncode == 0
    assert SKIPPED not in done.stderr
    for number in "123":
        for record in (shell.directory / f"{number}.jsonl").read_text().splitlines():
            said = json.loads(record)
            assert texts(bench)[said["id"]] == said["text"]


def test_only_the_files_before_the_first_change_are_skipped(bench: Bench, shell: Shell) -> None:
    files(shell)
    stopped(bench, shell)
    shell.write("2.jsonl", line("2a"), line("2c"))
    assert again(shell).stderr.startswith("wiki: 1 file skipped: ")
    assert texts(bench).keys() == {"1a", "1b", "2a", "2b", "2c", "3a", "3b"}


@pytest.mark.heavy
@pytest.mark.parametrize("options", [("--keep", "x"), ("--template", "{id}"), ("--long", "cut")])
def test_a_run_that_reads_the_files_in_another_way_skips_none(
    bench: Bench, shell: Shell, options: Sequence[str]
) -> None:
    files(shell)
    stopped(bench, shell)
    assert SKIPPED not in again(shell, *options).stderr


def test_a_text_comes_back_if_the_file_that_replaced_it_has_it_no_more(
    bench: Bench, shell: Shell
) -> None:
    files(shell)
    shell.write("2.jsonl", line("1a", "later"))
    stopped(bench, shell)
    shell.write("2.jsonl", line("2a"))
    assert "skipped" not in again(shell).stderr
    assert texts(bench)["1a"] == "text 1a"


def test_rejected_lines_of_a_skipped_file_are_told_again(bench: Bench, shell: Shell) -> None:
    files(shell)
    shell.write("2.jsonl", line("2a"), '{"id": "bad"', line("2b"))
    stopped(bench, shell)
    (shell.directory / "2.rejected.jsonl").unlink()
    done = again(shell)
    assert done.stderr.startswith(SKIPPED)
    assert "2.jsonl:2: rejected: malformed JSON" in done.stderr
    assert "1 rejected (see 2.rejected.jsonl)" in done.stdout
    assert (shell.directory / "2.rejected.jsonl").exists()
    assert done.returncode == 1


def test_dead_letters_show_also_when_their_files_are_skipped(bench: Bench, shell: Shell) -> None:
    files(shell)
    stopped(bench, shell)
    bench.embed_all(refuse=["text 1a"])
    done = again(shell)
    assert SKIPPED in done.stderr
    assert "wiki: 1 dead, some maybe in skipped files (see vec dead wiki)" in done.stderr
    assert done.returncode == 1


def test_ids_of_skipped_files_are_not_pruned(bench: Bench, shell: Shell) -> None:
    bench.add(("gone", "text"))
    files(shell)
    stopped(bench, shell)
    done = again(shell, "--prune", "--yes")
    assert done.stderr.startswith(SKIPPED)
    assert "wiki: pruned, 1 id removed" in done.stderr
    assert len(texts(bench)) == 6


def test_a_document_that_became_shorter_has_lost_its_tail_before_its_file_is_skipped(
    bench: Bench, shell: Shell
) -> None:
    files(shell)
    shell.write("1.jsonl", line("1a", LONG), line("1b", LONG))
    again(shell, *SPLIT)
    shell.write("1.jsonl", line("1a", LONG), line("1b", "short"))
    stopped(bench, shell, *SPLIT)
    assert SKIPPED in again(shell, *SPLIT).stderr
    ids = bench.collection.reader.names()
    assert set(ids) == {"1a#0001", "1a#0002", "1b", "2a", "2b", "3a", "3b"}


def test_files_of_several_collections_are_skipped_too(bench: Bench, shell: Shell) -> None:
    shell.write("wiki.jsonl", line("a"))
    os.mkfifo(shell.directory / "news.jsonl")
    process = shell.start("vec-enqueue", "wiki.jsonl", "news.jsonl")
    key = bench.collection.keys.bookmark
    wait_until(lambda: bench.redis.hget(key, "1") is not None, 30, "a file is done")
    process.kill()
    process.wait()
    (shell.directory / "news.jsonl").unlink()
    shell.write("news.jsonl", line("b"))
    done = shell("vec-enqueue", "wiki.jsonl", "news.jsonl")
    assert "wiki: 0 new, 0 unchanged, 0 rejected, 0 duplicates, 1 file of an" in done.stdout
    assert "news: 1 new, 0 unchanged, 0 rejected, 0 duplicates\n" in done.stdout


# The steps by themselves


class Run:
    """A run over files that have a version each, one chunk a file."""

    def __init__(
        self, bench: Bench, names: Sequence[str] = ("1", "2", "3"), way: str = "way"
    ) -> None:
        store = bench.collection
        self.bookmark = Bookmark(store.client, store.keys, way, reads=False, documents=False)
        self.adder = Adder(store.client, store.keys, "m", self.bookmark)
        self.adder.resume(names)

    def read(self, name: str, lines: Sequence[Job | Rejection] = ()) -> None:
        """Add a file, of one text if none is given."""
        assert self.bookmark.begin(name)
        watched = list(self.bookmark.watch(lines or [Job(name, f"text {name}")]))
        self.adder.add([line for line in watched if isinstance(line, Job)])


def skips(bench: Bench, names: Sequence[str] = ("1", "2", "3")) -> int:
    return Run(bench, names).bookmark.files


def test_a_run_may_be_stopped_again_and_again(bench: Bench) -> None:
    for number, name in enumerate("123"):
        run = Run(bench)
        assert run.bookmark.files == number
        for done in "123"[:number]:
            assert not run.bookmark.begin(done)
        run.read(name)
    assert skips(bench) == 3


def test_a_producer_beside_the_run_makes_its_bookmark_void(bench: Bench) -> None:
    run = Run(bench)
    run.read("1")
    bench.add(("1", "of another"))
    run.read("2")
    assert skips(bench) == 0


def test_of_two_runs_of_the_same_files_at_once_neither_misleads_the_other(bench: Bench) -> None:
    one = Run(bench)
    one.read("1")
    other = Run(bench)
    assert other.bookmark.files == 1
    one.read("2", [Job("2", "text 2"), Job("1", "later")])
    other.bookmark.begin("1")
    other.read("2")
    one.bookmark.end()
    assert skips(bench) == 0


def test_a_run_does_not_write_to_the_bookmark_of_another(bench: Bench) -> None:
    one = Run(bench, way="one")
    Run(bench, way="another")
    one.read("1")
    assert Run(bench, way="another").bookmark.files == 0


def test_a_chunk_that_redis_has_lost_is_not_taken_for_done(
    bench: Bench, redis_client: redis.Redis
) -> None:
    run = Run(bench)
    run.read("1")
    before = {name: redis_client.dump(name) or b"" for name in redis_client.scan_iter()}
    run.read("2")
    redis_client.flushall()
    for name, value in before.items():
        redis_client.restore(name, 0, value)
    run.read("3")
    assert run.adder.lost
    assert skips(bench) == 0


def test_a_file_that_gets_lost_while_it_is_skipped_is_missed(bench: Bench) -> None:
    Run(bench).read("1")
    run = Run(bench)
    assert not run.bookmark.begin("1")
    assert run.adder.intact()
    bench.collection.drop()
    assert not run.adder.intact()
    run = Run(bench)
    run.read("1")
    run = Run(bench)
    bench.collection.drop()
    run.read("2")
    assert run.adder.lost


def test_a_file_that_was_not_read_to_its_end_is_read_again_and_all_that_follow(
    bench: Bench,
) -> None:
    run = Run(bench)
    run.read("1")
    assert run.bookmark.begin("2")
    lines = run.bookmark.watch([Job("2", "text 2")], lambda: False)
    run.adder.add([line for line in lines if isinstance(line, Job)])
    run.read("3")
    assert skips(bench) == 1


def test_a_meta_that_another_producer_gives_meanwhile_makes_the_bookmark_void(
    bench: Bench,
) -> None:
    def run() -> Run:
        one = Run(bench)
        one.read("1", [Job("1", "text 1", {"page": 1})])
        return one

    run()
    bench.embed_all()
    assert skips(bench) == 1
    bench.collection.adder().add([Job("1", "text 1", {"page": 2})])
    assert skips(bench) == 0
    run().read("2", [Job("1", "text 1", {"page": 2})])
    assert skips(bench) == 2
    assert skips(bench, ("1", "another")) == 0


def test_a_file_whose_version_is_unknown_is_never_skipped(bench: Bench) -> None:
    Run(bench, ("1", "of this run alone")).read("1")
    assert skips(bench, ("1", "2")) == 1
    run = Run(bench, ("1", "x"))
    run.bookmark.begin("1")
    run.read("x")
    assert skips(bench, ("1", "y")) == 1


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("count", "a_chunk", "most"), [(10_000, 1, 1_500_000), (100_000, 1000, 20_000)]
)
def test_a_bookmark_is_small(
    bench: Bench, redis_client: redis.Redis, count: int, a_chunk: int, most: int
) -> None:
    run = Run(bench)
    for number in range(count):
        run.bookmark.begin(f"file {number}")
        if number % a_chunk == 0:
            run.adder.add([Job(f"id {number}", "text")])
    assert (redis_client.memory_usage(bench.collection.keys.bookmark) or 0) < most


def test_a_bookmark_goes_with_its_collection(bench: Bench) -> None:
    Run(bench).read("1")
    bench.collection.drop()
    assert not bench.redis.exists(bench.collection.keys.bookmark)
