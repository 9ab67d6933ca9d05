"""The names of collections, and which of them have a backlog."""

from __future__ import annotations

import pytest
import redis
from stored import Bench, Store, pairs, vector_of

from worker.settings import Settings
from worker.store.connection import connect
from worker.store.errors import CollectionError
from worker.store.registry import announce_backlogs, busy_collections, collection_names


@pytest.mark.parametrize("name", ["", "a b", "a/b", "{a}", "x" * 101, "a\n", "é"])
def test_a_name_that_is_no_name_is_an_error_that_says_what_is(name: str) -> None:
    with pytest.raises(CollectionError, match=r"must be 1 to 100 letters, digits"):
        Store(name, settings=Settings())


def test_collections_do_not_see_each_other(settings: Settings) -> None:
    one, two = Bench(settings, "one"), Bench(settings, "two")
    one.add(("a", "of one"))
    two.add(("a", "of two"))
    one.embed_all()
    assert one.stored() == {"a": vector_of("of one")}
    assert two.counts == (0, 0, 1, 0)
    assert collection_names(one.redis, "vec") == ["one", "two"]


def test_the_pump_finds_the_collections_with_work_and_no_others(bench: Bench) -> None:
    other = Bench(bench.settings, "other")
    bench.add(*pairs(2), run="p")
    other.add(*pairs(2))
    assert busy_collections(bench.redis, "vec") == ["other", "wiki"]
    (lease, *_) = bench.claim()
    bench.commit([], [lease])
    assert busy_collections(bench.redis, "vec") == ["other", "wiki"]  # the second is leased
    bench.release(end_slice=True)
    bench.embed_all()
    assert busy_collections(bench.redis, "vec") == ["other"]
    # What was done with may be begun anew: by the same producer, another, and a retry.
    for begin in ("the same producer", "another", "a retry"):
        if begin == "a retry":
            assert bench.retry() == 1
        else:
            assert bench.add((begin, "new"), run="p" if begin != "another" else "").new == 1
        assert busy_collections(bench.redis, "vec") == ["other", "wiki"]
        bench.embed_all()
        assert busy_collections(bench.redis, "vec") == ["other"]
    assert bench.counts == (4, 0, 0, 0)


def test_a_look_at_all_collections_finds_work_that_is_not_announced(bench: Bench) -> None:
    Bench(bench.settings, "idle").add(("a", "text"))
    Bench(bench.settings, "idle").embed_all()
    bench.add(*pairs(2))
    bench.redis.delete("vec:busy")  # as the node of a cluster that was lost may have been behind
    assert busy_collections(bench.redis, "vec") == []
    announce_backlogs(bench.redis, "vec")
    assert busy_collections(bench.redis, "vec") == ["wiki"]


def test_idle_collections_cost_the_pump_nothing(
    settings: Settings, redis_client: redis.Redis
) -> None:
    def cost() -> int:
        before = redis_client.info("stats")["total_commands_processed"]
        busy_collections(connect(settings), "vec")
        return int(redis_client.info("stats")["total_commands_processed"] - before)

    without = cost()
    for number in range(30):
        bench = Bench(settings, f"idle-{number}")
        bench.add(("a", "text"))
        bench.embed_all()
    assert cost() > 30  # they are looked at once more, and forgotten
    assert cost() == without


def test_of_a_slice_that_was_killed_with_nothing_in_hand_nothing_stays(bench: Bench) -> None:
    def consumers() -> set[bytes]:
        found = bench.redis.xinfo_consumers("vec:{wiki}:jobs", "workers")  # type: ignore[attr-defined]
        return {one["name"] for one in found}

    bench.add(("a", "text"))
    bench.commit(bench.claim("killed:1"))
    bench.kill("killed:1")
    assert consumers() == {b"killed:1"}
    assert busy_collections(bench.redis, "vec") == []
    assert consumers() == set()
    bench.add(("b", "text"))
    assert bench.claim("killed:1"), "it was only cut off, and works on"
    assert busy_collections(bench.redis, "vec") == ["wiki"]
    assert consumers() == {b"killed:1"}
