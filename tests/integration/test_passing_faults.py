"""What Redis refuses for a while, and what is not ours on the broker's queue: no worker ends."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from servers import API, WorkerProcess, wait_until

from worker import Collection, enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


def embed_some(settings: Settings, count: int) -> None:
    """Enqueue texts and wait for their vectors."""
    texts = [(str(one), str(one)) for one in range(count)]
    enqueue(texts, "wiki", settings=settings)
    collection = Collection("wiki", settings=settings)
    wait_until(lambda: collection.status().embedded == count, 30, "the vectors")


def _command(client: Any, *words: object) -> None:
    client.execute_command(*words)  # redis-py gives it no types


@contextmanager
def configured(client: redis.Redis, **values: str | int) -> Iterator[None]:
    before = {name: client.config_get(name.replace("_", "-")) for name in values}
    for name, new in values.items():
        client.config_set(name.replace("_", "-"), new)
    try:
        yield
    finally:
        for was in before.values():
            for option, old in was.items():
                client.config_set(str(option), old or "")


@contextmanager
def read_only(client: redis.Redis) -> Iterator[str]:
    """As after a failover: the server that we know is a replica now."""
    _command(client, "REPLICAOF", "127.0.0.1", "1")
    try:
        yield "READONLY"
    finally:
        _command(client, "REPLICAOF", "NO", "ONE")


@contextmanager
def unblocked(client: redis.Redis) -> Iterator[str]:
    """A server that becomes a replica tells so whoever waits in a BRPOP."""
    with read_only(client):
        yield "UNBLOCKED"


@contextmanager
def no_replicas(client: redis.Redis) -> Iterator[str]:
    with configured(client, min_replicas_to_write=1):
        yield "NOREPLICAS"


@contextmanager
def failing_save(client: redis.Redis) -> Iterator[str]:
    dump = Path(client.config_get("dir")["dir"] or "", "dump.rdb")
    dump.unlink(missing_ok=True)
    dump.mkdir()
    (dump / "x").touch()  # no file can take its place

    def saved(verdict: str) -> bool:
        with suppress(redis.ResponseError):  # one is under way
            client.bgsave()
        return bool(client.info("persistence")["rdb_last_bgsave_status"] == verdict)

    with configured(client, save="3600 1000000"):
        wait_until(lambda: saved("err"), 10, "a failed save")
        try:
            yield "MISCONF"
        finally:
            shutil.rmtree(dump)
            wait_until(lambda: saved("ok"), 10, "a save")


@contextmanager
def masterless(client: redis.Redis) -> Iterator[str]:
    with configured(client, replica_serve_stale_data="no"), read_only(client):
        yield "MASTERDOWN"


@contextmanager
def other_password(client: redis.Redis) -> Iterator[str]:
    """For a moment our password is wrong, as while it is changed; lines that are open are cut."""
    password = client.config_get("requirepass")["requirepass"] or ""
    client.config_set("requirepass", "another")
    client.client_kill_filter(_type="normal", skipme=True)
    try:
        yield "WRONGPASS"
    finally:
        client.config_set("requirepass", password)


@contextmanager
def forbidden(client: redis.Redis) -> Iterator[str]:
    _command(client, "ACL", "SETUSER", "default", "-brpop")
    try:
        yield "NOPERM"
    finally:
        _command(client, "ACL", "SETUSER", "default", "+@all")


@pytest.mark.parametrize(
    "fault",
    [read_only, unblocked, no_replicas, failing_save, masterless, other_password, forbidden],
)
def test_what_redis_refuses_for_a_while_is_waited_out(
    settings: Settings,
    worker_process: StartWorker,
    redis_client: redis.Redis,
    fault: Callable[[redis.Redis], AbstractContextManager[str]],
) -> None:
    worker = worker_process()
    embed_some(settings, 10)
    with fault(redis_client):
        wait_until(lambda: "Connection to broker lost" in worker.log, 20, "the refusal")
    embed_some(settings, 20)
    assert worker.child.running


def message(**changes: object) -> dict[str, object]:
    """A wake-up as kombu puts it on the queue, changed."""
    body = json.dumps([["wiki", "1"], {}, {"callbacks": None, "errbacks": None}])
    headers: dict[str, object] = {
        "lang": "py",
        "task": "worker.drain",
        "id": "one",
        "eta": None,
        "expires": None,
    }
    headers = {**headers, "retries": 0, "timelimit": [None, None], "argsrepr": "", "group": None}
    properties = {
        "delivery_tag": "a tag",
        "delivery_info": {"exchange": "", "routing_key": "vec.wakeups"},
        "delivery_mode": 2,
        "body_encoding": "base64",
    }
    whole: dict[str, object] = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    for path, value in changes.items():
        at: dict[str, object] = whole
        *parents, last = path.replace("_", "-").split(".") if "." not in path else path.split(".")
        for parent in parents:
            at = at[parent]  # type: ignore[assignment]
        at[last] = value
    return whole


def body(*content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def forged() -> Mapping[str, bytes]:
    """What anybody who may write there can put on the broker's queue."""
    raw: dict[str, bytes] = {
        "no JSON": b"garbage",
        "no text": b"\xff\xfe\x00",
        "nothing": b"",
        "a number": b"17",
        "a list": b"[1, 2]",
        "null": b"null",
        "an empty object": b"{}",
        "nested": b"[" * 100_000,
        "huge": json.dumps(message(body="A" * 5_000_000)).encode(),
    }
    changed: dict[str, dict[str, object]] = {
        "no base64": {"body": "%%%"},
        "no body": {"body": None},
        "a body of a number": {"body": 5},
        "a body that is no JSON": {"body": base64.b64encode(b"nope").decode()},
        "a body of an object": {"body": base64.b64encode(b"{}").decode()},
        "no arguments": {"body": body([], {}, {})},
        "a number for a name": {"body": body([5, "1"], {}, {})},
        "a name that no collection has": {"body": body(["a\n b", "1"], {}, {})},
        "three arguments": {"body": body(["a", "b", "c"], {}, {})},
        "named arguments": {"body": body(["a"], {"token": "b"}, {})},
        "a chain": {"body": body(["a", "b"], {}, {"chain": [{"task": "worker.drain"}]})},
        "an embed of a number": {"body": body(["a", "b"], {}, 5)},
        "pickle": {"content-type": "application/x-python-serialize"},
        "an unknown type": {"content-type": "no/such"},
        "no type": {"content-type": None},
        "no headers": {"headers": None},
        "headers of a list": {"headers": [1]},
        "no properties": {"properties": None},
        "another task": {"headers.task": "celery.chord"},
        "an unknown task": {"headers.task": "nobody.knows"},
        "a list for a task": {"headers.task": ["worker.drain"]},
        "no id": {"headers.id": None},
        "a date": {"headers.eta": "2999-01-01T00:00:00"},
        "an odd date": {"headers.eta": "soon"},
        "an odd expiry": {"headers.expires": "yesterday"},
        "odd limits": {"headers.timelimit": 7},
        "a compressed bomb": {"headers.compression": "zlib"},
        "a list for a tag": {"properties.delivery_tag": ["x"]},
    }
    raw.update({name: json.dumps(message(**one)).encode() for name, one in changed.items()})
    return raw


