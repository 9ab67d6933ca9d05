"""Nodes of a Redis Cluster that go away: each costs the collections that it has, and no others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import cast

import pytest
import redis
from cluster import HOME, NAMES, Cluster
from redis.cluster import RedisCluster
from servers import API, API_KEY, WorkerProcess, wait_until
from stored import Store

from vector_embed_client import EmbeddingArray
from worker import Job, enqueue
from worker.engine.process import Process
from worker.engine.slice import Slice
from worker.local.redis_server import RedisServer, find_program
from worker.settings import Settings
from worker.store.backlog import claim_all
from worker.store.connection import connect, node_of
from worker.store.ledgers import read_ledgers
from worker.store.registry import announce_backlogs, busy_collections, collection_names

pytestmark = pytest.mark.heavy

EACH = len(NAMES[HOME])
COMMIT_PAUSES = [0.1, 0.2, 0.4, 0.8, 1.6]


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    program = find_program()
    if program is None:
        pytest.skip("no redis-server 6.2 or newer")
    cluster = Cluster(program.path, tmp_path_factory.mktemp)
    yield cluster
    cluster.end()


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """Empty and whole."""
    for node in running_cluster.nodes:
        node.flushall()
    yield running_cluster
    running_cluster.restore()


class Watched(Slice):
    """A slice in whose first request something happens."""

    during: Callable[[], object]

    def _send(self, texts: Sequence[str]) -> EmbeddingArray:
        vectors = super()._send(texts)
        happens, self.during = self.during, lambda: None
        happens()
        return vectors


class World:
    """Three collections on each node, with a text each."""

    def __init__(self, cluster: Cluster, redis_server: RedisServer, api: API) -> None:
        self.cluster, self.api = cluster, api
        self.settings = Settings(
            redis_url=cluster.url,
            broker_url=redis_server.url,
            api_key=API_KEY,
            base_url=api.base_url,
        )
        self.process = Process(self.settings)
        self.enqueue("warm", "1")
        self.run("warm")  # the first request of all has one text
        for name in chain(*NAMES):
            self.enqueue(name, "1")

    def store(self, name: str) -> Store:
        return Store(name, settings=self.settings)

    def enqueue(self, name: str, id: str) -> None:
        # By a connection of its own: up to redis-py 6 a thread that loses a node closes what others
        # are using, and wake-ups are sent by a thread.
        producer = replace(self.settings, redis_url=f"{self.settings.redis_url}?client_name=other")
        enqueue([(id, f"text {id} of {name}")], name, settings=producer)

    def run(self, name: str, during: Callable[[], object] = lambda: None) -> bool:
        """A slice of a collection; `during`: while its first request is answered."""
        store = self.store(name)
        slice = Watched(self.process, store.backlog, store.reader.info())
        slice.during = during
        return slice.run()

    def lengths(self, node: int) -> list[int]:
        """How many vectors the collections of a node have."""
        return [len(self.store(name)) for name in NAMES[node]]

    def give_back(self) -> None:
        """What the heartbeat does when the nodes are back."""
        for slice in self.process.owed():
            self.process.settle(slice)


@pytest.fixture
def world(cluster: Cluster, redis_server: RedisServer, api: API) -> World:
    return World(cluster, redis_server, api)


class Pauses:
    """Replaces the pauses of this thread: each is noted, with what is seen then, and is over."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.seconds: list[float] = []
        self.seen: list[object] = []
        self._look = look
        self._sleep, self._thread = time.sleep, threading.get_ident()

    def __call__(self, seconds: float) -> None:
        if threading.get_ident() != self._thread:
            return self._sleep(seconds)
        self.seconds.append(seconds)
        self.seen.append(self._look())


