"""A read-only replica serves the commands that only read; the others say in one line what it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from conftest import heavy
from servers import API, API_KEY, wait_until
from shell import Shell
from stored import Store

from worker import enqueue
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Worker, announce_worker
from worker.monitor.metrics import FleetCollector
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import CollectionKeys
from worker.store.registry import announce
from worker.types import Embedded, Job, Refused

TEXTS = {f"id-{number}": f"text {number}" for number in range(20)}
VECTOR = b"\0\0\x80\x3f" * 768  # as many dimensions as the API's


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A replica of a collection with a backlog, dead letters and a worker. No test changes it."""
    servers = [RedisServer(tmp_path_factory.mktemp(name)) for name in ("primary", "replica")]
    fill(servers[0].url)
    follow(*servers)
    yield servers[1]
    for server in servers:
        server.stop()


def fill(url: str) -> None:
    primary = Settings(redis_url=url, broker_url=url)
    enqueue(TEXTS.items(), "wiki", settings=primary)
    wiki = Store("wiki", settings=primary)
    wiki.backlog.keep_alive("c")
    *leases, last = wiki.backlog.claim("c")
    wiki.backlog.commit(
        [Embedded(lease, VECTOR, False) for lease in leases], [Refused(last, "bad", "no")]
    )
    wiki.backlog.release("c", end_slice=True)
    wiki.adder().add([Job("later", "text")])
    announce(connect(primary), CollectionKeys(primary.prefix, "idle"))
    announce_worker(connect(primary), "vec", Worker("host:1:a", 8))


def follow(primary: RedisServer, replica: RedisServer) -> None:
    with redis.Redis.from_url(primary.url) as one, redis.Redis.from_url(replica.url) as other:
        one.config_set("repl-diskless-sync-delay", "0")  # 5 seconds by default
        password = str(one.connection_pool.connection_kwargs["password"])
        other.config_set("masterauth", password)
        other.replicaof("127.0.0.1", primary.port)
        wait_until(lambda: other.info("replication")["master_link_status"] == "up", 30)
        one.set("last", "1")
        wait_until(lambda: other.exists("last"), 30, "the replica")
        assert other.config_get("replica-read-only")["replica-read-only"] == "yes"


# The words of a command, its exit code, and what it prints.
READING = (
    (("status",), 0, "wiki"),
    (("status", "wiki"), 0, "wiki"),
    (("status", "wiki", "--json"), 0, '"pending": 1'),
    (("workers",), 0, "host"),
    (("workers", "--json"), 0, "host"),
    (("verify", "wiki.jsonl"), 1, "19 of 20 texts embedded, 0 pending, 1 dead"),
    (("export", "wiki", "-o", "-"), 0, '"id":"id-3"'),
    (("export", "wiki", "-o", "wiki.npz"), 0, "19 vectors"),
    (("search", "wiki", "text 3", "-k", "2"), 0, "id-"),
    (("dead", "wiki"), 0, "id-"),
    (("wait", "wiki", "--timeout", "1"), 1, ""),
    (("doctor",), 1, ""),
)


@pytest.mark.parametrize(("words", "code", "printed"), READING)
def test_a_command_that_only_reads_needs_no_redis_that_can_be_written(
    replica: RedisServer,
    api: API,
    shell: Shell,
    words: tuple[str, ...],
    code: int,
    printed: str,
) -> None:
    lines = [{"id": id, "text": text} for id, text in TEXTS.items()]
    shell.write("wiki.jsonl", *lines)
    said = shell(
        "vec",
        *words,
        VECTOR_EMBED_REDIS_URL=replica.url,
        VECTOR_EMBED_API_KEY=API_KEY,
        VECTOR_EMBED_BASE_URL=api.base_url,
    )
    print(said.stdout, said.stderr)
    assert said.returncode == code, said.stderr
    assert printed in said.stdout
    assert "READONLY" not in said.stderr


def test_the_metrics_are_read_from_a_replica(replica: RedisServer) -> None:
    settings = Settings(redis_url=replica.url, broker_url=replica.url)
    families = {family.name: family for family in FleetCollector(settings).collect()}
    (up,) = families["vec_up"].samples
    assert up.value == 1


WRITING = (
    # It waits for more than a minute: this may be a failover.
    *heavy((("vec-enqueue", "wiki.jsonl"),)),
    ("vec", "retry", "wiki"),
    ("vec", "pause", "wiki"),
    ("vec", "drop", "wiki", "--yes"),
    ("vec", "shrink", "wiki", "--dtype", "float16", "--yes"),
    ("vec", "export", "wiki", "-o", "out/"),
)


@pytest.mark.parametrize("words", WRITING)
def test_a_command_that_writes_says_that_it_is_a_replica(
    replica: RedisServer, shell: Shell, words: tuple[str, ...]
) -> None:
    shell.write("wiki.jsonl", {"id": "more", "text": "text"})
    said = shell(*words, VECTOR_EMBED_REDIS_URL=replica.url, VECTOR_EMBED_API_KEY="key")
    assert said.returncode == 2
    assert "is a read-only replica: name its primary" in said.stderr
    assert "Traceback" not in said.stderr
