"""The stand-in for tests of programs that enqueue, beside a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stored import Bench

from worker import CollectionError, Job, ModelsDiffer, Receipt, Settings, Text, aenqueue, enqueue
from worker.local.redis_server import free_port
from worker.testing import Memory, in_memory

RUNS: list[list[Text]] = [
    ["alone", ("a", "one"), {"id": "b", "text": "two", "page": 1}, ("c", " ")],
    [("a", "one"), ("a", "changed"), ("d", "four"), ("d", "four"), (5, "five"), (None, "alone")],
    [("a", "changed"), ("a", "one"), ("\ud800", "surrogate")],
    [],
]


@pytest.fixture
def nowhere() -> Settings:
    url = f"redis://127.0.0.1:{free_port()}/0"
    return Settings(redis_url=url, broker_url=url, model="m")


@pytest.fixture
def memory() -> Iterator[Memory]:
    with in_memory() as memory:
        yield memory


def runs(settings: Settings) -> list[Receipt]:
    return [enqueue(texts, "wiki", settings=settings) for texts in RUNS]


def test_the_receipts_in_memory_are_those_that_redis_leads_to(
    settings: Settings, nowhere: Settings
) -> None:
    with in_memory():
        found = runs(nowhere)
    assert found == runs(settings)


def test_the_latest_job_of_each_id_can_be_looked_at(memory: Memory, nowhere: Settings) -> None:
    enqueue([("a", "one"), {"id": "b", "text": "two", "page": 1}], "wiki", settings=nowhere)
    enqueue([("a", "other")], "wiki", settings=nowhere)
    assert memory.jobs("wiki") == [Job("a", "other"), Job("b", "two", {"page": 1})]
    assert memory.jobs("news") == []


def test_a_document_in_memory_has_the_pieces_that_it_has_in_redis(
    nowhere: Settings, bench: Bench
) -> None:
    pytest.importorskip("semantic_text_splitter")
    lengths = (25_000, 12_000, 5, 25_000, 9)

    def put(length: int, settings: Settings) -> None:
        enqueue([("doc#0002", "like a piece"), ("a#0001", "text")], "wiki", settings=settings)
        enqueue([("doc", "x" * length)], "wiki", settings=settings, long="split")

    found = []
    with in_memory() as memory:
        for length in lengths:
            put(length, nowhere)
            found.append({job.id for job in memory.jobs("wiki")})
    for length, ids in zip(lengths, found):
        put(length, bench.settings)
        bench.embed_all()
        assert bench.stored().keys() == ids


async def test_it_takes_what_asyncio_enqueues_too(memory: Memory, nowhere: Settings) -> None:
    assert (await aenqueue(["one"], "wiki", settings=nowhere)).new == 1
    assert [job.text for job in memory.jobs("wiki")] == ["one"]


@pytest.mark.usefixtures("memory")
def test_what_redis_refuses_is_refused(nowhere: Settings) -> None:
    enqueue(["one"], "wiki", settings=nowhere)
    with pytest.raises(ModelsDiffer, match="wiki has vectors of model m, not other: name another"):
        enqueue(["one"], "wiki", model="other", settings=nowhere)
    with pytest.raises(CollectionError, match="must be 1 to 100 letters"):
        enqueue(["one"], "a b", settings=nowhere)
    with pytest.raises(TypeError):
        enqueue("one", "wiki", settings=nowhere)


def test_after_it_texts_go_to_redis_again(settings: Settings) -> None:
    with in_memory() as memory:
        pass
    assert enqueue(["one"], "wiki", settings=settings).new == 1
    assert memory.jobs("wiki") == []
