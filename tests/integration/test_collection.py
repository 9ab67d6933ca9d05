"""A collection as a program sees it."""

from __future__ import annotations

from stored import Bench, pairs, vector_of

from worker.monitor.fleet import (
    Worker,
    announce_worker,
)
from worker.store.connection import connect
from worker.store.registry import collection_names
from worker.throttle import Permit, Throttle
from worker.types import (
    Job,
)


def test_the_status_of_a_collection_nobody_knows_is_empty(bench: Bench) -> None:
    status = bench.status
    assert (status.enqueued, status.backlog, status.state, status.model) == (0, 0, "idle", None)
    assert not bench.collection.exists()
    assert list(bench.collection) == []
    assert list(bench.collection.dead()) == []
    assert bench.collection.get("a") is None


def test_the_status_follows_the_work(bench: Bench) -> None:
    bench.add(*pairs(3))
    assert bench.collection.exists()
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
