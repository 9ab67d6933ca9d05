"""The producer on a real redis-server: counts right over cut lines, waits while there is too much,
and reads no further than it must.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
import redis
from servers import TcpProxy, wait_until
from stored import Store

from worker.corpus.texts import Text
from worker.local.redis_server import RedisServer
from worker.producer import KEPT_REJECTIONS, enqueue, produce
from worker.producer.lane import LOOK_SECONDS
from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE
from worker.store.connection import RedisUnfit
from worker.store.errors import CollectionError
from worker.types import Embedded, Job, Refused, Rejection, default_id, text_digest

HIGH_WATER = 2000
MakeProxy = Callable[[str], TcpProxy]


def settings_for(url: str) -> Settings:
    return Settings(redis_url=url, broker_url=url, model="m")


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return settings_for(redis_server.url)


@pytest.fixture
def collection(settings: Settings) -> Store:
    return Store("wiki", settings=settings)


def texts(count: int, start: int = 0) -> Iterator[tuple[str, str]]:
    return ((f"id{number}", f"text {number}") for number in range(start, start + count))


def jobs(count: int) -> Iterator[Job]:
    return (Job(id, text) for id, text in texts(count))


def no_rejection(rejection: Rejection) -> None:
    raise AssertionError(rejection)


def work(collection: Store, batches: int = 10**9) -> int:
    """Embed so many batches; how many texts there were."""
    done = 0
    collection.backlog.keep_alive("c")
    for _ in range(batches):
        leases = collection.backlog.claim("c")
        if not leases:
            break
        vectors = [Embedded(lease, text_digest(lease.job.text), False) for lease in leases]
        done += collection.backlog.commit(vectors).stored
    return done


def test_every_text_is_in_one_of_the_counts(settings: Settings, collection: Store) -> None:
    enqueue([("old", "old"), ("bad", "bad")], "wiki", settings=settings)
    collection.backlog.keep_alive("c")
    old, bad = collection.backlog.claim("c")
    vector = text_digest("old")
    collection.backlog.commit([Embedded(old, vector, False)], [Refused(bad, "poison", "no")])
    given = [("a", "x"), ("b", "y"), ("a", "z"), ("old", "old"), ("bad", "bad"), ("c", " ")]
    receipt = enqueue(given, "wiki", settings=settings)
    assert (receipt.new, receipt.duplicates, receipt.unchanged) == (2, 1, 1)
    assert (receipt.dead, receipt.rejected) == (1, 1)
    assert receipt.collection == "wiki"
    assert collection.status().enqueued == 4


def test_texts_pairs_and_jobs_can_be_mixed(settings: Settings, collection: Store) -> None:
    given: list[Text] = ["alone", ("id", "pair"), Job("job", "text", {"page": 1})]
    given += [(None, "no id"), (42, "number")]
    assert enqueue(given, "wiki", settings=settings).new == 5
    collection.backlog.keep_alive("c")
    found = {lease.job.id: lease.job for lease in collection.backlog.claim("c")}
    assert found.keys() == {default_id("alone"), "id", "job", default_id("no id"), "42"}
    assert found["job"].meta == {"page": 1}


def test_rows_of_a_table_go_in_with_their_other_fields_kept(
    settings: Settings, collection: Store
) -> None:
    rows: list[Text] = [
        {"id": 7, "text": "one", "page": 1, "tags": ["a"]},
        {"text": "two"},
        {"id": "x", "text": None},
        MappingProxyType({"id": "c", "text": "three"}),
    ]
    receipt = enqueue(rows, "wiki", settings=settings)
    assert (receipt.new, receipt.rejected) == (3, 1)
    collection.backlog.keep_alive("c")
    jobs = [lease.job for lease in collection.backlog.claim("c")]
    assert jobs == [
        Job("7", "one", {"page": 1, "tags": ["a"]}),
        Job(default_id("two"), "two"),
        Job("c", "three"),
    ]


FRAME: dict[str, list[object]] = {
    "id": [1, 2, 3],
    "text": ["one", "two", None],
    "when": [datetime(2026, 1, 2), None, None],
    "score": [0.5, float("nan"), None],
}


def _filtered(frame: Any) -> Any:
    return frame[frame["id"] < 9].set_axis(["x", "y", "z"])


@pytest.mark.parametrize("kind", ["pandas", "filtered", "polars", "arrow", "reader"])
def test_tables_of_arrow_data_go_in_row_by_row(
    settings: Settings, collection: Store, kind: str
) -> None:
    of = {"arrow": "pyarrow", "reader": "pyarrow", "filtered": "pandas"}
    library: Any = pytest.importorskip(of.get(kind, kind))
    pytest.importorskip("pyarrow")
    table = library.table(FRAME) if kind in ("arrow", "reader") else library.DataFrame(FRAME)
    if kind == "filtered":
        table = _filtered(table)
    receipt = enqueue(table.to_reader() if kind == "reader" else table, "wiki", settings=settings)
    assert (receipt.new, receipt.rejected) == (2, 1)
    assert receipt.rejections[0].line == 3
    collection.backlog.keep_alive("c")
    one, two = (lease.job for lease in collection.backlog.claim("c"))
    assert (one.id, one.text, two.meta) == ("1", "one", {"when": None, "score": None})
    assert one.meta is not None and str(one.meta["when"]).startswith("2026-01-02 00:00:00")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["x"]}, "texts has no column 'text'"),
        ({"text": [1]}, "column 'text' is int64, not text"),
        ({"text": ["x"], "raw": [b"x"]}, "column 'raw' is binary, which JSON cannot hold: leave"),
    ],
)
def test_a_table_that_cannot_be_used_is_a_type_error_and_adds_nothing(
    settings: Settings, collection: Store, columns: dict[str, list[object]], message: str
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    with pytest.raises(TypeError, match=message):
        enqueue(pyarrow.table(columns), "wiki", settings=settings)
    assert not collection.exists()


def test_times_and_decimals_of_rows_are_kept_as_text(settings: Settings, collection: Store) -> None:
    row = {"id": 1, "text": "one", "when": datetime(2026, 1, 2), "price": Decimal("1.50")}
    enqueue([row], "wiki", settings=settings)
    collection.backlog.keep_alive("c")
    (lease,) = collection.backlog.claim("c")
    assert lease.job.meta == {"when": "2026-01-02 00:00:00", "price": "1.50"}


class Table:
    """As a DataFrame: iterating it gives the names of its columns."""

    columns = ("id", "text")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    "texts, wanted",
    [
        ("one text", "put it into a list"),
        (b"one text", "put it into a list"),
        ({"id": "text"}, r"\(id, text\) pairs, enqueue its items\(\)"),
        (Table(), r'enqueue its rows, such as df\[\["id", "text"\]\].to_dict\("records"\)'),
        ([("a", "b", "c")], r"text 1 is a tuple of 3: a pair is \(id, text\)"),
        (["fine", ("a",)], r"text 2 is a tuple of 1: a pair is \(id, text\)"),
        ([{"id": "a", "body": "b"}], "text 1 is a mapping without 'text': it has 'id', 'body'"),
    ],
)
def test_what_is_no_text_is_a_type_error_that_says_what_is_wanted_and_adds_nothing(
    settings: Settings, collection: Store, texts: Any, wanted: str
) -> None:
    with pytest.raises(TypeError, match=wanted):
        enqueue(texts, "wiki", settings=settings)
    assert not collection.exists()


def test_what_can_never_be_embedded_is_rejected_with_its_number_and_reason(
    settings: Settings, collection: Store
) -> None:
    given: list[Text] = [
        "good",
        "",
        " \n",
        "x" * 10_001,
        "\ud800",
        ("\ud800", "text"),
        ("", "text"),
        ("x" * 1025, "text"),
        Job("a", "text", {"n": float("nan")}),
        Job("b", "text", {"n": object()}),
        ("id", "fine"),
    ]
    receipt = enqueue(given, "wiki", settings=settings)
    assert (receipt.new, receipt.rejected) == (2, 9)
    assert [rejection.line for rejection in receipt.rejections] == list(range(2, 11))
    assert all(rejection.reason for rejection in receipt.rejections)
    assert collection.backlog.size() == 2


def test_a_bare_string_is_not_taken_for_its_letters(settings: Settings) -> None:
    with pytest.raises(TypeError, match="put it into a list"):
        enqueue("hello", "wiki", settings=settings)


def test_only_so_many_rejections_are_kept_and_all_are_counted(settings: Settings) -> None:
    receipt = enqueue([""] * (KEPT_REJECTIONS + 5), "wiki", settings=settings)
    assert receipt.rejected == KEPT_REJECTIONS + 5
    assert len(receipt.rejections) == KEPT_REJECTIONS


def test_nothing_to_enqueue_is_no_fault(settings: Settings, collection: Store) -> None:
    receipt = enqueue([], "wiki", settings=settings)
    assert (receipt.new, receipt.rejected) == (0, 0)
    assert collection.backlog.size() == 0


def test_a_wrong_name_or_model_is_an_error(settings: Settings) -> None:
    enqueue(["text"], "wiki", model="one", settings=settings)
    with pytest.raises(CollectionError, match="model one, not two"):
        enqueue(["other"], "wiki", model="two", settings=settings)
    with pytest.raises(CollectionError, match="collection name"):
        enqueue(["text"], "no such/name", settings=settings)


@pytest.mark.parametrize("count", [1, 1000])
def test_a_redis_that_evicts_is_refused(
    settings: Settings, redis_client: redis.Redis, count: int
) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        with pytest.raises(RedisUnfit, match="allkeys-lfu"):
            # Of a few texts not each step looks, but one every half second.
            for start in range(0, 10**9, count):
                enqueue(texts(count, start), "wiki", settings=settings)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")


def test_wakeups_are_sent_when_there_is_work_and_only_then(
    settings: Settings, redis_client: redis.Redis
) -> None:
    enqueue([], "wiki", settings=settings)
    assert not redis_client.exists(settings.queue)
    enqueue(["text"], "wiki", settings=settings)
    wait_until(lambda: redis_client.exists(settings.queue), what="a wake-up")


def test_the_workers_are_woken_long_before_the_end_of_a_large_corpus(
    settings: Settings, redis_client: redis.Redis
) -> None:
    woken_after: list[int] = []

    def texts() -> Iterator[str]:
        for number in range(300_000):
            if number % CHUNK_SIZE == 0 and redis_client.exists(settings.queue):
                woken_after.append(number)
                return
            yield f"text {number}"

    enqueue(texts(), "wiki", settings=settings)
    assert woken_after


# Waiting


def test_it_waits_at_high_water_reads_no_further_and_goes_on(
    settings: Settings, collection: Store
) -> None:
    settings = dataclasses.replace(settings, high_water=HIGH_WATER)
    read = 0

    def counted() -> Iterator[Job]:
        nonlocal read
        for job in jobs(30_000):
            read += 1
            yield job

    steps = produce(counted(), collection.adder(), settings, rejected=no_rejection)
    progress = next(step for step in steps if step.waiting)
    assert "texts are queued already" in (progress.waiting or "")
    assert HIGH_WATER <= collection.backlog.size() <= HIGH_WATER + CHUNK_SIZE
    assert read <= collection.backlog.size() + CHUNK_SIZE
    before = collection.backlog.size()
    assert next(steps).waiting
    assert collection.backlog.size() == before
    work(collection)
    assert next(step.new for step in steps if step.new > before) == before + CHUNK_SIZE


def test_it_wakes_the_workers_while_it_waits(
    settings: Settings, collection: Store, redis_client: redis.Redis
) -> None:
    settings = dataclasses.replace(settings, high_water=HIGH_WATER)
    steps = produce(jobs(30_000), collection.adder(), settings, rejected=no_rejection)
    assert next(step for step in steps if step.waiting)
    redis_client.delete(settings.queue, collection.keys.wakeups)  # all that were sent are lost
    assert next(steps).waiting
    wait_until(lambda: redis_client.exists(settings.queue), what="a wake-up")


@pytest.mark.parametrize("chunks", [2, 10])
def test_it_does_not_wait_when_nothing_is_left_to_add(
    settings: Settings, collection: Store, chunks: int
) -> None:
    settings = dataclasses.replace(settings, high_water=chunks * CHUNK_SIZE)
    steps = list(
        produce(jobs(chunks * CHUNK_SIZE), collection.adder(), settings, rejected=no_rejection)
    )
    assert not any(step.waiting for step in steps)
    assert steps[-1].new == chunks * CHUNK_SIZE


def test_it_does_not_wait_for_work_that_was_done_while_it_read(
    settings: Settings, collection: Store
) -> None:
    enqueue(["text"], "other", settings=settings)  # a new server does not know the step yet
    settings = dataclasses.replace(settings, high_water=CHUNK_SIZE)

    def working() -> Iterator[Job]:
        for number, job in enumerate(jobs(3 * CHUNK_SIZE)):
            if number and number % CHUNK_SIZE == 0:
                wait_until(lambda: collection.backlog.size() == CHUNK_SIZE, what="the chunk before")
                work(collection)
            yield job

    steps = list(produce(working(), collection.adder(), settings, rejected=no_rejection))
    assert not any(step.waiting for step in steps)


def test_where_reading_takes_long_it_looks_once_more_before_it_adds(
    settings: Settings, collection: Store
) -> None:
    enqueue(["text"], "other", settings=settings)  # a new server does not know the step yet
    settings = dataclasses.replace(settings, high_water=HIGH_WATER)

    def beside_another() -> Iterator[Job]:
        for number, job in enumerate(jobs(2 * CHUNK_SIZE)):
            if number == CHUNK_SIZE:
                wait_until(lambda: collection.backlog.size() == CHUNK_SIZE, what="the first chunk")
                collection.adder().add([Job(f"other{n}", "text") for n in range(CHUNK_SIZE)])
                threading.Event().wait(LOOK_SECONDS)  # reading takes long
            yield job

    steps = produce(beside_another(), collection.adder(), settings, rejected=no_rejection)
    assert next(step.waiting for step in steps if step.waiting)
    assert collection.backlog.size() == 2 * CHUNK_SIZE


def test_it_waits_while_redis_fills_up_however_long_the_texts_are(
    settings: Settings, collection: Store, redis_client: redis.Redis
) -> None:
    used = int(redis_client.info("memory")["used_memory"])
    limit = used + 100_000_000
    long = (Job(f"id{number}", f"{number} ".ljust(10_000, "x")) for number in range(20_000))
    redis_client.config_set("maxmemory", limit)
    try:
        steps = produce(long, collection.adder(), settings, rejected=no_rejection)
        progress = next(step for step in steps if step.waiting)
        assert "full" in (progress.waiting or "")
        assert int(redis_client.info("memory")["used_memory"]) < 0.85 * limit
    finally:
        redis_client.config_set("maxmemory", 0)


def test_memory_stays_bounded_whatever_the_length_of_the_source(
    settings: Settings, collection: Store
) -> None:
    read = 0

    def endless() -> Iterator[tuple[str, str]]:
        nonlocal read
        while True:
            read += 1
            yield "the same", f"text {read % 3}"

    same = (Job(*pair) for pair in endless())
    steps = produce(same, collection.adder(), settings, rejected=no_rejection)
    for number in range(1, 6):
        next(steps)
        assert read == number * CHUNK_SIZE


def test_few_long_texts_are_held_at_once(settings: Settings, collection: Store) -> None:
    read = 0

    def counted() -> Iterator[Job]:
        nonlocal read
        for number in range(2_000):
            read += 1
            yield Job(f"id{number}", f"{number} ".ljust(10_000, "\U0001f30a"))

    steps = produce(counted(), collection.adder(), settings, rejected=no_rejection)
    for number in range(1, 6):
        next(steps)
        assert read == number * 100
    assert list(steps)[-1].new == 2_000


# Cut lines


def test_a_chunk_whose_answer_was_lost_is_counted_once(
    settings: Settings, collection: Store, proxy: MakeProxy
) -> None:
    line = proxy(settings.redis_url)

    def has_cut(times: int) -> bool:
        return line.cuts == times

    def cutting() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(texts(3 * CHUNK_SIZE)):
            if number % CHUNK_SIZE == 0:
                wait_until(partial(has_cut, number // CHUNK_SIZE), what="the line cut")
                line.cut_next_reply(to=b"EVALSHA")
            yield pair

    receipt = enqueue(cutting(), "wiki", settings=settings_for(line.url))
    assert line.cuts == 3
    assert (receipt.new, receipt.duplicates, receipt.unchanged) == (3 * CHUNK_SIZE, 0, 0)
    status = collection.status()
    assert (status.enqueued, status.pending) == (3 * CHUNK_SIZE, 3 * CHUNK_SIZE)


@pytest.mark.parametrize("command", [b"SADD", b"XLEN", b"memory", b"ZRANGEBYSCORE"])
def test_a_line_cut_anywhere_in_a_run_ends_nothing(
    settings: Settings, collection: Store, proxy: MakeProxy, command: bytes
) -> None:
    line = proxy(settings.redis_url)

    def cutting() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(texts(3 * CHUNK_SIZE)):
            if number % CHUNK_SIZE == 0:
                line.cut_next_reply(to=command)
            yield pair

    receipt = enqueue(cutting(), "wiki", settings=settings_for(line.url))
    assert receipt.new == 3 * CHUNK_SIZE
    assert collection.status().enqueued == 3 * CHUNK_SIZE


def test_a_redis_away_for_a_while_is_waited_for(
    settings: Settings,
    collection: Store,
    proxy: MakeProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = proxy(settings.redis_url)

    def come_back() -> None:
        wait_until(lambda: caplog.text.count("does not answer") >= 2, what="two attempts")
        line.refuse(False)

    healer = threading.Thread(target=come_back)

    def leaving() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(texts(3 * CHUNK_SIZE)):
            if number == CHUNK_SIZE:
                line.refuse()
                healer.start()
            yield pair

    receipt = enqueue(leaving(), "wiki", settings=settings_for(line.url))
    healer.join(10)
    assert receipt.new == 3 * CHUNK_SIZE
    assert collection.status().enqueued == 3 * CHUNK_SIZE


def test_a_redis_that_forgets_its_scripts_in_mid_run_is_told_them_again(
    settings: Settings, collection: Store, redis_client: redis.Redis
) -> None:
    def forgetting() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(texts(3 * CHUNK_SIZE)):
            if number % CHUNK_SIZE == 0:
                redis_client.script_flush()
            yield pair

    receipt = enqueue(forgetting(), "wiki", settings=settings)
    assert (receipt.new, receipt.duplicates) == (3 * CHUNK_SIZE, 0)
    assert collection.status().enqueued == 3 * CHUNK_SIZE


def test_an_answer_that_nobody_waits_for_answers_no_other_question(
    collection: Store, redis_client: redis.Redis
) -> None:
    chunk = collection.adder().chunk([Job("a", "text")])
    redis_client.client_pause(5_000, all=False)  # the step is not answered, a look is
    try:
        chunk.send()
        chunk.close()
        assert [collection.backlog.size() for _ in range(3)] == [0, 0, 0]
    finally:
        redis_client.client_unpause()


def test_a_chunk_is_in_redis_before_the_next_is_read(
    settings: Settings, collection: Store, redis_client: redis.Redis
) -> None:
    redis_client.script_flush()  # as a server is that has just begun

    def is_in(texts: int) -> bool:
        return collection.backlog.size() == texts

    def looking() -> Iterator[Job]:
        for number, job in enumerate(jobs(3 * CHUNK_SIZE)):
            if number % CHUNK_SIZE == 0:
                wait_until(partial(is_in, number), what="the chunk before")
            yield job

    steps = list(produce(looking(), collection.adder(), settings, rejected=no_rejection))
    assert steps[-1].new == 3 * CHUNK_SIZE


def test_kept_fields_stay_with_their_texts_beside_texts_without(
    settings: Settings, collection: Store
) -> None:
    given = [Job("a", "one"), Job("b", "two", {"page": 2}), Job("c", "three"), Job("b", "four")]
    assert enqueue([*given, Job("d", "five", {"page": 5})], "wiki", settings=settings).new == 4
    collection.backlog.keep_alive("c")
    found = {job.id: (job.text, job.meta) for _, job, *_ in collection.backlog.claim("c")}
    assert found == {
        "a": ("one", None),
        "b": ("four", None),
        "c": ("three", None),
        "d": ("five", {"page": 5}),
    }


def test_sequence_numbers_go_on_over_every_power_of_ten(
    settings: Settings, collection: Store, redis_client: redis.Redis
) -> None:
    for start in (0, 7, 10**15 - 5):
        if start:
            redis_client.hset("vec:{wiki}:info", "seq", str(start))
        enqueue([(f"{start}-{n}", "text") for n in range(12)], "wiki", settings=settings)
        entries: Any = redis_client.xrevrange("vec:{wiki}:jobs", count=12)
        numbers = [int(entry.split(b"-")[1]) for entry, _ in entries]
        assert numbers == list(range(start + 12, start, -1))
        queued = redis_client.hmget("vec:{wiki}:queued", [f"{start}-{n}" for n in range(12)])
        assert [int(latest[8:]) for latest in queued if latest] == numbers[::-1]
