"""`vec-enqueue --prune`: afterwards the collection holds what the corpora have, and no more."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from shell import Finished, Shell
from stored import Bench, pairs, positions

from worker import Job
from worker.export.surplus import Surplus
from worker.types import Rejection

REJECTED = "x" * 20_000  # as a text


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A prompt for the model of the bench."""
    shell.environ["VECTOR_EMBED_MODEL"] = "m"
    return shell


def feed(bench: Bench, *ids: str) -> None:
    """Embed the texts of these ids, in the collection wiki; those of `bad...` are refused."""
    bench.add(*[(id, f"text {id}") for id in ids])
    bench.embed_all(refuse=[f"text {id}" for id in ids if id.startswith("bad")])


def prune(shell: Shell, lines: Iterable[object], *options: str) -> Finished:
    shell.write("wiki.jsonl", *lines)
    return shell("vec-enqueue", "wiki.jsonl", "--prune", *options)


def line(id: str, text: str = "") -> dict[str, str]:
    return {"id": id, "text": text or f"text {id}"}


def held(bench: Bench, *ids: str) -> list[str]:
    """Those of the ids of which the collection knows anything."""
    known = bench.collection.reader.known(ids)
    return [id for id, one, gone in zip(ids, known.states, known.evicted) if any(one) or gone]


def test_a_run_prunes_what_it_did_not_bring_and_that_alone(bench: Bench, shell: Shell) -> None:
    feed(bench, "gone-1", "gone-2")
    assert shell("vec", "export", "wiki", "-o", "out/", "--evict").returncode == 0
    feed(bench, "evicted", "gone-3")
    bench.collection.eviction.evict("t", positions(bench)[:1], end=True)
    feed(bench, "same", "changed", "rejected", "bad", "old", "bad-old")
    bench.add(("queued-old", "text"), ("same-queued", "text"))
    lines = [
        *(line("new"), line("same"), line("changed", "newer"), line("rejected", REJECTED)),
        *(line("bad"), line("evicted"), line("same-queued", "text")),
    ]
    doomed = ["gone-1", "gone-2", "gone-3", "old", "bad-old", "queued-old"]
    brought = ["new", "same", "changed", "rejected", "bad", "evicted", "same-queued"]

    done = prune(shell, lines, "--yes", "--export", "out")

    assert "wiki: pruned, 6 ids removed\n" in done.stderr
    assert held(bench, *doomed) == []
    assert held(bench, *brought) == brought
    assert bench.status.removed == len(doomed)
    bench.embed_all()
    assert bench.status.enqueued == len(brought)


def test_without_a_folder_the_evicted_ids_are_said_not_to_be_looked_at(
    bench: Bench, shell: Shell
) -> None:
    feed(bench, "a", "b")
    bench.collection.eviction.evict("t", positions(bench)[:1], end=True)
    done = prune(shell, [line("b")])
    assert done.returncode == 0
    assert "wiki: 1 evicted id not looked at: name their folder with --export\n" in done.stderr
    assert held(bench, "a") == ["a"]


@pytest.mark.parametrize("lines", [[], ['{"id": 1, '], [""]])
def test_a_run_that_brings_no_id_prunes_nothing_also_with_yes(
    bench: Bench, shell: Shell, lines: Sequence[str]
) -> None:
    feed(bench, "a")
    refused = prune(shell, lines, "--yes")
    assert refused.returncode == 1
    said = (
        "wiki: nothing is pruned: this run brought no id. To delete all that is there: "
        "vec drop wiki"
    )
    assert refused.stderr.splitlines()[-1] == said
    assert held(bench, "a") == ["a"]
    dry = prune(shell, lines, "--dry-run")
    assert dry.returncode == 1 and dry.stderr.splitlines()[-1] == said