def test_a_worker_ends_in_time_beside_a_redis_that_does_not_answer(
    settings: Settings, worker_process: StartWorker, redis_client: redis.Redis, api: API
) -> None:
    api.faults(latency=0.5)
    worker = worker_process(VECTOR_EMBED_TIMEOUT="2")
    enqueue([(str(one), str(one)) for one in range(20_000)], "wiki", settings=settings)
    wait_until(lambda: api.log().in_flight >= 4, 30, "requests in flight")
    server = redis_client.info("server")["process_id"]
    os.kill(server, signal.SIGSTOP)
    try:
        worker.stop(patience=40)
    finally:
        os.kill(server, signal.SIGCONT)
    assert "not ended in 22 s after its signal" in worker.log


def test_what_is_not_ours_on_the_queue_is_dropped_with_a_line_each(
    settings: Settings, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    worker = worker_process(concurrency=2)
    messages = forged()
    for one in messages.values():
        redis_client.lpush(settings.queue, one)
    wait_until(lambda: not redis_client.llen(settings.queue), 20, "an empty queue")
    embed_some(settings, 10)
    dropped = worker.log.count("dropped a message")
    assert dropped == len(messages), worker.log
    assert "Traceback" not in worker.log
    assert "Connection to broker lost" not in worker.log


def test_a_worker_runs_as_a_user_who_may_touch_our_keys_alone(
    settings: Settings,
    worker_process: StartWorker,
    redis_client: redis.Redis,
    redis_server: RedisServer,
) -> None:
    keys = ["~vec:*", "~vec.wakeups*", "~_kombu.*.vec.wakeups"]
    rights = ["+@all", "-@admin", "-@dangerous", "+info"]
    _command(
        redis_client, "ACL", "SETUSER", "vec", "on", ">secret", "resetchannels", *keys, *rights
    )
    try:
        place = redis_server.url.rpartition("@")[2]
        worker_process(VECTOR_EMBED_REDIS_URL=f"redis://vec:secret@{place}")
        embed_some(settings, 10)
    finally:
        _command(redis_client, "ACL", "DELUSER", "vec")


def test_kombu_keeps_nothing_of_ours_beside_other_programs_messages(
    settings: Settings, worker_process: StartWorker, redis_client: redis.Redis
) -> None:
    worker_process()
    embed_some(settings, 1_000)
    ours = {
        key for key in cast("list[bytes]", redis_client.keys("*")) if not key.startswith(b"vec:")
    }
    assert all(key.startswith((b"_kombu.binding", settings.queue.encode())) for key in ours), ours
