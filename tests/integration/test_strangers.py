"""What others write into our keys is skipped and named, and ends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis
from servers import WorkerProcess, wait_until
from shell import Shell
from stored import Store

from worker import enqueue
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import read_fleet, threads_alive
from worker.monitor.metrics import FleetCollector
from worker.monitor.requests import read_requests
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import CollectionKeys
from worker.store.registry import busy_collections, collection_names, read_sources
from worker.throttle import known_throttles

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]
STRANGE = [b"", b"\xff\xfe", b"noblank", b"a b c", b"two words", b"{tag} 1", b"x" * 200 + b" 1"]


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


def foul(client: redis.Redis) -> None:
    """Put what is not ours wherever others could write."""
    now = time.time()
    for strange in STRANGE:
        client.sadd("vec:collections", strange)
        client.sadd("vec:busy", strange)
        client.zadd("vec:workers", {strange: now, strange + b"/x": now, strange + b"/1": now})
    client.sadd("vec:busy", b"nothing_of_blank", b"\xff 1", b"odd ")
    client.sadd("vec:collections", b"odd")
    client.set("vec:{odd}:jobs", b"not a stream")
    for name, said in {
        "list:1:a": b"[]",
        "half:1:a": b"{",
        "bytes:1:a": b"\xff",
        "deep:1:a": b"[" * 100_000,
        "words:1:a": b'{"up": "long", "work": 3, "rates": [], "troubles": {"a": 1}}',
        "state:1:a": b'{"state": 7}',
    }.items():
        client.zadd("vec:workers", {f"{name}/2": now})
        client.set(f"vec:worker:{name}", said)
    client.hset("vec:{wiki}:info", mapping={b"cached": b"many", b"\xff": b"\xff", b"dead:x": b"y"})
    client.hset("vec:{wiki}:info", "sources", b'{"')
    client.hset("vec:{wiki}:dead", mapping={b"\xff": b"\xff" * 20, b"short": b"", b"null": b"null"})
    for number, said in enumerate((b"{", b"{}", b"7", b"\xff", b'["a", "b"]', b'["a", null]')):
        client.hset("vec:throttles", f"odd-{number}", said)
    client.hset("vec:throttles", b"\xff", b'["http://a", 1]')
    client.hset("vec:held", b"\xff", b"\xff")
    client.hset("vec:throttle:{t}:requests", mapping={b"\xff": b"1", b"within:0": b"odd"})


def test_what_is_not_ours_is_skipped_and_named_once(
    settings: Settings, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    enqueue(["text"], "wiki", settings=settings)
    foul(redis_client)
    client = connect(settings)
    for _ in range(2):
        assert collection_names(client, "vec") == ["noblank", "odd", "wiki"]
        assert busy_collections(client, "vec") == ["odd", "wiki"]
        assert threads_alive(client, "vec") >= 6
        fleet = read_fleet(client, "vec")
        assert len(fleet) >= 6
        assert all(worker.up_seconds is None for worker in fleet)
        ledger = Store("wiki", settings=settings).reader.ledger()
        assert (ledger.enqueued, ledger.cached_ever, ledger.dead_ever) == (1, 0, {"x": 0})
        assert list(Store("wiki", settings=settings).dead()) == []
        assert read_requests(client, "vec", "t").durations[0] == 0
        names = {metric.name for metric in FleetCollector(settings).collect()}
        assert "vec_texts" in names
        assert read_sources(client, CollectionKeys("vec", "wiki")) == []
        assert known_throttles(client, "vec") == {}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said)) > 10
    assert all("is not ours: skipped" in line and line.isprintable() for line in said)


def test_a_worker_works_on_beside_what_is_not_ours_and_status_shows_the_rest(
    settings: Settings, redis_client: redis.Redis, worker_process: StartWorker, shell: Shell
) -> None:
    worker = worker_process()
    foul(redis_client)
    enqueue([f"text {number}" for number in range(300)], "wiki", settings=settings)
    wiki = Store("wiki", settings=settings)
    wait_until(lambda: wiki.reader.ledger().embedded == 300, 30, "the work")
    wait_until(lambda: "member of busy b'noblank'" in worker.log, 30, "a look of the pump")
    for key in redis_client.scan_iter("vec:throttle:*", _type="hash"):
        redis_client.hset(key, b"\xff", b"\xff")
    enqueue(["one more"], "wiki", settings=settings)
    wait_until(lambda: wiki.reader.ledger().embedded == 301, 30, "the work after that")
    assert worker.log.count("member of busy b'noblank'") == 1
    redis_client.delete("vec:{odd}:jobs")
    for words in (["status"], ["workers"], ["workers", "--json"], ["status", "wiki"], ["resume"]):
        assert shell("vec", *words).returncode == 0, words


def test_expiries_and_scores_of_a_clock_that_was_set_back_are_not_believed(
    settings: Settings, redis_client: redis.Redis, worker_process: StartWorker
) -> None:
    # Given what a clock a day ahead left behind: a pump, workers, wake-ups and a heartbeat
    day = 86_400
    texts = [f"text {number}" for number in range(100)]
    enqueue(texts, "wiki", settings=settings)
    wiki = Store("wiki", settings=settings)
    wiki.backlog.keep_alive("dead:1:a:1")
    assert len(wiki.backlog.claim("dead:1:a:1")) == 100
    redis_client.expire("vec:{wiki}:alive:dead:1:a:1", day)
    redis_client.set("vec:pump", "dead:1:a", ex=day)
    redis_client.zadd("vec:workers", {"dead:1:a/8": time.time() + day})
    redis_client.zadd("vec:{wiki}:wakeups", {"99": (time.time() + day) * 1000})
    redis_client.delete(settings.queue)
    assert wiki.status().workers == 0
    # When a worker starts
    worker_process()
    # Then it does all the work as if the dead ones had died just now
    wait_until(lambda: wiki.status().embedded == 100, 45, "the work")
    assert wiki.status().workers == 1
    assert [worker.host for worker in read_fleet(connect(settings), "vec")] != ["dead"]
