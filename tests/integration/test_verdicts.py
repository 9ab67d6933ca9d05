"""Whose fault is a refusal? A real worker before an API that refuses one text, or all alike."""

from __future__ import annotations

import pytest
from conftest import StartWorker, heavy
from servers import API, API_KEY
from shell import Shell

from worker.collection import Collection
from worker.local.redis_server import RedisServer
from worker.producer import enqueue
from worker.settings import Settings


def work(redis_server: RedisServer, texts: dict[str, str], name: str = "wiki") -> Collection:
    settings = Settings(redis_url=redis_server.url, api_key=API_KEY)
    enqueue(texts.items(), name, settings=settings)
    return Collection(name, settings=settings)


@pytest.mark.parametrize(
    ("status", "retry_after"),
    [(403, "0"), *heavy((401, "1"), (302, ""), (404, ""), (413, ""), (422, ""), (451, "86400"))],
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


@pytest.mark.parametrize("status", [403, *heavy(302, 404, 406, 413, 451)])
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


def texts(first: int, last: int) -> dict[str, str]:
    return {f"id{n}": f"text {n}" for n in range(first, last)}


def test_a_first_answer_of_a_wrong_length_halts_its_collection_until_resumed(
    redis_server: RedisServer, worker_process: StartWorker, api: API, shell: Shell
) -> None:
    api.faults(rules=[{"answer": "resized", "times": 1}])
    worker_process(concurrency=1)  # a second slice would find the API well, and continue
    wiki = work(redis_server, texts(0, 300))
    found = wiki.wait(60)
    assert (found.state, found.embedded, found.dead) == ("halted", 0, 0)
    assert "767" in (found.reason or "") and "768" in (found.reason or "")
    assert shell("vec", "resume", "wiki").returncode == 0
    found = wiki.wait(60)
    assert (found.state, found.embedded, wiki.dimensions()) == ("idle", 300, 768)


def test_another_length_halts_a_collection_alone_and_drop_or_resume_ends_it(
    redis_server: RedisServer, worker_process: StartWorker, api: API, shell: Shell
) -> None:
    worker_process()
    assert work(redis_server, texts(0, 200)).wait(60).embedded == 200
    assert work(redis_server, texts(0, 200), "news").wait(60).embedded == 200
    api.faults(rules=[{"answer": "resized"}])
    wiki, news = (work(redis_server, texts(200, 400), name) for name in ("wiki", "news"))
    for one in (wiki, news):
        found = one.wait(60)
        assert (found.state, found.embedded, found.dead) == ("halted", 200, 0)
        for way_out in ("drop the collection and enqueue again", "enqueue into another one"):
            assert way_out in (found.reason or "")
        assert "vec " not in (found.reason or "")  # of which Redis is said where it is shown
        said = " ".join(shell("vec", "status", one.name).stdout.split())
        assert f"When that is fixed: vec resume {one.name} " in said
    other = work(redis_server, texts(0, 300), "other")
    found = other.wait(60)
    assert (found.state, found.embedded, other.dimensions()) == ("idle", 300, 767)
    assert shell("vec", "drop", "news", "--yes").returncode == 0
    assert work(redis_server, texts(0, 300), "news").wait(60).embedded == 300
    api.faults(rules=[])
    assert shell("vec", "resume", "wiki").returncode == 0
    found = wiki.wait(60)
    assert (found.state, found.embedded, wiki.dimensions()) == ("idle", 400, 768)


def test_an_api_that_computes_text_by_text_is_asked_for_what_it_does_in_time(
    redis_server: RedisServer, worker_process: StartWorker, api: API
) -> None:
    api.faults(latency_per_text=0.04)  # a full request takes twice the timeout
    worker_process(VECTOR_EMBED_TIMEOUT="2")
    found = work(redis_server, texts(0, 300)).wait(60)
    assert (found.embedded, found.dead) == (300, 0)
    assert api.log().charged <= 1.2 * 300
