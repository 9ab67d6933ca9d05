"""A collection as a program sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy
import pytest
import redis
from stored import Bench, pairs, vector_of

from worker import Collection, Settings, enqueue
from worker.local.redis_server import free_port
from worker.monitor.fleet import (
    Worker,
    announce_worker,
)
from worker.store.backlog import CHUNK_SIZE
from worker.store.connection import connect
from worker.store.errors import CollectionGone, UnknownCollection
from worker.store.eviction import DROP_SIZE
from worker.store.reader import IDS_SIZE
from worker.store.registry import collection_names
from worker.throttle import Permit, Throttle
from worker.types import (
    Job,
)


def test_the_status_of_a_collection_nobody_knows_is_empty(bench: Bench) -> None:
    status = bench.status
    assert (status.enqueued, status.backlog, status.state, status.model) == (0, 0, "idle", None)
    assert not bench.collection.exists()
    assert (bench.collection.model(), bench.collection.dimensions()) == (None, None)


@pytest.mark.parametrize(
    "ask",
    [
        lambda unknown: unknown.wait(),
        lambda unknown: len(unknown),
        lambda unknown: list(unknown),
        lambda unknown: list(unknown.ids()),
        lambda unknown: unknown.to_numpy(),
        lambda unknown: unknown.get("a"),
        lambda unknown: unknown.get_many(["a", "b"]),
        lambda unknown: unknown.dead(),
        lambda unknown: unknown.retry(),
    ],
)
def test_whoever_reads_a_collection_that_does_not_exist_is_told_which_there_are(
    bench: Bench, ask: Callable[[Collection], object]
) -> None:
    Bench(bench.settings, "news").add(("a", "text"))
    with pytest.raises(UnknownCollection, match="no collection 'wiki' here; there is news$"):
        ask(bench.collection)


def test_a_drop_deletes_at_once_and_returns_what_is_gone(bench: Bench) -> None:
    bench.add(*pairs(DROP_SIZE + 1))
    bench.embed_all()
    bench.add(("later", "text"))
    seen: list[int] = []
    assert bench.collection.drop(lambda gone: seen.append(gone.vectors)) == (DROP_SIZE + 1, 1, 0)
    assert seen == [DROP_SIZE, DROP_SIZE + 1]
    assert not bench.collection.exists()
    assert bench.collection.drop() == (0, 0, 0)


def test_ids_and_vectors_are_read_whole(bench: Bench) -> None:
    texts = pairs(IDS_SIZE + 10)
    for start in range(0, len(texts), CHUNK_SIZE):
        bench.add(*texts[start : start + CHUNK_SIZE], run="one")
    bench.embed_all()
    assert bench.collection
    assert len(bench.collection) == len(texts)
    assert list(bench.collection.ids()) == [id for id, _ in texts]
    ids, matrix = bench.collection.to_numpy()
    assert ids == [id for id, _ in texts]
    assert matrix.shape == (len(texts), 2)
    assert matrix.dtype == numpy.float32
    assert matrix[7].tobytes() == vector_of(texts[7][1])


def test_a_collection_without_a_vector_is_an_empty_matrix(bench: Bench) -> None:
    bench.add(("a", "text"))
    assert bench.collection
    assert len(bench.collection) == 0
    ids, matrix = bench.collection.to_numpy()
    assert (ids, matrix.shape) == ([], (0, 0))


def test_a_matrix_says_what_to_install_where_numpy_is_missing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(("a", "text"))
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ModuleNotFoundError, match="^to_numpy needs numpy: pip install numpy$"):
        bench.collection.to_numpy()


def test_the_ids_of_a_collection_that_is_dropped_while_they_are_read_are_no_shorter(
    bench: Bench,
) -> None:
    bench.add(*pairs(3))
    bench.embed_all()
    ids = bench.collection.ids()
    assert next(ids) == "id0"
    bench.collection.drop()
    with pytest.raises(CollectionGone, match=r"see Collection\('wiki'\).status\(\)"):
        list(ids)


def test_a_connection_can_be_handed_in(bench: Bench, settings: Settings) -> None:
    nowhere = replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    with redis.Redis.from_url(settings.redis_url) as connection:
        receipt = enqueue(["text"], "wiki", settings=nowhere, connection=connection)
        wiki = Collection("wiki", settings=nowhere, connection=connection)
        assert (receipt.new, wiki.status().pending) == (1, 1)
        bench.embed_all()
        assert [record.model for record in wiki] == ["m"]


def test_a_connection_that_decodes_answers_is_refused(settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as connection:
        with pytest.raises(ValueError, match="make it without decode_responses=True"):
            Collection("wiki", settings=settings, connection=connection)
        with pytest.raises(ValueError, match="make it without decode_responses=True"):
            enqueue(["text"], "wiki", settings=settings, connection=connection)


def test_two_redis_are_used_in_one_process(bench: Bench, settings: Settings) -> None:
    other = replace(settings, redis_url=f"{settings.redis_url.rpartition('/')[0]}/1")
    enqueue(["one"], "wiki", settings=settings)
    enqueue(["one", "two"], "wiki", settings=other)
    stored = [Collection("wiki", settings=one).status().pending for one in (settings, other)]
    assert stored == [1, 2]


def test_the_status_follows_the_work(bench: Bench) -> None:
    bench.add(*pairs(3))
    assert bench.collection.exists()
    assert (bench.status.state, bench.status.pending) == ("waiting", 3)
    announce_worker(bench.redis, "vec", Worker("host:1:a", 8))
    assert (bench.status.state, bench.status.pending) == ("running", 3)
    leases = bench.claim()
    assert (bench.status.leased, bench.collection.backlog.size()) == (3, 3)
    bench.commit(leases)
    status = bench.status
    assert (status.state, status.embedded, status.dimensions) == ("idle", 3, 2)
    assert collection_names(bench.redis, "vec") == ["wiki"]


def test_waiting_ends_when_nothing_is_left_or_time_is_up(bench: Bench) -> None:
    bench.add(*pairs(2))
    assert bench.collection.wait(timeout=0).backlog == 2
    bench.embed_all()
    assert bench.collection.wait().embedded == 2


def test_waiting_ends_when_the_queue_is_halted(bench: Bench) -> None:
    bench.add(*pairs(2))
    throttle = Throttle(bench.settings, "m")
    client = connect(bench.settings)
    announce_worker(client, "vec", Worker("host:1:a", 8, throttle=throttle.name))
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.halted(permit, "the API refuses the key")
    status = bench.collection.wait()
    assert (status.state, status.reason) == ("halted", "the API refuses the key")
    assert not bench.collection.is_open()


def test_records_are_read_in_the_order_asked_for(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "one", {"n": [1, None]}), Job("b", "two")])
    bench.commit(bench.claim(), keep_text=True)
    b, unknown, a = bench.collection.get_many(["b", "unknown", "a"])
    assert unknown is None
    assert a is not None and b is not None
    assert (a.id, a.text, a.meta, a.model) == ("a", "one", {"n": [1, None]}, "m")
    assert (b.id, b.text, b.meta, b.dimensions) == ("b", "two", None, 2)
    assert a.tobytes() == vector_of("one")
    assert bench.collection.get_many([]) == []