def test_a_fault_of_reading_prunes_nothing(bench: Bench, shell: Shell) -> None:
    feed(bench, "a", "b")
    lines = "".join(json.dumps(line(f"new {number}")) + "\n" for number in range(5000))
    whole = gzip.compress(lines.encode())
    (shell.directory / "wiki.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    cut = shell("vec-enqueue", "wiki.jsonl.gz", "--prune", "--yes")
    assert cut.returncode == 1
    assert "wiki: nothing is pruned: wiki.jsonl.gz: the gzip file ends early" in cut.stderr

    shell.write("one.jsonl", line("a"))
    words = ("one.jsonl", "two.jsonl", "--collection", "wiki", "--prune", "--yes")
    vanished = shell("vec-enqueue", *words)
    assert vanished.returncode == 2
    assert held(bench, "a", "b") == ["a", "b"]

    shell.write("two.jsonl", line("b"))
    assert shell("vec-enqueue", *words).returncode == 0
    assert held(bench, "a", "b", "new 1") == ["a", "b"]


@pytest.mark.heavy
def test_a_bad_file_in_a_folder_is_told_with_the_way_out_and_a_pattern_leaves_it_out(
    bench: Bench, shell: Shell
) -> None:
    docs = shell.directory / "docs"
    (docs / "sub").mkdir(parents=True)
    for name in ("a.md", "sub/b.md", "old.md"):
        (docs / name).write_text(f"text {name}")
    run = ("vec-enqueue", "--collection", "wiki", "--prune", "--yes")
    assert shell(*run, "docs/").returncode == 0
    (docs / "old.md").unlink()
    (docs / "package.json").write_text('{"name": "docs"}')
    refused = shell(*run, "docs/")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "wiki: nothing is pruned: docs/: docs/package.json: is not a JSON array of objects: if "
        "each line is an object, name it .jsonl; mend the file, or leave it out: name the others "
        "by a pattern"
    )
    done = shell(*run, "docs/**/*.md")
    assert done.returncode == 0 and "0 new, 2 unchanged" in done.stdout
    assert held(bench, "a.md", "sub/b.md", "old.md") == ["a.md", "sub/b.md"]


@pytest.mark.heavy
def test_yes_deletes_what_is_gone_also_if_one_empty_file_is_left(
    bench: Bench, shell: Shell
) -> None:
    docs = shell.directory / "docs"
    docs.mkdir()
    for number in range(9):
        (docs / f"{number}.md").write_text(f"text {number}")
    run = ("vec-enqueue", "docs/", "--collection", "wiki", "--prune")
    assert shell(*run).returncode == 0
    for number in range(8):
        (docs / f"{number}.md").unlink()
    (docs / "8.md").write_text("")
    ids = [f"{number}.md" for number in range(9)]
    refused = shell(*run)
    assert refused.returncode == 1 and held(bench, *ids) == ids
    assert "wiki: nothing is pruned: cannot ask whether to delete 8 of 9 ids" in refused.stderr
    assert shell(*run, "--yes").returncode == 1
    assert held(bench, *ids) == ["8.md"]
    (docs / "8.md").unlink()
    assert shell(*run, "--yes").returncode == 2
    assert held(bench, *ids) == ["8.md"]


