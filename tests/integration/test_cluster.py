"""Every step, and a whole worker, on a Redis Cluster of three nodes: no key is on a wrong one."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import pytest
import redis
from cluster import node_port
from prometheus_client import CollectorRegistry
from redis.cluster import RedisCluster
from servers import API, WorkerProcess, wait_until
from stored import Store

from worker import Job, aenqueue, enqueue
from worker.local.child import Child
from worker.local.redis_server import RedisServer, find_program
from worker.monitor.metrics import FleetCollector
from worker.monitor.service import read_statuses
from worker.settings import Settings, SettingsError, read_settings
from worker.store.backlog import claim_all
from worker.store.connection import connect
from worker.store.ledgers import have_quarantined
from worker.store.registry import busy_collections, collection_names
from worker.store.states import read_front
from worker.store.urgent import urgent_collections
from worker.throttle import Permit, Throttle, pause, read_throttle, resume
from worker.types import Embedded, Refused

pytestmark = pytest.mark.heavy

SLOTS = 16384
NAMES = ("wiki", "docs", "mail", "news")  # on three nodes


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three primaries without replicas."""
    program = find_program()
    if program is None:
        pytest.skip("no redis-server 6.2 or newer")
    started: list[Child] = []
    nodes: list[redis.Redis] = []
    try:
        while len(nodes) < 3:
            port = node_port()
            directory = tmp_path_factory.mktemp("node")
            command = [program.path, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
            command += ["--cluster-enabled", "yes", "--dir", str(directory)]
            started.append(Child("a node", command, directory / "log"))
            nodes.append(redis.Redis(port=port))
        for number, node in enumerate(nodes):
            wait_until(partial(_answers, node), 20, "a node to answer")
            slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
            node.cluster("ADDSLOTS", *slots)
            node.cluster("SET-CONFIG-EPOCH", number + 1)
        first = nodes[0].connection_pool.connection_kwargs["port"]
        for node in nodes[1:]:
            node.cluster("MEET", "127.0.0.1", first)
        for node in nodes:
            wait_until(partial(_whole, node), 30, "the cluster")
        yield f"redis+cluster://127.0.0.1:{first}"
    finally:
        for node in nodes:
            node.close()
        for child in started:
            child.kill()


def _answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False


def _whole(node: redis.Redis) -> bool:
    info: dict[str, str] = node.cluster("INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


@pytest.fixture
def settings(cluster_url: str, redis_server: RedisServer) -> Iterator[Settings]:
    """An empty cluster for the data, and a Redis of its own for the broker."""
    settings = Settings(redis_url=cluster_url, broker_url=redis_server.url)
    client = connect(settings)
    assert isinstance(client, RedisCluster)
    client.flushall(target_nodes=RedisCluster.PRIMARIES)
    yield settings


def test_every_step_of_a_collection_runs_on_the_node_that_has_it(settings: Settings) -> None:
    for name in NAMES:
        collection = Store(name, settings=settings)
        collection.adder().add([Job("a", "good"), Job("b", "bad"), Job("c", "later")])
        assert collection.backlog.wake(4)
        collection.backlog.keep_alive("one")
        good, bad, later = collection.backlog.claim("one")
        vector = struct.pack("<2f", 1.0, 2.0)
        collection.backlog.commit([Embedded(good, vector, False)], [Refused(bad, "odd", "refused")])
        collection.backlog.release("one", [later], end_slice=True)
        assert collection.retry() == 1
        status = collection.status()
        assert (status.enqueued, status.embedded, status.pending) == (3, 1, 2)
        assert [record.id for record in collection] == ["a"]
        assert collection.reader.states(["a", "b"])[0].stored
        assert list(collection.states(["a", "b", "d"]).values()) == [
            "embedded",
            "waiting",
            "missing",
        ]
        assert read_front(collection.client, collection.keys).left(4) == 2
        assert collection.get("b") is None
        assert collection.shrink(1, "float16", force=True).shrunk == 1
        assert [record.vector for record in collection] == [[1.0]]
        collection.eviction.note_followed("folder", 0, collection.reader.born())
        assert collection.delete(["b"]) == 1
        assert [one.id for one in collection.reader.tombstones(0)] == ["b"]
    client = connect(settings)
    assert collection_names(client, settings.prefix) == sorted(NAMES)
    assert isinstance(client, RedisCluster)
    client.script_flush()  # of every node
    every = list(read_statuses(client, settings.prefix, settings.queue))
    assert every == [Store(name, settings=settings).status() for name in sorted(NAMES)]
    assert [*have_quarantined(client, settings.prefix, NAMES)] == [True] * len(
        NAMES
    )  # `c` was released
    for name in NAMES:
        Store(name, settings=settings).delete(["c"])
    assert busy_collections(client, settings.prefix) == []
    assert [record.id for record in Store(NAMES[0], settings=settings)] == ["a"]


def test_the_throttle_and_the_metrics_work_on_a_cluster(settings: Settings) -> None:
    throttle = Throttle(settings, settings.model)
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.renew(permit)
    throttle.passed(permit)
    client = connect(settings)
    pause(client, settings.prefix, throttle.name)
    assert read_throttle(client, settings.prefix, throttle.name).state == "paused"
    assert resume(client, settings.prefix, throttle.name)
    assert read_throttle(client, settings.prefix, throttle.name).state == "running"
    registry = CollectorRegistry()
    registry.register(FleetCollector(settings))
    assert registry.get_sample_value("vec_up") == 1
    assert (registry.get_sample_value("vec_redis_memory_used_bytes") or 0) > 100_000


def test_a_worker_embeds_collections_of_all_nodes(
    settings: Settings, worker_process: Callable[..., WorkerProcess], api: API
) -> None:
    worker = worker_process(
        VECTOR_EMBED_REDIS_URL=settings.redis_url, VECTOR_EMBED_BROKER_URL=settings.broker_url
    )
    for name in NAMES:
        texts = [(f"id-{number}", f"{name} {number}") for number in range(150)]
        enqueue(texts, name, settings=settings)
    for name in NAMES:
        status = Store(name, settings=settings).wait(30)
        assert (status.embedded, status.backlog, status.dead) == (150, 0, 0)
        assert status.workers == 1
    assert "Traceback" not in worker.log


async def test_small_calls_of_threads_and_tasks_go_to_the_nodes_of_their_collections(
    settings: Settings, redis_client: redis.Redis
) -> None:
    def call(number: int) -> int:
        return enqueue([f"{number}"], NAMES[number % 4], settings=settings, timeout=30).new

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(call, range(400))) == 400
    wait_until(lambda: redis_client.llen(settings.queue) >= len(NAMES), what="a wake-up for each")
    client = connect(settings)
    for number in range(4):  # a server does not know the step any more
        cast(redis.Redis, client).script_flush()
        calls = [aenqueue([f"task {number}"], name, settings=settings) for name in NAMES]
        assert [receipt.new for receipt in await asyncio.gather(*calls)] == [1] * 4
    again = [aenqueue([f"{number}"], NAMES[number % 4], settings=settings) for number in range(400)]
    receipts = await asyncio.gather(*again)
    assert sum(receipt.unchanged for receipt in receipts) == 400
    found = await asyncio.gather(*[receipt.await_done(timeout=0) for receipt in receipts])
    assert [(status.waiting, status.state) for status in found] == [(1, "waiting")] * 400
    assert [Store(name, settings=settings).status().pending for name in NAMES] == [104] * 4
    assert collection_names(client, settings.prefix) == sorted(NAMES)


def test_interactive_texts_go_first_and_their_collections_are_announced(
    settings: Settings,
) -> None:
    client = connect(settings)
    for name in NAMES:
        bulk = [f"bulk {number}" for number in range(150)]
        enqueue(bulk, name, priority="bulk", settings=settings)
        enqueue(["now"], name, priority="interactive", settings=settings)

    def announced() -> bool:
        return urgent_collections(client, settings.prefix, {}).keys() == {*NAMES}

    wait_until(announced, what="all are announced")
    for name in NAMES:
        backlog = Store(name, settings=settings).backlog
        assert [lease.job.text for lease in claim_all([backlog], "c", [9], urgent=True)[0]] == [
            "now"
        ]
        backlog.release("c", end_slice=True)


def test_a_cluster_without_a_broker_of_its_own_is_said_at_once() -> None:
    with pytest.raises(SettingsError, match="VECTOR_EMBED_BROKER_URL"):
        read_settings({"VECTOR_EMBED_REDIS_URL": "redis+cluster://one:6379"})
    said = {
        "VECTOR_EMBED_REDIS_URL": "redis+cluster://one:6379",
        "VECTOR_EMBED_BROKER_URL": "redis://two:6379/0",
    }
    assert read_settings(said).broker_url == "redis://two:6379/0"
