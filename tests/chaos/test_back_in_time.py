"""A Redis that goes back in time: its last moments are lost, or a backup was restored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from servers import API, WorkerProcess, wait_until

from worker import Collection, enqueue
from worker.settings import Settings

from .machines import Redis
from .proof import balances, vector_of

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
    wiki = Collection("wiki", settings=settings)
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
    assert {record.id: record.data for record in wiki} == {
        id: vector_of(text) for id, text in texts.items()
    }
    assert worker.child.running