def test_a_damaged_parquet_prunes_nothing(bench: Bench, shell: Shell) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    feed(bench, "a")
    ids = [f"id {number}" for number in range(5000)]
    path = shell.directory / "wiki.parquet"
    table = pyarrow.table({"id": ids, "text": [f"text {id}" for id in ids]})
    parquet.write_table(table, path, row_group_size=1000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    done = shell("vec-enqueue", "wiki.parquet", "--prune", "--yes")
    assert done.returncode == 1
    assert "nothing is pruned: wiki.parquet: the file cannot be read from this row" in done.stderr
    assert held(bench, "a") == ["a"]


@pytest.mark.parametrize("lines", [[line("id0")], [*map(line, ["id0"]), '{"id": "id1", ']])
def test_much_or_doubtful_is_pruned_only_if_a_person_or_yes_says_so(
    bench: Bench, shell: Shell, lines: Sequence[object]
) -> None:
    bench.add(*pairs(9))
    question = "wiki: delete 8 of 9 ids"
    refused = prune(shell, lines)
    assert refused.returncode == 1
    assert "wiki: nothing is pruned: cannot ask whether to delete 8 of 9 ids" in refused.stderr
    for answer, left in (("n", 9), ("y", 1)):
        asked = shell.answering(answer, "vec-enqueue", "wiki.jsonl", "--prune")
        assert question in asked.stderr
        assert len(held(bench, *[id for id, _ in pairs(9)])) == left


def test_a_tenth_goes_without_a_question(bench: Bench, shell: Shell) -> None:
    bench.add(*[(f"id{number}", f"text id{number}") for number in range(20)])
    lines = [line(f"id{number}") for number in range(18)]
    assert prune(shell, lines, "--dry-run").stdout.endswith("wiki: 2 of 20 ids would be deleted\n")
    assert bench.status.enqueued == 20
    assert prune(shell, lines).returncode == 0
    assert bench.status.enqueued == 18
    assert shell("vec-enqueue", "wiki.jsonl", "--yes").returncode == 2


def test_fresh_texts_of_another_producer_are_not_pruned(bench: Bench) -> None:
    feed(bench, "brought", "old", "bad-old", "again", "bad-again", "evicted-old")
    wiki = bench.collection
    wiki.eviction.evict("t", [one for one in positions(bench) if "evicted" in one.id], end=True)
    bench.add(("queued-old", "text"))

    surplus = Surplus(wiki.client, wiki.keys)
    lines: list[Job | Rejection] = [Job("brought", "text brought"), Rejection(2, "r", "no", "")]
    assert list(surplus.watch(lines)) == lines
    bench.add(("again", "newer"), ("bad-again", "worse"), ("fresh", "x"), ("bad-fresh", "bad"))
    bench.embed_all(refuse=["worse", "bad"])
    bench.add(("queued-fresh", "x"))
    found = surplus.find()

    assert (found.surplus, found.held) == (3, 9)
    assert sum(surplus.remove(found)) == 3
    doomed, fresh = ["old", "bad-old", "queued-old"], ["again", "bad-again", "fresh", "bad-fresh"]
    assert held(bench, *doomed, *fresh, "queued-fresh") == [*fresh, "queued-fresh"]


def test_what_changes_between_the_look_and_the_removal_stays(bench: Bench) -> None:
    feed(bench, "a", "b", "bad-c", "bad-d")
    wiki = bench.collection
    surplus = Surplus(wiki.client, wiki.keys)
    list(surplus.watch([Job("other", "text")]))
    found = surplus.find()
    bench.add(("a", "newer"), ("bad-c", "mended"))
    assert sum(surplus.remove(found)) == 2
    assert held(bench, "a", "b", "bad-c", "bad-d") == ["a", "bad-c"]


def test_what_is_evicted_after_the_folder_was_read_is_counted_and_stays_until_the_next_prune(
    bench: Bench, shell: Shell
) -> None:
    feed(bench, "a")
    assert shell("vec", "export", "wiki", "-o", "out/", "--evict").returncode == 0
    feed(bench, "b", "c")
    (file,) = (shell.directory / "out").glob("wiki-*.jsonl")
    said = file.read_bytes()
    file.unlink()
    os.mkfifo(file)  # whoever reads it waits for someone who writes
    wiki = bench.collection
    surplus = Surplus(wiki.client, wiki.keys)
    list(surplus.watch([Job("c", "text c")]))
    with ThreadPoolExecutor(1) as pool:
        finding = pool.submit(surplus.find, [str(shell.directory / "out")])
        with file.open("wb") as pipe:
            wiki.eviction.evict("t", positions(bench), end=True)
            pipe.write(said)
        found = finding.result(30)
    assert (found.surplus, found.held, found.missed) == (1, 3, 1)
    assert [one.id for one in found.ids] == ["a"]


def test_a_dropped_collection_that_began_again_is_not_pruned(bench: Bench) -> None:
    feed(bench, "a", "b")
    wiki = bench.collection
    surplus = Surplus(wiki.client, wiki.keys)
    list(surplus.watch([Job("other", "text")]))
    found = surplus.find()
    wiki.drop()
    feed(bench, "a", "b")
    assert sum(surplus.remove(found)) == 0
    assert held(bench, "a", "b") == ["a", "b"]


@pytest.mark.heavy
def test_the_memory_of_a_prune_does_not_grow_with_the_ids(bench: Bench) -> None:
    feed(bench, "old", "id 7")
    surplus = Surplus(bench.collection.client, bench.collection.keys)
    tracemalloc.start()
    try:
        for _ in surplus.watch(Job(f"id {number}", "") for number in range(400_000)):
            pass
        found = surplus.find()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.surplus, found.held) == (1, 2)
    assert peak < 12_000_000


def test_an_evicted_id_that_has_another_text_since_is_looked_at(bench: Bench, shell: Shell) -> None:
    feed(bench, "a", "b", "c")
    assert shell("vec", "export", "wiki", "-o", "out/", "--evict").returncode == 0
    bench.add(("a", "another text"), ("b", "another text"))
    bench.embed_all()
    bench.add(("b", "a third text"))
    lines = [line("a", "another text"), line("b", "a third text"), line("c")]
    done = prune(shell, lines, "--export", "out/")
    assert (done.returncode, done.stderr) == (0, "wiki: pruned, 0 ids removed\n")
