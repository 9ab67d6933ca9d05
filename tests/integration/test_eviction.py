"""Vectors that leave for files, and the end of a collection."""

from __future__ import annotations

import pytest
import redis
from stored import Bench, check_ledger, pairs, positions, vector_of

from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE
from worker.store.errors import ExportedByAnother
from worker.store.eviction import DROP_SIZE
from worker.store.registry import collection_names
from worker.types import (
    Added,
    Committed,
    Dropped,
)


def test_evicted_vectors_leave_and_the_ledger_keeps_them(bench: Bench) -> None:
    bench.add(*pairs(5))
    bench.embed_all()

    assert bench.collection.eviction.evict("us", positions(bench)[:3]) == 3
    assert bench.collection.eviction.evict("us", positions(bench)[:0]) == 0

    assert sorted(bench.stored()) == ["id3", "id4"]
    assert (bench.status.embedded, bench.status.evicted, bench.status.enqueued) == (2, 3, 5)


def test_what_was_replaced_after_it_was_written_stays(bench: Bench) -> None:
    bench.add(("a", "old"), ("b", "text"))
    bench.embed_all()
    written = positions(bench)
    bench.add(("a", "new"))
    bench.embed_all()

    assert bench.collection.eviction.evict("us", written) == 1

    assert bench.stored() == {"a": vector_of("new")}


def test_nothing_is_evicted_from_or_renumbered_in_another_life_of_the_collection(
    bench: Bench,
) -> None:
    # Given the same texts under the same ids and numbers in a second life of the collection
    lives = []
    for _ in range(2):
        bench.collection.eviction.drop()
        bench.add(*pairs(3))
        bench.embed_all()
        lives.append(bench.collection.reader.born())
    first, second = lives
    written = positions(bench)
    # When the export of the first life comes late
    bench.collection.eviction.renumber(written, 1000, born=first)
    assert bench.collection.eviction.evict("us", written, born=first) == 0
    # Then nothing has changed, and an export of the second life may
    assert (positions(bench), bench.status.evicted) == (written, 0)
    assert bench.collection.eviction.evict("us", written, born=second) == 3


def test_enqueuing_what_was_evicted_costs_nothing_and_another_text_does(bench: Bench) -> None:
    bench.add(("a", "one"), ("b", "two"))
    bench.embed_all()
    bench.collection.eviction.evict("us", positions(bench))

    assert bench.add(("a", "one"), ("b", "other"), ("c", "three")) == Added(2, 1, 0, 0, 1)
    assert bench.add(("a", "one"), ("b", "two")) == Added(1, 1, 0, 0, 1, replacing=1)
    bench.embed_all()
    assert bench.stored() == {"b": vector_of("two"), "c": vector_of("three")}


def test_the_last_of_the_evicted_texts_of_an_id_counts(bench: Bench) -> None:
    for text in ("one", "two"):
        bench.add(("a", text))
        bench.embed_all()
        bench.collection.eviction.evict("us", positions(bench))

    assert bench.add(("a", "two")) == Added(0, 1, 0, 0, 1)
    assert bench.add(("a", "one")) == Added(1, 0, 0, 0, 0)
    assert bench.status.evicted == 2


def test_thousands_of_evicted_texts_are_remembered_each(bench: Bench) -> None:
    many = pairs(3 * CHUNK_SIZE)
    for start in range(0, len(many), CHUNK_SIZE):
        bench.add(*many[start : start + CHUNK_SIZE])
        bench.embed_all()
        while some := positions(bench):
            bench.collection.eviction.evict("us", some)

    for start in range(0, len(many), CHUNK_SIZE):
        chunk = many[start : start + CHUNK_SIZE]
        assert bench.add(*chunk) == Added(0, CHUNK_SIZE, 0, 0, CHUNK_SIZE)
    assert bench.add(*pairs(CHUNK_SIZE, "other")).evicted == 0


