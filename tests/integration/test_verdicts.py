"""Whose fault is a refusal? A real worker before an API that refuses one text, or all alike."""

from __future__ import annotations

import pytest
from conftest import StartWorker
from servers import API, API_KEY

from worker.collection import Collection
from worker.local.redis_server import RedisServer
from worker.producer import enqueue
from worker.settings import Settings


def work(redis_server: RedisServer, texts: dict[str, str]) -> Collection:
    settings = Settings(redis_url=redis_server.url, api_key=API_KEY)
    enqueue(texts.items(), "wiki", settings=settings)
    return Collection("wiki", settings=settings)


@pytest.mark.parametrize(
    ("status", "retry_after"),
    [(401, "1"), (403, "0"), (302, ""), (404, ""), (413, ""), (422, ""), (451, "86400")],
)
def test_a_refusal_of_all_texts_halts_the_queue_with_or_without_retry_after(
    redis_server: RedisServer, worker_process: StartWorker, api: API, status: int, retry_after: str
) -> None:
    rule = {"answer": "status", "status": status, "detail": "no", "retry_after": retry_after}
    api.faults(rules=[rule])
    worker_process()
    found = work(redis_server, {f"id{n}": f"text {n}" for n in range(500)}).wait(60)
    assert (found.state, found.dead, found.backlog) == ("halted", 0, 500)
    assert api.log().requests <= 100


@pytest.mark.parametrize("status", [302, 403, 404, 406, 413, 451])
def test_a_firewall_that_refuses_one_text_costs_that_text_alone(
    redis_server: RedisServer, worker_process: StartWorker, api: API, status: int
) -> None:
    rule = {"answer": "status", "status": status, "detail": "blocked", "marker": "SELECT"}
    api.faults(rules=[rule])
    worker_process()
    texts = {
        **{f"id{n}": f"text {n}" for n in range(300)},
        "id150": "' OR 1=1; SELECT * FROM users",
    }
    found = work(redis_server, texts).wait(60)
    assert (found.state, found.dead, found.embedded) == ("idle", 1, 299)


def test_half_of_the_requests_may_fail_and_every_text_is_done(
    redis_server: RedisServer, worker_process: StartWorker, api: API
) -> None:
    rule = {"answer": "status", "status": 503, "detail": "busy", "probability": 0.5}
    api.faults(rules=[rule])
    worker_process()
    found = work(redis_server, {f"id{n}": f"text {n}" for n in range(2_000)}).wait(60)
    assert (found.dead, found.embedded) == (0, 2_000)
