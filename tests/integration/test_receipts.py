"""Receipts that are asked: what has become of their texts, whatever happened to them since."""

from __future__ import annotations

import dataclasses
import gc
import json
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from tempfile import TemporaryFile
from typing import BinaryIO

import pytest
import redis
from conftest import heavy
from forking import in_child
from stored import Bench, positions

from worker import (
    BacklogFull,
    Receipt,
    ReceiptStatus,
    Settings,
    UnknownCollection,
    aenqueue,
    enqueue,
)
from worker.corpus.spill import Spill
from worker.producer.known import Filed, Named, Numbered, known_of
from worker.producer.noted import Noted
from worker.producer.receipt import InRedis
from worker.store.backlog import CHUNK_SIZE
from worker.store.states import STATES, Front, read_front
from worker.testing import in_memory

Step = Callable[[Bench], object]
Enqueue = Callable[..., Receipt]


def put(text: str) -> Step:
    return lambda bench: enqueue([("a", text)], "wiki", settings=bench.settings)


def lease(bench: Bench) -> None:
    assert bench.claim(count=1000)


def embed(bench: Bench) -> None:
    bench.embed_all()


def refuse(bench: Bench) -> None:
    bench.embed_all(refuse=("one", "other"))


def evict(bench: Bench) -> None:
    bench.collection.eviction.evict("us", positions(bench))


def retry(bench: Bench) -> None:
    assert bench.retry(["a"]) == 1


def delete(bench: Bench) -> None:
    assert bench.collection.delete(["a"]) == 1


def drop(bench: Bench) -> None:
    bench.collection.drop()


def lose(bench: Bench) -> None:
    bench.redis.flushall()  # type: ignore[attr-defined]


# What happens after ("a", "one") was enqueued; the state of this text, and of the latest of "a".
FATES: list[tuple[list[Step], str, str]] = [
    ([], "waiting", "waiting"),
    ([lease], "waiting", "waiting"),
    ([put("one")], "waiting", "waiting"),
    ([embed], "embedded", "embedded"),
    ([embed, put("one")], "embedded", "embedded"),
    ([refuse], "dead", "dead"),
    ([refuse, put("one")], "dead", "dead"),
    ([refuse, retry], "waiting", "waiting"),
    ([refuse, retry, embed], "embedded", "embedded"),
    ([embed, evict], "evicted", "evicted"),
    ([embed, evict, put("one")], "evicted", "evicted"),
    ([put("other")], "superseded", "waiting"),
    ([lease, put("other")], "superseded", "waiting"),
    ([embed, put("other")], "superseded", "waiting"),
    ([embed, put("other"), embed], "superseded", "embedded"),
    ([put("other"), refuse], "superseded", "dead"),
    ([embed, put("other"), refuse], "superseded", "dead"),
    ([refuse, put("other")], "superseded", "waiting"),
    ([embed, evict, put("other")], "superseded", "waiting"),
    ([embed, evict, put("other"), embed], "superseded", "embedded"),
    ([embed, evict, put("other"), refuse], "superseded", "dead"),
    ([embed, put("other"), embed, evict], "superseded", "evicted"),
    ([put("other"), put("one")], "waiting", "waiting"),
    ([embed, put("other"), put("one")], "embedded", "embedded"),
    ([embed, put("other"), embed, put("one")], "waiting", "waiting"),
    ([delete], "missing", "missing"),
    ([lease, delete], "missing", "missing"),
    ([embed, delete], "missing", "missing"),
    ([refuse, delete], "missing", "missing"),
    ([embed, evict, delete], "missing", "missing"),
    ([delete, put("one")], "waiting", "waiting"),
    ([delete, put("other")], "superseded", "waiting"),
    ([drop, put("one"), embed], "embedded", "embedded"),
    ([drop, put("other")], "superseded", "waiting"),
    ([lose, put("other")], "superseded", "waiting"),
]


