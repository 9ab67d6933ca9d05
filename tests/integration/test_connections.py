"""How many connections to Redis a worker holds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from servers import API, WorkerProcess, wait_until
from shell import Shell

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]

THREADS = 8
IDLE = 4  # the broker's included
BUSY = THREADS + 3 + IDLE


class Held:
    """How many connections were opened since, and are open: those of the workers, here."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._last = max(self._ids())

    def __call__(self) -> int:
        return sum(one > self._last for one in self._ids())

    def _ids(self) -> list[int]:
        return [int(one["id"]) for one in self._client.client_list()]


def test_a_busy_worker_holds_a_connection_a_thread_and_an_idle_one_four(
    worker_process: StartWorker, redis_client: redis.Redis, api: API, shell: Shell
) -> None:
    api.faults(latency=0.2)
    shell.write("wiki.jsonl", *[{"id": str(one), "text": f"{one}"} for one in range(6000)])
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    held = Held(redis_client)
    worker = worker_process(concurrency=THREADS)

    most = 0
    while api.log().charged < 6000:
        most = max(most, held())
    assert IDLE < most <= BUSY
    wait_until(lambda: held() <= IDLE, 60, "the idle connections to be closed")
    assert worker.child.running


def test_the_processes_of_a_prefork_pool_close_what_they_do_not_use(
    worker_process: StartWorker, redis_client: redis.Redis, api: API, shell: Shell
) -> None:
    api.faults(latency=0.2)
    held = Held(redis_client)
    processes = 3
    worker_process(concurrency=processes, pool="prefork", VECTOR_EMBED_SLICE_SECONDS="0.5")
    shell.write("wiki.jsonl", *[{"id": f"{one}", "text": f"{one}"} for one in range(3000)])
    assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0
    wait_until(lambda: held() <= IDLE + processes, 60, "the idle connections to be closed")


def test_two_idle_workers_and_vec_status_fit_into_a_redis_of_twenty_connections(
    worker_process: StartWorker, redis_client: redis.Redis, shell: Shell
) -> None:
    before = redis_client.config_get("maxclients")["maxclients"] or ""
    redis_client.config_set("maxclients", 20)
    held = Held(redis_client)
    try:
        workers = [worker_process(concurrency=THREADS) for _ in range(2)]
        shell.write("wiki.jsonl", *[{"id": str(one), "text": f"{one}"} for one in range(2000)])
        assert shell("vec-enqueue", "wiki.jsonl", "--wait").returncode == 0
        wait_until(lambda: held() <= 2 * IDLE, 60, "both to be idle")
        for _ in range(5):
            assert shell("vec", "status").returncode == 0
        assert all(one.child.running for one in workers)
    finally:
        redis_client.config_set("maxclients", before)


def test_a_worker_still_sends_wake_ups_after_it_closed_the_connections_for_them(
    worker_process: StartWorker, redis_client: redis.Redis, api: API, shell: Shell
) -> None:
    api.faults(latency=0.2)
    held = Held(redis_client)
    worker_process(concurrency=THREADS, VECTOR_EMBED_SLICE_SECONDS="0.5")
    for texts in (3000, 6000):
        # Given a worker that has closed what it does not use
        wait_until(lambda: held() <= IDLE, 60, "the idle connections to be closed")
        # When there is more work than the producer's wake-ups are enough for
        shell.write("wiki.jsonl", *[{"id": f"{one}", "text": f"{one}"} for one in range(texts)])
        assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
        # Then the worker sends the others
        wait_until(lambda: api.log().charged == texts, 60, "the work")  # noqa: B023
