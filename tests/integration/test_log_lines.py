"""What a real worker's log shows of ids that would forge its lines or steer a terminal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from servers import API, WorkerProcess, wait_until

from worker import Collection, enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]


def test_an_id_forges_no_line_of_the_log_and_steers_no_terminal(
    redis_server: RedisServer, worker_process: StartWorker, api: API
) -> None:
    settings = Settings(redis_url=redis_server.url, broker_url=redis_server.url)
    api.faults(rules=[{"answer": "named", "marker": "refuse"}])
    forged = "a\n[2026-01-01 00:00:00,000: ERROR/MainProcess] forged \x1b[2J\u202e"
    enqueue([(forged, "refuse me")], "wiki", settings=settings)
    worker = worker_process()
    collection = Collection("wiki", settings=settings)
    wait_until(lambda: collection.status().dead, 30, "the dead letter")
    line = wait_until(
        lambda: [line for line in worker.log.split("\n") if "is dead" in line], what="the line"
    )[0]
    assert "WARNING" in line and r"forged \x1b[2J\u202e is dead" in line
    assert line.isprintable()