def few(settings: Settings) -> Receipt:
    return enqueue([("a", "one")], "wiki", settings=settings)


def chunks(settings: Settings) -> Receipt:
    with redis.Redis.from_url(settings.redis_url, single_connection_client=True) as alone:
        receipt = enqueue([("a", "one")], "wiki", settings=settings, connection=alone)
    return dataclasses.replace(receipt, enquiry=pickle.loads(pickle.dumps(receipt)).enquiry)


def filed(settings: Settings) -> Receipt:
    """As of more texts than are held in memory."""
    connection = redis.Redis.from_url(settings.redis_url, single_connection_client=True)
    with pytest.MonkeyPatch.context() as patch, connection as alone:
        patch.setattr("worker.producer.known.MOST_TEXTS", 0)
        receipt = enqueue([("a", "one")], "wiki", settings=settings, connection=alone)
    assert isinstance(vars(receipt)["enquiry"]._known, Filed)
    return dataclasses.replace(receipt, enquiry=InRedis("wiki", vars(receipt)["enquiry"]._known))


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("VECTOR_EMBED_REDIS_URL", settings.redis_url)
    return settings


@pytest.mark.parametrize("way", [few, filed, *heavy(chunks)])
@pytest.mark.parametrize(("steps", "its", "latest"), FATES)
def test_a_receipt_says_what_has_become_of_its_text(
    environment: Settings, bench: Bench, way: Enqueue, steps: list[Step], its: str, latest: str
) -> None:
    receipt = way(bench.settings)
    for step in steps:
        step(bench)
    status = receipt.status()
    if way is not filed or its in ("dead", "superseded", "missing"):
        assert dict(status.states) == {"a": its}
        assert status.ids(its) == ["a"]
    else:
        assert not status.states
    assert receipt.wait(timeout=0).waiting == status.waiting
    assert {state: getattr(status, state) for state in STATES if getattr(status, state)} == {its: 1}
    assert bench.collection.states(["a", "a"]) == {"a": latest}


@pytest.mark.parametrize("loss", [drop, lose])
def test_of_a_collection_that_is_gone_a_receipt_misses_its_texts(bench: Bench, loss: Step) -> None:
    receipt = enqueue([("a", "one"), ("b", "two")], "wiki", settings=bench.settings)
    bench.embed_all()
    loss(bench)
    assert receipt.status().ids("missing") == ["a", "b"]
    assert receipt.wait().missing == 2
    with pytest.raises(UnknownCollection):
        bench.collection.states(["a"])


@pytest.mark.parametrize("count", [2, 100, CHUNK_SIZE + 1])
def test_each_text_of_an_enqueue_is_in_one_count(bench: Bench, count: int) -> None:
    texts = [(f"id{n}", f"text {n}") for n in range(count)]
    enqueue(texts[:1], "wiki", settings=bench.settings)
    bench.embed_all()
    receipt = enqueue(
        [("id1", "replaced"), *texts, ("id0", ""), ("id1", "last")], "wiki", settings=bench.settings
    )
    status = receipt.status()
    assert (receipt.new, receipt.unchanged, receipt.duplicates) == (count - 1, 1, 2)
    assert (receipt.rejected, status.embedded, status.superseded) == (1, 1, 2)
    assert (status.waiting, len(status.states)) == (count - 1, count)
    bench.embed_all(refuse=("last", "text 1"))
    status = receipt.status()
    assert (status.ids("dead"), status.embedded, status.waiting) == (["id1"], count - 1, 0)


def test_a_receipt_without_a_text_has_nothing_to_wait_for(settings: Settings) -> None:
    receipt = enqueue([" "], "wiki", settings=settings)
    assert receipt.wait() == receipt.status() == ReceiptStatus("wiki")


# Waiting


