"""A Redis that goes back in time: its last moments are lost, or a backup was restored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from servers import API, WorkerProcess, wait_until
from stored import Store

from worker import enqueue
from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE
from worker.store.registry import read_sources

from .conftest import Shell
from .machines import Redis
from .proof import balances, vector_of

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def settings(mortal_redis: Redis) -> Settings:
    return Settings(redis_url=mortal_redis.url, broker_url=mortal_redis.url)


def corpus(count: int, prefix: str = "text") -> dict[str, str]:
    return {f"id-{number}": f"{prefix} {number}" for number in range(count)}


def test_one_worker_alone_does_all_the_work_of_a_redis_that_lost_a_moment(
    settings: Settings,
    mortal_redis: Redis,
    worker_process: StartWorker,
    api: API,
    hasty: dict[str, str],
) -> None:
    # Given one worker process in the middle of its work
    api.faults(latency=0.1)
    texts = corpus(6_000)
    enqueue(texts.items(), "wiki", settings=settings)
    worker = worker_process(
        VECTOR_EMBED_REDIS_URL=mortal_redis.url, VECTOR_EMBED_SLICE_SECONDS="1", **hasty
    )
    wiki = Store("wiki", settings=settings)
    wait_until(lambda: wiki.status().embedded >= 1_000, 60, "the first of it")
    # When Redis forgets what came after a moment in which it held leases, their slices ended since
    wait_until(lambda: wiki.status().leased >= 400, 10, "leases")
    mortal_redis.remember()
    before = wiki.status().embedded
    wait_until(lambda: wiki.status().embedded >= before + 2_000, 60, "more of it")
    mortal_redis.go_back()
    # Then the same worker does what it had leased then, and did not die of it
    wait_until(lambda: not wiki.status().backlog, 60, "the end of the work", every=0.1)
    status = wiki.status()
    assert (status.enqueued, status.embedded, status.dead) == (6_000, 6_000, 0)
    assert balances(status)
    assert {record.id: record.tobytes() for record in wiki} == {
        id: vector_of(text) for id, text in texts.items()
    }
    assert worker.child.running


def test_a_wait_whose_texts_a_restored_redis_does_not_have_does_not_say_that_all_is_done(
    settings: Settings, mortal_redis: Redis, worker_process: StartWorker, api: API, shell: Shell
) -> None:
    # Given a collection with its work done, of which there is a backup
    worker_process(VECTOR_EMBED_REDIS_URL=mortal_redis.url)
    enqueue(corpus(300, "old").items(), "wiki", settings=settings)
    wiki = Store("wiki", settings=settings)
    wait_until(lambda: not wiki.status().backlog, 30, "the end of the work")
    mortal_redis.remember()
    # When other texts come under the same ids, and the backup is restored while somebody waits
    api.faults(latency=30)
    lines = [json.dumps({"id": id, "text": text}) for id, text in corpus(300, "new").items()]
    path = shell.directory / "wiki.jsonl"
    path.write_text("\n".join(lines))
    waiting = shell.start(settings.redis_url, "vec-enqueue", str(path), "--wait")
    # It notes its source once it has heard that all was added: else it would add the rest again.
    wait_until(partial(read_sources, wiki.client, wiki.keys), 30, "the end of what it adds")
    assert wiki.status().backlog == 300
    mortal_redis.go_back()
    # Then it says what happened, and to run it again
    wait_until(lambda: not waiting.running, 60, "its end")
    assert "status 1\n" in waiting.ended()
    assert "texts of this run are missing: run the same command again" in waiting.tail()
    assert "all embedded" not in waiting.tail()


def test_a_producer_whose_redis_goes_back_in_mid_run_goes_on_and_says_so(
    settings: Settings, mortal_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    texts = corpus(5 * CHUNK_SIZE)
    wiki = Store("wiki", settings=settings)

    def source() -> Iterator[tuple[str, str]]:
        for number, pair in enumerate(texts.items()):
            if number == 2 * CHUNK_SIZE + 1:
                wait_until(
                    lambda: wiki.reader.ledger().enqueued == 2 * CHUNK_SIZE, what="two chunks"
                )
                mortal_redis.remember()
            if number == 4 * CHUNK_SIZE + 1:
                wait_until(
                    lambda: wiki.reader.ledger().enqueued == 4 * CHUNK_SIZE, what="four chunks"
                )
                mortal_redis.go_back()
            yield pair

    receipt = enqueue(source(), "wiki", settings=settings)
    assert receipt.lost
    assert "Redis went back in time" in caplog.text
    # The fourth was sent again if its answer had not been read yet.
    there = wiki.reader.ledger().enqueued
    assert there in (3 * CHUNK_SIZE, 4 * CHUNK_SIZE)
    again = enqueue(texts.items(), "wiki", settings=settings)
    assert (again.new, again.lost) == (len(texts) - there, False)
    assert wiki.reader.ledger().enqueued == 5 * CHUNK_SIZE