def test_what_is_of_nodes_that_live_is_stored_before_those_that_are_away_are_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = NAMES[HOME][0]
    pauses = Pauses(lambda: world.lengths(HOME))

    def go_away() -> None:
        world.cluster.kill(1, 2)
        monkeypatch.setattr("time.sleep", pauses)

    with pytest.raises(redis.ConnectionError):
        world.run(own, go_away)
    # Two nodes are waited for as long as one is.
    assert pauses.seconds[: len(COMMIT_PAUSES)] == COMMIT_PAUSES
    assert max(pauses.seconds[len(COMMIT_PAUSES) :]) < max(COMMIT_PAUSES)
    assert pauses.seen[0] == [1] * EACH

    monkeypatch.undo()
    world.cluster.restore()
    world.give_back()
    sent = world.api.log().texts
    for node in (1, 2):
        for name in NAMES[node]:
            store = world.store(name)
            assert (len(store), store.status().pending, store.status().leased) == (0, 1, 0)
            assert not store.client.exists(store.keys.attempts), "it is taken for a killer"
    for name in chain(*NAMES):
        world.run(name)
    assert [world.lengths(node) for node in range(3)] == [[1] * EACH] * 3
    assert world.api.log().texts == sent + 2 * EACH, "what was stored is not sent again"


def test_what_is_of_nodes_that_live_does_not_wait_for_one_that_hangs(world: World) -> None:
    def hang() -> None:
        world.cluster.nodes[HOME].script_flush()
        world.cluster.freeze(2)

    with ThreadPoolExecutor(1) as pool:
        over = pool.submit(world.run, NAMES[HOME][0], hang)
        try:
            # Well within the 30 s after which the node counts as away.
            wait_until(lambda: world.lengths(HOME) == [1] * EACH, 20, "what lives is stored")
            assert not over.done()
        finally:
            world.cluster.thaw(2)
        assert over.result()
    assert world.lengths(2) == [1] * EACH


def test_what_of_the_others_is_stored_where_its_own_node_is_away(world: World) -> None:
    own = NAMES[1][0]
    with pytest.raises(redis.ConnectionError):
        world.run(own, lambda: world.cluster.kill(1))
    assert [world.lengths(node) for node in (HOME, 2)] == [[1] * EACH] * 2
    sent = world.api.log().texts

    world.cluster.restore()
    world.give_back()
    for name in NAMES[1]:
        world.run(name)
    assert world.lengths(1) == [1] * EACH
    assert world.api.log().texts == sent + EACH


def test_a_batch_is_filled_from_the_nodes_that_live(world: World) -> None:
    world.cluster.kill(2)
    assert world.run(NAMES[HOME][0])
    assert [world.lengths(node) for node in (HOME, 1)] == [[1] * EACH] * 2


def test_collections_of_a_node_that_is_away_stay_announced(world: World) -> None:
    client = world.store(NAMES[HOME][0]).client
    every = sorted(chain(*NAMES))
    for name in NAMES[HOME]:
        world.store(name).delete(["1"])
    world.cluster.kill(2)
    assert busy_collections(client, "vec") == NAMES[1]
    client.delete("vec:busy")
    announce_backlogs(client, "vec")
    world.cluster.restore()
    assert busy_collections(client, "vec") == [*NAMES[1], *NAMES[2]]
    assert collection_names(client, "vec") == [*every, "warm"]


def test_a_step_that_a_node_does_not_know_yet_runs_while_another_is_away(world: World) -> None:
    stores = [world.store(name) for name in NAMES[HOME]]
    for node in world.cluster.nodes:
        node.script_flush()
    world.cluster.kill(2)
    assert stores[0].status().pending == 1
    for node in world.cluster.nodes[:2]:
        node.script_flush()
    names = [NAMES[HOME][0], NAMES[1][0]]
    assert [one.pending for _, one in read_ledgers(stores[0].client, "vec", names)] == [1, 1]