def test_a_wait_is_for_the_texts_of_the_receipt_alone(bench: Bench) -> None:
    receipt = enqueue([("a", "one"), ("b", "two")], "wiki", settings=bench.settings)
    enqueue([("other", "three")], "wiki", settings=bench.settings)
    done = bench.claim(count=2)
    assert receipt.wait(timeout=0).waiting == 2
    bench.commit(done[:1], done[1:])
    status = receipt.wait()
    assert (status.embedded, status.dead, status.waiting, status.state) == (1, 1, 0, "idle")
    assert bench.status.backlog == 1


@pytest.mark.parametrize("count", [1, 300])
async def test_a_wait_ends_when_the_last_of_its_texts_is_done(bench: Bench, count: int) -> None:
    texts = [(f"id{n}", f"text {n}") for n in range(count)]
    receipt = await aenqueue(texts, "wiki", settings=bench.settings)
    working = threading.Timer(0.1, bench.embed_all)
    working.start()
    status = await receipt.await_done()
    assert status == await receipt.astatus()
    assert (status.embedded, status.waiting) == (count, 0)
    working.join()


def test_a_wait_waits_for_what_is_put_back_meanwhile(bench: Bench) -> None:
    receipt = enqueue([(f"id{n}", "text") for n in range(30)], "wiki", settings=bench.settings)
    bench.commit([], bench.claim())
    watch = vars(receipt)["enquiry"].watch().look
    enqueue([("id29", "other")], "wiki", settings=bench.settings)
    assert watch().dead == 29
    bench.retry(["id3"])
    assert watch() is None
    bench.embed_all()
    assert (watch().embedded, watch().superseded) == (1, 1)


def test_a_wait_ends_when_the_work_is_halted(bench: Bench) -> None:
    receipt = enqueue([("a", "one")], "wiki", settings=bench.settings)
    bench.collection.backlog.halt("throttle", "the API refuses the key")
    status = receipt.wait()
    assert (status.waiting, status.state) == (1, "halted")
    assert status.reason == "the API refuses the key"


def test_a_wait_of_many_texts_asks_for_few_at_a_time(
    bench: Bench, redis_client: redis.Redis
) -> None:
    texts = [(f"id{n}", f"text {n}") for n in range(5000)]
    receipt = enqueue(texts, "wiki", settings=bench.settings)
    bench.commit(bench.claim(count=30))
    watch = vars(receipt)["enquiry"].watch().look
    before = steps(redis_client)
    for _ in range(10):
        assert watch() is None
    assert steps(redis_client) - before <= 12  # all 5,000 take ten


def steps(client: redis.Redis) -> int:
    """How many steps Redis has done, ever."""
    return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])


# Kept, sent elsewhere, forked