def test_one_exporter_evicts_at_a_time(bench: Bench) -> None:
    bench.add(*pairs(2))
    bench.embed_all()
    bench.collection.eviction.evict("us")

    with pytest.raises(ExportedByAnother, match="only one at a time"):
        bench.collection.eviction.evict("them", positions(bench))
    assert bench.counts == (2, 0, 0, 0)

    bench.collection.eviction.evict("us", end=True)
    assert bench.collection.eviction.evict("them", positions(bench)) == 2


def test_vectors_leave_a_redis_that_takes_nothing_more(settings: Settings) -> None:
    bench = Bench(settings)
    bench.add(*pairs(40))
    bench.embed_all()
    with redis.Redis.from_url(settings.redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.OutOfMemoryError):
                client.set("key", "value")
            assert bench.collection.eviction.evict("us", positions(bench)[:20]) == 20
            bench.collection.eviction.renumber(positions(bench)[:5], 100)
            assert [place.number for place in positions(bench)][-5:] == [101, 102, 103, 104, 105]
            assert dropped(bench) == Dropped(vectors=20)
        finally:
            client.config_set("maxmemory", 0)


def dropped(bench: Bench) -> Dropped:
    return bench.collection.drop(lambda _: check_ledger(bench.collection.status()))


def keys_of(bench: Bench) -> list[bytes]:
    return [key for key in bench.redis.keys("*") if b"receipt" not in key and b"alive" not in key]  # type: ignore[attr-defined]  # all of redis-py's is there


def test_a_drop_tells_what_it_deletes_and_leaves_nothing(bench: Bench) -> None:
    bench.add(*pairs(DROP_SIZE + 10))
    bench.commit(bench.claim(count=1)[:0], bench.claim(count=3))
    bench.embed_all()
    bench.add(("queued", "text"), ("leased", "text"))
    bench.claim(count=1)
    Bench(bench.settings, "other").add(("a", "text"))

    assert dropped(bench) == Dropped(vectors=DROP_SIZE + 7, queued=2, dead=3)

    assert not bench.collection.exists()
    assert collection_names(bench.redis, "vec") == ["other"]
    assert [key for key in keys_of(bench) if b"wiki" in key] == []


def test_a_drop_broken_off_leaves_a_balanced_ledger_and_can_be_gone_on_with(bench: Bench) -> None:
    bench.add(*pairs(DROP_SIZE + 10))
    bench.embed_all()
    bench.add(("queued", "text"))

    bench.collection.drop_in_part()

    assert bench.counts == (10, 0, 0, 0)
    assert collection_names(bench.redis, "vec") == ["wiki"]
    assert dropped(bench) == Dropped(vectors=10)
    assert collection_names(bench.redis, "vec") == []


def test_a_drop_forgets_what_was_remembered_of_evicted_texts(bench: Bench) -> None:
    bench.add(*pairs(200))
    bench.embed_all()
    bench.collection.eviction.evict("us", positions(bench))
    bench.redis.hset("vec:{wiki}:info", "buckets", str(3 * DROP_SIZE))  # as after a million

    assert dropped(bench) == Dropped()

    assert [key for key in keys_of(bench) if b"wiki" in key and b"exporter" not in key] == []


def test_leases_of_a_dropped_collection_come_to_nothing(bench: Bench) -> None:
    bench.add(*pairs(4))
    leases = bench.claim()
    dropped(bench)

    assert bench.commit(leases[:2], leases[2:]) == Committed(0, 0, 0, 4)
    assert bench.release(end_slice=True) == 0
    assert bench.claim() == []

    assert not bench.collection.exists()
    bench.add(*pairs(4))
    assert bench.commit(leases[:2], leases[2:]) == Committed(0, 0, 0, 4)
    assert bench.counts == (0, 0, 4, 0)


def test_a_producer_that_goes_on_begins_the_collection_anew(bench: Bench) -> None:
    bench.add(*pairs(4), run="p")
    bench.embed_all()
    dropped(bench)

    assert bench.add(*pairs(2), run="p") == Added(2, 0, 0, 0)

    assert collection_names(bench.redis, "vec") == ["wiki"]
    bench.embed_all()
    assert bench.counts == (2, 0, 0, 0)
