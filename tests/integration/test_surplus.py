"""What the collection holds and the corpus does not: `vec verify` counts it."""

from __future__ import annotations

from typing import Any

import pytest
from shell import Shell
from stored import Bench, positions


def feed(bench: Bench, shell: Shell, *names: str) -> None:
    """Embed all of these ids, and write a corpus of them, wiki.jsonl."""
    shell.write("wiki.jsonl", *({"id": name, "text": f"text {name}"} for name in names))
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    bench.embed_all(refuse=["text bad"])


def test_verify_is_complete_only_without_surplus(bench: Bench, shell: Shell) -> None:
    feed(bench, shell, "a", "b", "c")
    shell.write("wiki.jsonl", {"id": "a", "text": "text a"})

    for id, said in (
        ("b", "wiki: 1 of 1 text embedded, 0 pending, 0 dead, 0 missing, 2 surplus; 0 lines"),
        ("c", "wiki: 1 of 1 text embedded, 0 pending, 0 dead, 0 missing, 1 surplus; 0 lines"),
    ):
        found = shell("vec", "verify", "wiki.jsonl")
        assert found.returncode == 1
        assert found.stdout == f"{said} rejected\n"
        assert "surplus: " in found.stderr and id in found.stderr
        assert shell("vec", "verify", "wiki.jsonl", "--allow-surplus").returncode == 0
        assert bench.collection.delete([id]) == 1

    done = shell("vec", "verify", "wiki.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("0 missing; 0 lines rejected: complete\n")


@pytest.mark.parametrize("state", ["queued", "dead"])
def test_surplus_is_what_is_queued_or_dead_too(bench: Bench, shell: Shell, state: str) -> None:
    feed(bench, shell, "a", "bad")
    if state == "queued":
        bench.collection.retry()
    shell.write("wiki.jsonl", {"id": "a", "text": "text a"})
    found = shell("vec", "verify", "wiki.jsonl")
    assert (found.returncode, found.stderr) == (1, "surplus: bad\n")


@pytest.mark.parametrize("at", range(5))
def test_names_have_an_id_that_is_embedded_or_refused_before_any_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    bench.add(("a", "x"), ("bad", "y"))
    pool = bench.collection.client.connection_pool  # type: ignore[attr-defined]
    connection, requests = pool.get_connection, iter(range(100))

    def get_connection(*args: Any, **options: Any) -> object:
        if next(requests) == at:
            bench.embed_all(refuse=["y"])
        return connection(*args, **options)

    monkeypatch.setattr(pool, "get_connection", get_connection)
    assert {"a", "bad"} <= set(bench.collection.reader.names())


@pytest.mark.heavy
def test_evicted_ids_are_looked_at_in_the_folder(bench: Bench, shell: Shell) -> None:
    feed(bench, shell, "a", "b")
    assert shell("vec", "export", "wiki", "-o", "out/", "--evict").returncode == 0
    feed(bench, shell, "c")

    for evicted, said in ((["a"], "surplus: b\n"), (["a", "b"], "")):
        names = [*evicted, "c"]
        shell.write("wiki.jsonl", *({"id": name, "text": f"text {name}"} for name in names))
        found = shell("vec", "verify", "wiki.jsonl", "--export", "out")
        assert (found.returncode, found.stderr) == (1 if said else 0, said)

    shell.write("wiki.jsonl", {"id": "c", "text": "text c"})
    blind = shell("vec", "verify", "wiki.jsonl")
    assert blind.returncode == 1 and "complete" not in blind.stdout
    assert blind.stderr == ("2 evicted ids not looked at: name their folder with --export\n")
    assert shell("vec", "verify", "wiki.jsonl", "--allow-surplus").returncode == 0
    assert positions(bench) != []