def test_a_pickled_receipt_asks_the_redis_of_its_environment_and_has_no_password(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = dataclasses.replace(bench.settings, api_key="sesame")
    receipt = enqueue([("a", "one")], "wiki", settings=secret)
    pickled = pickle.dumps(receipt)
    assert b"sesame" not in pickled and b"redis://" not in pickled
    assert "sesame" not in repr(receipt)
    monkeypatch.setenv("VECTOR_EMBED_REDIS_URL", bench.settings.redis_url)
    again = pickle.loads(pickled)
    assert again == receipt
    bench.embed_all()
    assert again.status() == receipt.status() == again.wait()
    assert receipt.status().embedded == 1


def test_a_receipt_is_still_a_value(settings: Settings) -> None:
    receipt = enqueue([("a", "one")], "wiki", settings=settings)
    assert receipt == dataclasses.replace(receipt)
    assert dataclasses.replace(receipt, lost=True).status().waiting == 1
    assert json.loads(json.dumps(dataclasses.asdict(receipt)))["new"] == 1
    made = Receipt(**dataclasses.asdict(receipt))
    assert made == receipt
    with pytest.raises(ValueError, match="only a receipt that enqueue"):
        made.status()


def test_a_forked_child_asks_by_its_own_connection(bench: Bench) -> None:
    receipt = enqueue([("a", "one")], "wiki", settings=bench.settings)

    def child() -> None:
        assert receipt.status().waiting == 1
        assert receipt.wait().embedded == 1

    working = threading.Timer(0.2, bench.embed_all)
    assert in_child(child, lambda pid: working.start()) == 0
    working.join()
    assert receipt.status().embedded == 1


def test_in_memory_all_is_embedded_at_once() -> None:
    with in_memory():
        first = enqueue([("a", "one"), ("b", "two"), ("a", "three"), " "], "wiki")
        assert first.wait() == first.status()
        assert (first.status().embedded, first.status().superseded) == (2, 1)
        enqueue([("a", "four")], "wiki")
        assert dict(first.status().states) == {"a": "superseded", "b": "embedded"}


# More texts than are held in memory


def test_the_ids_of_many_texts_are_in_a_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    adder = bench.collection.adder()
    monkeypatch.setattr("worker.producer.known.MOST_TEXTS", 3)
    for count, kind in ((3, Named), (4, Filed)):
        noted = Noted()
        for n in range(count):
            noted.note([f"id{n}"], [bytes(16)])
        assert isinstance(known_of(noted, adder, count), kind)
    noted.give_up()
    assert known_of(noted, adder, 4) == Numbered(4, b"", 0)


@pytest.mark.parametrize("is_full", [False, True])
def test_the_file_is_closed_with_its_receipt(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    files: list[BinaryIO] = []

    def open_file() -> BinaryIO:
        files.append(TemporaryFile())  # noqa: SIM115
        return files[-1]

    monkeypatch.setattr("worker.producer.known.MOST_TEXTS", 0)
    monkeypatch.setattr("worker.producer.noted._HELD_BYTES", 0)
    monkeypatch.setattr("worker.producer.noted.TemporaryFile", open_file)
    settings = dataclasses.replace(settings, high_water=1 if is_full else 10_000)
    texts = [f"text {n}" for n in range(CHUNK_SIZE + 1)]
    with pytest.raises(BacklogFull) if is_full else nullcontext():
        receipt = enqueue(texts, "wiki", timeout=0, settings=settings)
        assert receipt.status().waiting == len(texts)
        assert not files[0].closed
        del receipt
    gc.collect()  # the error has the frames of the call
    assert [file.closed for file in files] == [True]


def test_where_no_temporary_file_can_be_made_the_texts_are_known_by_their_number(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.producer.known.MOST_TEXTS", 0)
    monkeypatch.setattr("worker.producer.noted._HELD_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", "/no/such/directory")
    receipt = enqueue([f"text {n}" for n in range(101)], "wiki", settings=bench.settings)
    bench.commit(bench.claim(count=30))
    assert (receipt.status().waiting, receipt.status().settled) == (71, 30)
    bench.embed_all()
    assert receipt.wait() == ReceiptStatus("wiki", settled=101)


def test_where_there_is_no_room_to_count_texts_they_are_known_by_their_number(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.producer.known.MOST_TEXTS", 0)
    monkeypatch.setattr("worker.producer.noted.Spill", partial(Spill, 0))
    receipt = enqueue([f"text {n}" for n in range(101)], "wiki", settings=bench.settings)
    bench.commit(bench.claim(count=30))
    with monkeypatch.context() as full:
        full.setattr("tempfile.tempdir", "/no/such/directory")
        assert (receipt.status().waiting, receipt.status().settled) == (71, 30)
        bench.embed_all()
        assert receipt.wait() == ReceiptStatus("wiki", settled=101)
    assert receipt.status() == ReceiptStatus("wiki", embedded=101)


def test_of_many_texts_a_status_tells_a_bounded_number(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.producer.known.MOST_TEXTS", 2)
    receipt = enqueue([f"text {n}" for n in range(101)], "wiki", settings=bench.settings)
    bench.collection.drop()
    status = receipt.status()
    assert (status.missing, len(status.states)) == (101, 2)


@pytest.fixture
def in_short_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Receipt:
    """A receipt of 101 texts in a file, of which a look of a wait asks for 20."""
    monkeypatch.setattr("worker.producer.known.MOST_TEXTS", 0)
    monkeypatch.setattr("worker.producer.noted._MOST_ASKED", 1)
    return enqueue([f"text {n}" for n in range(101)], "wiki", settings=bench.settings)


def test_a_wait_for_many_texts_keeps_to_its_time(bench: Bench, in_short_looks: Receipt) -> None:
    receipt = in_short_looks
    assert receipt.wait(timeout=0).waiting == 101
    bench.embed_all()
    status = receipt.wait(timeout=0)  # one look, at 20 texts
    assert (status.waiting, status.settled, status.embedded) == (81, 20, 0)
    assert receipt.wait() == ReceiptStatus("wiki", embedded=101)
    bench.collection.drop()
    assert receipt.wait(timeout=0) == ReceiptStatus("wiki", missing=101)


def test_waits_that_are_too_short_for_all_of_many_texts_get_to_the_end_together(
    bench: Bench, in_short_looks: Receipt
) -> None:
    receipt = in_short_looks
    bench.embed_all(refuse=["text 0"])
    waits = [receipt.wait(timeout=0) for _ in range(7)]
    assert [status.waiting for status in waits] == [81, 61, 41, 21, 1, 0, 0]
    assert (waits[-1].embedded, waits[-1].dead) == (100, 1)
    assert bench.collection.retry() == 1
    again = receipt.wait(timeout=0)
    assert (again.waiting, again.settled) == (1, 100)
    bench.embed_all()
    waits = [receipt.wait(timeout=0) for _ in range(6)]
    assert [status.waiting for status in waits] == [81, 61, 41, 21, 1, 0]
    assert waits[-1].embedded == 101


def test_a_wait_that_ran_out_of_time_knows_that_the_collection_is_gone(
    bench: Bench, in_short_looks: Receipt
) -> None:
    bench.collection.drop()
    assert in_short_looks.wait(timeout=0) == ReceiptStatus("wiki", missing=101)


def test_of_two_upper_limits_a_wait_that_ran_out_of_time_tells_the_lower(
    bench: Bench, in_short_looks: Receipt
) -> None:
    first, *others = bench.claim(count=101)
    bench.commit(others)
    receipt = enqueue([f"later {n}" for n in range(101)], "wiki", settings=bench.settings)
    leases = bench.claim("other", count=20)
    bench.commit(leases[1:])
    assert receipt.wait(timeout=0).waiting == 83  # of the backlog; from its first on, 101
    bench.commit(leases[:1])
    assert receipt.wait(timeout=0).waiting == 81  # of the backlog 82, with one before it
    bench.commit([first])


def numbered(bench: Bench, count: int) -> Receipt:
    """A receipt of so many texts that does not know their ids."""
    receipt = enqueue([f"its {n}" for n in range(count)], "wiki", settings=bench.settings)
    front = read_front(bench.redis, bench.collection.keys)
    what = Numbered(count, front.born, front.seq)
    return dataclasses.replace(receipt, enquiry=InRedis("wiki", what, bench.settings))


def test_a_receipt_of_very_many_texts_knows_when_none_is_waiting(bench: Bench) -> None:
    enqueue(["before"], "wiki", settings=bench.settings)
    receipt = numbered(bench, 5)
    enqueue(["after"], "wiki", settings=bench.settings)
    leases = bench.claim()
    assert (receipt.status().waiting, receipt.status().settled) == (5, 0)
    bench.commit(leases[:3])
    assert (receipt.status().waiting, receipt.status().settled) == (3, 2)
    assert receipt.wait(timeout=0).waiting == 3
    bench.release()
    bench.commit([], bench.claim(count=3))
    status = receipt.wait()
    assert (status.waiting, status.settled, dict(status.states)) == (0, 5, {})
    assert bench.status.backlog == 1


@pytest.mark.parametrize(
    ("oldest", "backlog", "left"), [(0, 0, 0), (3, 100, 7), (3, 2, 2), (9, 5, 1), (10, 5, 0)]
)
def test_what_is_left_is_no_more_than_the_backlog(oldest: int, backlog: int, left: int) -> None:
    assert Front(b"", 200, oldest, backlog).left(9) == left


@pytest.mark.parametrize("loss", [drop, lose])
def test_a_receipt_of_very_many_texts_knows_when_they_are_lost(bench: Bench, loss: Step) -> None:
    receipt = numbered(bench, 5)
    loss(bench)
    assert receipt.wait() == ReceiptStatus("wiki", missing=5)
    for texts in (1, 10):  # and as many as there were, or more
        enqueue([f"after {n}" for n in range(texts)], "wiki", settings=bench.settings)
        assert receipt.wait() == ReceiptStatus("wiki", missing=5)


def test_a_receipt_of_very_many_texts_knows_when_redis_went_back_in_time(bench: Bench) -> None:
    receipt = numbered(bench, 5)
    bench.redis.hset(bench.collection.keys.info, "seq", "4")
    assert receipt.status() == ReceiptStatus("wiki", missing=5)


@pytest.mark.heavy
@pytest.mark.usefixtures("environment")
def test_an_enqueue_of_more_than_a_hundred_thousand_texts_can_be_waited_for(bench: Bench) -> None:
    texts = [(f"{n % 100_500}", f"text {n}") for n in range(101_000)]
    receipt = enqueue(texts, "wiki", settings=bench.settings)
    pickled = pickle.loads(pickle.dumps(receipt))
    status = receipt.status()
    assert (status.waiting, status.superseded, dict(status.states)) == (100_500, 500, {})
    assert pickled.status() == dataclasses.replace(status, waiting=101_000, superseded=0)
    # The first 500 texts are those of ids that came again: the wait has seen them.
    assert receipt.wait(timeout=0.1) == dataclasses.replace(status, superseded=0, settled=500)
    enqueue([("7", "other"), ("after", "text")], "wiki", settings=bench.settings)
    with ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(receipt.wait), threads.submit(pickled.wait)]
        while bench.status.backlog > 2:
            leases = bench.claim(count=min(1000, bench.status.backlog - 2))
            refused = [one for one in leases if one.job.id in ("8", "9")]
            bench.commit([one for one in leases if one not in refused], refused)
        whole, part = (one.result() for one in waits)
    assert (whole.embedded, whole.dead, whole.superseded, whole.settled) == (100_497, 2, 501, 0)
    assert dict(whole.states) == {"7": "superseded", "8": "dead", "9": "dead"}
    assert (part.settled, dict(part.states)) == (101_000, {})


# What get gives


@pytest.mark.parametrize("dtype", [None, "int8"])
async def test_get_gives_no_vector_of_an_earlier_text(bench: Bench, dtype: str | None) -> None:
    wiki, settings = bench.collection, bench.settings
    enqueue([("a", "one"), ("b", "two")], "wiki", settings=settings, keep_text=True)
    for one in bench.claim():
        bench.commit([one], keep_text=True)
    if dtype is not None:
        wiki.shrink(dtype=dtype)
    before = wiki.get("a")
    assert before is not None and not before.outdated
    enqueue([("a", "other")], "wiki", settings=settings)
    assert wiki.get("a") is None
    a, b = await wiki.aget_many(["a", "b"])
    assert a is None and b is not None and not b.outdated
    again = await wiki.aget("a", outdated=True)
    assert again == before and again is not None and again.outdated
    assert [record.id for record in wiki] == ["a", "b"]
    enqueue([("a", "one")], "wiki", settings=settings)
    assert wiki.get("a") == before
    enqueue([("a", "other")], "wiki", settings=settings)
    bench.embed_all()
    latest = wiki.get("a", outdated=True)
    assert latest is not None and not latest.outdated and latest != before
