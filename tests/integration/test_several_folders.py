"""After a shrink the evicted vectors are in several folders: `--export` is given once for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import pytest
from faulty_api.vectors import expected_vector
from servers import API, WorkerProcess, wait_until
from shell import Shell
from stored import Bench, check_ledger

pytestmark = pytest.mark.heavy

ONE, TWO = ("--export", "one"), ("--export", "two")


def feed(bench: Bench, *pairs: tuple[str, str]) -> None:
    bench.add(*pairs)
    bench.embed_all()


def export(shell: Shell, folder: str) -> None:
    done = shell("vec", "export", "wiki", "-o", f"{folder}/", "--evict")
    assert done.returncode == 0, done.stderr


def write(shell: Shell, names: Iterable[str]) -> None:
    shell.write("wiki.jsonl", *({"id": name, "text": f"text {name}"} for name in names))


@pytest.fixture
def folders(shell: Shell, bench: Bench) -> None:
    """The folders one and two, with vectors before and after a shrink.

    a and b are in folder one, c in two, d in Redis. `again` is in both, with an earlier text in
    one; `gone` is in one, with a tombstone in two.
    """
    shell.environ["VECTOR_EMBED_MODEL"] = "m"
    earlier = [("again", "earlier"), ("gone", "text gone")]
    feed(bench, ("a", "text a"), ("b", "text b"), *earlier)
    export(shell, "one")
    bench.collection.shrink(dtype="float16")
    feed(bench, ("c", "text c"), ("again", "text again"))
    bench.collection.delete(["gone"])
    export(shell, "two")
    feed(bench, ("d", "text d"))


@pytest.mark.usefixtures("folders")
def test_verify_reads_all_folders_in_the_order_of_the_commits(bench: Bench, shell: Shell) -> None:
    write(shell, ["a", "b", "c", "d", "again"])
    for folders in ((*ONE, *TWO), (*TWO, *ONE), (*ONE, *TWO, *ONE)):
        done = shell("vec", "verify", "wiki.jsonl", *folders)
        assert (done.returncode, done.stderr) == (0, "")
        assert "5 of 5 texts embedded (4 of them in files)" in done.stdout

    write(shell, ["c", "d", "again"])
    found = shell("vec", "verify", "wiki.jsonl", *ONE, *TWO)
    assert (found.returncode, found.stderr) == (1, "surplus: a, b\n")
    blind = shell("vec", "verify", "wiki.jsonl", *TWO)
    assert (blind.returncode, blind.stderr) == (
        1,
        "2 evicted ids not looked at: name their folder with --export\n",
    )


@pytest.mark.usefixtures("folders")
def test_a_prune_and_its_dry_run_look_into_all_folders(bench: Bench, shell: Shell) -> None:
    write(shell, ["b", "d", "again"])
    command = ("vec-enqueue", "wiki.jsonl", "--prune", "--yes")
    dry = shell(*command, *ONE, *TWO, "--dry-run")
    assert dry.returncode == 0
    assert "2 of 5 ids" in dry.stdout + dry.stderr, dry
    half = shell(*command, *TWO)
    assert "2 evicted ids not looked at: name their folder with --export\n" in half.stderr
    assert "wiki: pruned, 1 id removed\n" in half.stderr
    rest = shell(*command, *ONE, *TWO)
    assert "not looked at" not in rest.stderr
    assert "wiki: pruned, 1 id removed\n" in rest.stderr
    assert shell("vec", "verify", "wiki.jsonl", *ONE, *TWO).returncode == 0
    assert bench.status.removed == 3


@pytest.mark.usefixtures("folders")
def test_a_prefix_is_looked_for_in_all_folders(bench: Bench, shell: Shell) -> None:
    done = shell("vec", "delete", "wiki", "--prefix", "", *ONE)
    assert done.returncode == 2
    done = shell("vec", "delete", "wiki", "--prefix", "a", *TWO)
    assert "2 evicted ids not looked at: name their folder with --export\n" in done.stderr
    assert done.stdout == "wiki: 1 id deleted\n"  # again
    for name in "ac":
        done = shell("vec", "delete", "wiki", "--prefix", name, *ONE, *TWO)
        assert (done.returncode, done.stderr) == (0, "")
    write(shell, ["b", "d"])
    assert shell("vec", "verify", "wiki.jsonl", *ONE, *TWO).returncode == 0


@pytest.mark.usefixtures("folders")
def test_a_folder_that_is_not_there_is_an_error_beside_one_that_is(
    bench: Bench, shell: Shell
) -> None:
    write(shell, "d")
    for command in (
        ("vec", "verify", "wiki.jsonl"),
        ("vec-enqueue", "wiki.jsonl", "--prune", "--yes"),
        ("vec", "delete", "wiki", "--prefix", "a"),
    ):
        done = shell(*command, *ONE, "--export", "three")
        assert done.returncode != 0
        assert "three: there is no such folder" in done.stderr
    assert bench.status.removed == 1


def test_a_shrink_beside_an_export_that_follows_and_evicts_loses_nothing(
    bench: Bench, shell: Shell, api: API, worker_process: Callable[..., WorkerProcess]
) -> None:
    worker_process()
    texts = {f"id-{number}": f"text {number}" for number in range(2000)}
    corpus = shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in texts.items()))
    follow = ("vec", "export", "wiki", "--follow", "--evict", "--rotate", "200", "-o")
    follower = shell.start(*follow, "one/")
    assert shell("vec-enqueue", corpus.name).returncode == 0
    wait_until(lambda: bench.collection.status().evicted >= 200, 60)

    done = shell("vec", "shrink", "wiki", "--dtype", "float16", "--yes")
    assert done.returncode == 0, done.stderr
    _, said = follower.communicate(timeout=90)
    assert follower.returncode == 2
    (error,) = (line for line in said.splitlines() if line.startswith("Error: "))
    assert "the layout of collection wiki changed" in error or "name a new folder" in error
    again = shell("vec", "export", "wiki", "--evict", "-o", "one/")
    assert again.returncode == 2 and again.stderr.endswith("now: name a new folder\n")
    more = {f"more-{number}": f"more text {number}" for number in range(50)}
    shell.write("wiki.jsonl", *({"id": id, "text": text} for id, text in {**texts, **more}.items()))
    assert shell("vec-enqueue", corpus.name).returncode == 0
    done = shell(*follow, "two/", "--until-done")
    assert done.returncode == 0, done.stderr

    status = check_ledger(bench.collection.status())
    assert (status.evicted, status.embedded) == (len(texts) + len(more), 0)
    verified = shell("vec", "verify", corpus.name, *ONE, *TWO)
    assert (verified.returncode, verified.stderr) == (0, "")
    found = set()
    for path in shell.directory.glob("*/wiki-*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["id"] not in found, row["id"]
            found.add(row["id"])
            text = {**texts, **more}[row["id"]]
            assert row["vector"] == pytest.approx(expected_vector(text), abs=1e-3)
    assert found == texts.keys() | more.keys()
    assert api.log().charged == len(found)