def test_a_collection_is_followed_to_the_node_that_it_moves_to(world: World) -> None:
    names = [NAMES[HOME][0], NAMES[1][0], NAMES[2][0]]
    backlogs = [world.store(name).backlog for name in names]

    def claimed() -> list[int]:
        return [len(leases) for leases in claim_all(backlogs, "one:1", [1, 1, 1])]

    for start, end in ((1, 2), (2, 1)):
        moving = world.cluster.move(names[1], start, end)
        next(moving)
        assert claimed() == [1, 0, 1], "none of its nodes takes a step of several keys"
        next(moving)
        world.cluster.nodes[end].script_flush()
        assert claimed() == [1, 1, 1]


def test_all_leases_of_living_nodes_are_renewed(world: World) -> None:
    lives: list[int] = []

    def look() -> None:
        [slice] = world.process.slices()
        world.cluster.kill(1)
        keys = [world.store(name).keys.alive(slice.consumer) for name in NAMES[HOME]]
        client = world.store(NAMES[HOME][0]).client
        for key in keys:
            client.delete(key)
        with pytest.raises(redis.ConnectionError):
            slice.renew()
        lives.extend(client.pttl(key) for key in keys)

    with pytest.raises(redis.ConnectionError):
        world.run(NAMES[1][0], look)
    assert len(lives) == EACH and min(lives) > 0


def test_a_thread_that_looks_for_the_nodes_closes_no_connection_that_another_one_uses(
    world: World,
) -> None:
    store = world.store(NAMES[HOME][0])
    client, node = cast(RedisCluster, store.client), world.cluster.nodes[HOME]
    key = f"{{{NAMES[HOME][0]}}}:said"

    def waits() -> bool:
        return bool(node.info("clients")["blocked_clients"])

    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(client.blpop, [key], 60)
        wait_until(waits, 20, "a thread that waits for a reply")
        for _ in range(10):  # each asks a node for the others
            client.nodes_manager.initialize()
        node.rpush(key, "word")
        assert said.result() == (key.encode(), b"word")


def test_a_cluster_is_away_as_a_single_redis_is(world: World) -> None:
    store = world.store(NAMES[HOME][0])
    world.cluster.kill(HOME, 1, 2)
    asked: list[Callable[[], object]] = [
        store.backlog.size,
        store.backlog.pending,
        partial(connect, replace(world.settings, redis_url=f"{world.cluster.url}?client_name=new")),
    ]
    for ask in asked:
        with pytest.raises(redis.ConnectionError):
            ask()


def test_a_node_that_goes_away_while_it_is_asked_what_waits_is_away(world: World) -> None:
    other = replace(world.settings, redis_url=f"{world.cluster.url}?client_name=impatient")
    store = Store(NAMES[2][0], settings=other)
    backlog, node = store.backlog, node_of(store.client, store.keys.jobs)
    nodes = cast(RedisCluster, store.client).nodes_manager
    for options in (nodes.connection_kwargs, node.connection_pool.connection_kwargs):
        options["socket_timeout"] = 0.5
    node.connection_pool.reset()  # a connection keeps the one it was made with
    assert backlog.pending().texts == 1  # so it has a connection
    world.cluster.freeze(2)
    try:
        with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
            backlog.pending()
    finally:
        world.cluster.thaw(2)


def test_a_worker_serves_the_nodes_that_live_while_another_is_away(
    world: World, worker_process: Callable[..., WorkerProcess]
) -> None:
    worker = worker_process(
        VECTOR_EMBED_REDIS_URL=world.settings.redis_url,
        VECTOR_EMBED_BROKER_URL=world.settings.broker_url,
    )
    for name in chain(*NAMES):
        world.store(name).wait(30)
    world.cluster.kill(2)
    living = (*NAMES[HOME], *NAMES[1])
    for name in living:
        # As by a producer that died before it sent a wake-up: the pump does.
        world.store(name).adder().add([Job("2", f"text 2 of {name}")])
    for name in living:
        status = world.store(name).wait(30)
        assert (status.embedded, status.workers, status.state) == (2, 1, "idle")
    world.cluster.restore()
    for name in NAMES[2]:
        world.enqueue(name, "2")
        assert world.store(name).wait(30).embedded == 2
    assert "Traceback" not in worker.log
