"""`vec-enqueue --wait` waits for its own texts and speaks of them, whatever else is in the
collection; so does a receipt. On a real redis-server, with real commands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial

import pytest
import redis
from servers import API, WorkerProcess, wait_until
from shell import Shell
from stored import Bench, ids, pairs

from worker import Settings, aenqueue, enqueue
from worker.cli.own import Counts, Own
from worker.corpus.spill import Spill
from worker.store.backlog import CHUNK_SIZE
from worker.types import Job, Lease

StartWorker = Callable[..., WorkerProcess]
OWN = [{"id": f"own{n}", "text": f"own {n}"} for n in range(3)]


@pytest.fixture
def shell(shell: Shell) -> Shell:
    shell.environ["VECTOR_EMBED_MODEL"] = "m"  # that of the bench
    return shell


def own(lease: Lease) -> bool:
    return lease.job.id.startswith("own")


def test_a_wait_ends_with_its_own_texts_and_leaves_those_of_others(
    shell: Shell, bench: Bench
) -> None:
    bench.add(("before", "bad"))
    bench.embed_all(refuse=["bad"])
    bench.add(*pairs(5))
    shell.write("wiki.jsonl", *OWN)
    waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "wiki: waiting for 3 texts\n"
    bench.add(*pairs(20))
    leases = bench.claim(count=8)
    assert sum(map(own, leases)) == 3
    bench.commit(leases)
    said, rest = waiting.communicate(timeout=60)
    assert said.startswith("wiki: 3 new, all embedded in "), said + rest
    assert (waiting.returncode, bench.status.backlog, bench.status.dead) == (0, 15, 1)


def test_a_wait_tells_of_its_own_texts_that_are_dead_or_superseded(
    shell: Shell, bench: Bench
) -> None:
    shell.write("wiki.jsonl", *OWN)
    waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "wiki: waiting for 3 texts\n"
    bench.add(("own0", "another"), ("other", "bad"))
    leases = bench.claim()
    bad = [one for one in leases if one.job.id in ("own1", "other")]
    bench.commit([one for one in leases if one.job.id == "own2"], bad)
    said, rest = waiting.communicate(timeout=60)
    look = "1 superseded since, 1 dead (see vec dead wiki), the rest embedded in "
    assert said.startswith(f"wiki: 3 new, {look}"), said + rest
    assert (waiting.returncode, bench.status.backlog, bench.status.dead) == (1, 1, 2)


def test_a_wait_for_interactive_texts_leaves_the_bulk_in_front_of_them(
    shell: Shell, bench: Bench
) -> None:
    bench.add(*pairs(20))
    shell.write("wiki.jsonl", *OWN)
    words = ("--wait", "--priority", "interactive")
    waiting = shell.start("vec-enqueue", "wiki.jsonl", *words)
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "wiki: waiting for 3 texts\n"
    leases = bench.claim(count=4)
    assert [*map(own, leases)] == [True] * 3 + [False]
    bench.commit(leases[:3])
    said, rest = waiting.communicate(timeout=60)
    assert said.startswith("wiki: 3 new, all embedded in "), said + rest
    assert (waiting.returncode, bench.counts) == (0, (3, 0, 19, 1))


@contextmanager
def put(bench: Bench, texts: int, priority: str = "interactive") -> Iterator[Own]:
    """The texts of a run of so many."""
    adder = bench.collection.adder()
    adder.priority = priority
    its = Own(adder)
    jobs = [Job(f"own{n}", f"own {n}") for n in range(texts)]
    for first in range(0, texts, CHUNK_SIZE):
        adder.add(jobs[first : first + CHUNK_SIZE])
    with closing(its):
        its.end()
        yield its


def test_what_is_left_of_a_run_is_told_of_its_own_texts_alone(bench: Bench) -> None:
    left = 1500
    bench.add(*pairs(1000))
    with put(bench, left) as its:
        bench.add(*[(f"after{n}", "after") for n in range(10)])
        assert its.left(1500) == left
        while left:
            leases = bench.claim(count=400)
            bench.commit(leases)
            left -= sum(map(own, leases))
            assert its.left(1500) == left
        assert bench.status.backlog > 500
        assert its.count(1500) == Counts()


def test_what_others_enqueue_during_a_run_is_not_waited_for(bench: Bench) -> None:
    adder = bench.collection.adder()
    adder.priority = "interactive"
    with closing(Own(adder)) as its:
        adder.add([Job("own0", "text")])
        bench.add(*pairs(50))
        adder.add([Job("own1", "text")])
        its.end()
        assert its.left(2) == 2
        leases = bench.claim(count=3)
        assert ids(leases[:2]) == ["own0", "own1"]
        bench.commit(leases[:2])
        assert its.left(2) == 0


def test_what_is_left_of_a_run_is_at_most_what_is_left_of_all(bench: Bench) -> None:
    adder = bench.collection.adder()
    adder.priority = "interactive"
    with closing(Own(adder)) as its:
        adder.add([Job("own0", "text")])
        bench.add(*pairs(1))
        adder.add([Job("own1", "text"), Job("own2", "text")])
        its.end()
        bench.commit(bench.claim(count=3)[1:])
        assert its.left(3) == 2


def test_a_text_of_a_run_that_is_put_back_is_waited_for_again(bench: Bench) -> None:
    bench.add(*pairs(5))
    with put(bench, 30) as its:
        leases = [one for one in bench.claim() if own(one)]
        bench.commit(leases[:29], leases[29:])
        assert its.left(30) == 0
        assert bench.retry(["own29"]) == 1
        assert its.left(30) == 0, "it was seen settled"
        assert its.count(30) == Counts(waiting=1)
        assert its.left(30) == 1
        bench.commit([one for one in bench.claim("d") if own(one)])
        assert its.left(30) == 0
        assert its.count(30) == Counts()
        assert bench.status.leased == 5


def test_a_run_with_the_collection_for_itself_asks_for_no_text(
    bench: Bench, redis_client: redis.Redis
) -> None:
    bench.add(*pairs(5))
    bench.embed_all()
    with put(bench, 2000, "") as its:
        bench.commit(bench.claim())
        before = steps(redis_client)
        assert its.left(2000) == 1900
        assert steps(redis_client) - before == 1


def test_where_no_temporary_file_can_be_made_a_run_is_known_by_its_last_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.producer.noted._HELD_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", "/no/such/directory")
    bench.add(*pairs(5))
    with put(bench, 30) as its:
        bench.commit(bench.claim(count=10))
        assert its.left(30) == 25
        assert its.count(30) is None
        bench.embed_all()
        assert its.left(30) == 0


def test_where_there_is_no_room_to_count_a_run_is_known_by_its_last_job(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.producer.noted.Spill", partial(Spill, 0))
    monkeypatch.setattr("tempfile.tempdir", "/no/such/directory")
    with put(bench, 30) as its:
        bench.add(*pairs(5))
        assert its.left(30) == 30
        bench.commit(bench.claim(count=10))
        assert its.count(30) is None
        assert its.left(30) == 20
        assert its.count(30) is None


def steps(client: redis.Redis) -> int:
    """How many steps Redis has done, ever."""
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


@pytest.mark.heavy
def test_a_run_without_news_does_not_wait_for_others(shell: Shell, bench: Bench) -> None:
    bench.add(*[(one["id"], one["text"]) for one in OWN])
    bench.embed_all()
    bench.add(*pairs(5))
    shell.write("wiki.jsonl", *OWN)
    answer = shell("vec-enqueue", "wiki.jsonl", "--wait")
    assert answer.stdout == "wiki: 0 new, 3 unchanged, all embedded\n"
    assert (answer.returncode, answer.stderr, bench.status.backlog) == (0, "", 5)


@pytest.mark.heavy
def test_a_run_that_no_one_disturbs_finds_its_dead_texts_among_those_of_others(
    shell: Shell, bench: Bench
) -> None:
    bench.add(*[(one["id"], one["text"]) for one in OWN], ("other", "bad"))
    bench.embed_all(refuse=["bad", "own 1"])
    shell.write("wiki.jsonl", *OWN, OWN[0])
    answer = shell("vec-enqueue", "wiki.jsonl", "--wait")
    said = "2 unchanged, 1 duplicate, 1 dead (see vec dead wiki), the rest embedded"
    assert (answer.stdout, answer.returncode) == (f"wiki: 0 new, {said}\n", 1)


@pytest.mark.heavy
def test_a_text_that_was_deleted_meanwhile_is_missed(shell: Shell, bench: Bench) -> None:
    shell.write("wiki.jsonl", *OWN)
    waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait")
    assert waiting.stderr is not None
    assert waiting.stderr.readline() == "wiki: waiting for 3 texts\n"
    bench.collection.delete(["own1"])
    bench.embed_all()
    said, rest = waiting.communicate(timeout=60)
    assert (said, waiting.returncode) == ("wiki: 3 new, 1 missing\n", 1)
    assert "nothing is left of 1 text" in rest


@contextmanager
def busy(bench: Bench, floor: int) -> Iterator[None]:
    """Another producer, that keeps so many texts in the backlog."""
    stop, number = threading.Event(), 0

    def run() -> None:
        nonlocal number
        while not stop.is_set():
            if bench.collection.status().backlog < floor:
                texts = [(f"busy{n}", f"busy {n}") for n in range(number, number + floor)]
                enqueue(texts, "wiki", settings=bench.settings)
                number += floor
            stop.wait(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.heavy
async def test_beside_a_producer_without_end_both_end_their_waits(
    shell: Shell, settings: Settings, api: API, worker_process: StartWorker
) -> None:
    bench = Bench(replace(settings, model=Settings.model))
    del shell.environ["VECTOR_EMBED_MODEL"]
    api.faults(rules=[{"answer": "named", "marker": "own 1"}])
    shell.write("wiki.jsonl", *OWN)
    with busy(bench, 3000):
        wait_until(lambda: bench.collection.status().backlog >= 3000, what="a backlog")
        receipt = await aenqueue(
            [(f"its{n}", f"own {n}") for n in range(5)], "wiki", settings=bench.settings
        )
        waiting = shell.start("vec-enqueue", "wiki.jsonl", "--wait")
        worker_process()
        status = await receipt.await_done(timeout=90)
        said, _ = waiting.communicate(timeout=90)
    assert (status.embedded, status.ids("dead"), status.waiting) == (4, ["its1"], 0)
    assert said.startswith("wiki: 3 new, 1 dead (see vec dead wiki), the rest embedded in ")
    assert waiting.returncode == 1
    assert bench.collection.get("its0") is not None
