"""Ids that are deleted: out of the store, the queue, the dead letters, and what is in flight."""

from __future__ import annotations

import random
from itertools import islice

import pytest
import redis
from shell import Shell
from stored import Bench, ids, pairs, positions

from worker import Collection, Job, UnknownCollection
from worker.settings import Settings
from worker.types import State

EVERYWHERE = ("stored", "queued", "leased", "both", "dead", "evicted")


def fill(bench: Bench) -> None:
    """An id in each state, one that is stored and queued, and another of each that stays."""

    def add(name: str, text: str = "good") -> None:
        bench.add((name, text), (f"{name}-stays", text))

    add("evicted")
    bench.embed_all()
    bench.collection.eviction.evict("t", positions(bench), end=True)
    for name, text in (("stored", "good"), ("dead", "bad"), ("both", "good")):
        add(name, text)
    bench.embed_all(refuse=["bad"])
    add("leased")
    bench.claim("holder")
    add("queued")
    add("both", "newer")


def test_an_id_is_deleted_wherever_it_is_and_nothing_else_is(bench: Bench) -> None:
    fill(bench)
    before = bench.status

    assert bench.collection.delete(EVERYWHERE) == len(EVERYWHERE)

    status = bench.status
    assert before.enqueued - status.enqueued == len(EVERYWHERE) + 1  # `both` was there twice
    assert (before.evicted - status.evicted, status.removed) == (1, len(EVERYWHERE))
    known = bench.collection.reader.known(EVERYWHERE)
    assert known.states == [State(None, None, None)] * len(EVERYWHERE)
    assert known.evicted == [b""] * len(EVERYWHERE)
    staying = bench.collection.reader.known([f"{id}-stays" for id in EVERYWHERE])
    assert all(any(state) or left for state, left in zip(staying.states, staying.evicted))
    assert bench.collection.delete(EVERYWHERE) == 0
    assert bench.status == status


@pytest.mark.parametrize("id", EVERYWHERE)
def test_an_id_that_is_enqueued_after_its_deletion_is_new(bench: Bench, id: str) -> None:
    fill(bench)
    bench.collection.delete([id])
    assert bench.add((id, "good")).new == 1
    bench.embed_all()
    assert bench.collection.get(id) is not None


@pytest.mark.parametrize("refused", [False, True])
def test_a_text_in_flight_that_is_deleted_does_not_come_back(bench: Bench, refused: bool) -> None:
    bench.add(("a", "text a"), ("b", "text b"))
    leases = bench.claim()

    assert bench.collection.delete(["a"]) == 1
    assert bench.counts == (0, 0, 0, 1)
    committed = bench.commit([], leases) if refused else bench.commit(leases)

    assert (committed.stored + committed.dead, committed.fenced) == (1, 1)
    assert bench.collection.get("a") is None
    assert bench.status.enqueued == 1


def test_what_is_enqueued_again_while_the_deleted_text_is_in_flight_is_stored(
    bench: Bench,
) -> None:
    bench.add(("a", "old"))
    leases = bench.claim()
    bench.collection.delete(["a"])
    bench.add(("a", "new"))
    bench.commit(leases)
    assert bench.counts == (0, 0, 1, 0)
    bench.embed_all()
    assert bench.collection.reader.states(["a"])[0].stored is not None


def test_what_dead_slices_and_suspects_held_is_deleted_too(bench: Bench) -> None:
    bench.add(*pairs(4))
    bench.claim("dead:1")
    bench.kill("dead:1")
    bench.claim("again:1", 2)
    bench.release("again:1", end_slice=True)
    assert bench.collection.delete([f"id{number}" for number in range(4)]) == 4
    assert bench.claim("last") == []
    assert bench.status.enqueued == 0


def test_each_of_many_queued_jobs_is_found_whenever_it_was_added(bench: Bench) -> None:
    chance = random.Random(1)
    adder = bench.collection.adder()
    there = [str(number) for number in range(600)]
    rest = iter(there)
    while some := list(islice(rest, chance.randrange(1, 9))):  # those are of one millisecond
        adder.add([Job(id, f"text {id}") for id in some])
    doomed = chance.sample(there, len(there) // 2)

    assert bench.collection.delete(doomed) == len(doomed)

    left = [id for id in there if id not in doomed]
    assert ids(bench.claim(count=1000)) == left
    assert bench.status.removed == len(doomed)


def test_a_full_redis_still_deletes(bench: Bench, redis_client: redis.Redis) -> None:
    bench.add(*pairs(4))
    bench.embed_all()
    redis_client.config_set("maxmemory", "1mb")
    try:
        assert bench.collection.delete(["id0", "id1"]) == 2
    finally:
        redis_client.config_set("maxmemory", "0")
    assert bench.status.enqueued == 2


def test_a_collection_that_does_not_exist_and_a_lone_string_are_errors(settings: Settings) -> None:
    with pytest.raises(UnknownCollection):
        Collection("wiki", settings=settings).delete(["a"])
    with pytest.raises(TypeError):
        Collection("wiki", settings=settings).delete("abc")


def test_vec_delete_takes_ids_a_prefix_or_standard_input(bench: Bench, shell: Shell) -> None:
    bench.add(*[(f"{name}#{number}", "text") for name in "abc" for number in range(2)])
    bench.embed_all()
    bench.add(("a#0", "newer"), ("a#9", "text"))

    for arguments, stdin, number in (
        (["b#0", "nowhere"], "", "1 id"),
        (["--prefix", "a#"], "", "3 ids"),
        (["-"], "b#1\r\nc#0\n\n", "2 ids"),
    ):
        done = shell("vec", "delete", "wiki", *arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"wiki: {number} deleted\n"

    assert [*bench.collection.ids()] == ["c#1"]
    assert bench.status.removed == 6
    for arguments in ([], ["a", "--prefix", "a"], ["--prefix", ""]):
        assert shell("vec", "delete", "wiki", *arguments).returncode == 2


def test_a_prefix_with_a_folder_that_is_not_there_deletes_nothing(
    bench: Bench, shell: Shell
) -> None:
    bench.add(*[(f"a{number}", "text") for number in range(2500)])
    done = shell("vec", "delete", "wiki", "--prefix", "a", "--export", "nowhere")
    assert (done.returncode, done.stderr) == (2, "Error: nowhere: there is no such folder\n")
    assert bench.status.enqueued == 2500


def test_vec_status_shows_how_many_were_removed(bench: Bench, shell: Shell) -> None:
    bench.add(("a", "text a"), ("b", "text b"))
    assert "removed" not in shell("vec", "status", "wiki").stdout
    bench.collection.delete(["a"])
    assert "  removed    1\n" in shell("vec", "status", "wiki").stdout
