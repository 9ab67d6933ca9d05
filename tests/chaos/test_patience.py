"""Commands and programs that wait outlast what a worker outlasts of Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
import redis
from servers import WorkerProcess, wait_until

from worker import Collection, ReceiptStatus, enqueue
from worker.local.child import Child
from worker.settings import Settings
from worker.types import Status

from .conftest import Shell
from .machines import Redis

pytestmark = pytest.mark.heavy

StartWorker = Callable[..., WorkerProcess]
Fault = Callable[[Redis], AbstractContextManager[None]]

AWAY = "Redis does not answer"
WAITING = (
    ("vec-enqueue", "wiki.jsonl", "--wait"),
    ("vec", "wait", "wiki"),
    ("vec", "export", "wiki", "-o", "vectors/", "--until-done"),
)


@pytest.fixture
def waiting(shell: Shell, mortal_redis: Redis) -> list[Child]:
    """The commands of WAITING, each waiting for three texts of `wiki`."""
    texts = [json.dumps({"id": str(one), "text": f"text {one}"}) for one in range(3)]
    (shell.directory / "wiki.jsonl").write_text("\n".join(texts))
    assert shell(mortal_redis.url, "vec-enqueue", "wiki.jsonl").returncode == 0
    started = [shell.start(mortal_redis.url, *command) for command in WAITING]
    for one in started[:2]:
        one.wait_for("waiting for 3 texts", 30)
    wait_until((shell.directory / "vectors").exists, 30, "the export to begin")
    with mortal_redis.client() as client:
        looks = commands(client) + 100
        wait_until(lambda: commands(client) > looks, 30, "some looks at the collection")
    return started


def commands(client: redis.Redis) -> int:
    """How many commands Redis was given so far."""
    return int(client.info("stats")["total_commands_processed"])


def said(child: Child) -> int:
    """How many times it has said that Redis is away."""
    return child.log.read_text().count(AWAY)


@contextmanager
def stopped(server: Redis) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def cut_off(server: Redis) -> Iterator[None]:
    """A replica that has lost its primary, and answers nothing that may be old: MASTERDOWN."""
    with server.client() as client:
        client.config_set("replica-serve-stale-data", "no")
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        pytest.param(stopped, 1, id="a restart"),
        pytest.param(cut_off, 1, id="a failover"),
        # It is said once a minute: twice is longer than a minute.
        pytest.param(stopped, 2, id="a minute", marks=pytest.mark.slow),
    ],
)
def test_who_waits_outlasts_a_redis_that_is_away(
    waiting: list[Child], mortal_redis: Redis, worker_process: StartWorker, fault: Fault, times: int
) -> None:
    with fault(mortal_redis):
        wait_until(lambda: all(said(one) >= times for one in waiting), 100, "what they say")
        assert all(one.running for one in waiting)

    worker_process(VECTOR_EMBED_REDIS_URL=mortal_redis.url)

    for one in waiting:
        wait_until(lambda child=one: not child.running, 60, one.name)  # type: ignore[misc]
        assert "status 0" in one.ended(), one.ended()
        assert said(one) == times


def test_a_timeout_ends_a_wait_for_a_redis_that_is_away(
    shell: Shell, waiting: list[Child], mortal_redis: Redis
) -> None:
    hasty = shell.start(mortal_redis.url, "vec", "wait", "wiki", "--timeout", "5")
    hasty.wait_for("waiting for 3 texts", 30)
    mortal_redis.kill()

    wait_until(lambda: not hasty.running, 30, "its end")

    assert "not done in time: Redis does not answer" in hasty.ended()
    mortal_redis.start()
    assert all(one.running for one in waiting)


@pytest.mark.parametrize("fault", [stopped, cut_off])
def test_a_program_that_waits_outlasts_it_too(
    mortal_redis: Redis, worker_process: StartWorker, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(redis_url=mortal_redis.url, broker_url=mortal_redis.url)
    receipt = enqueue(["one", "two"], "wiki", settings=settings)
    wiki = Collection("wiki", settings=settings)
    with ThreadPoolExecutor(4) as threads:
        waits: list[Future[ReceiptStatus] | Future[Status]] = [
            threads.submit(receipt.wait, 60),
            threads.submit(receipt.wait),
            threads.submit(lambda: asyncio.run(receipt.await_done(60))),
            threads.submit(wiki.wait),
        ]
        with mortal_redis.client() as client:
            looks = commands(client) + 100
            wait_until(lambda: commands(client) > looks, 30, "some looks")
        with fault(mortal_redis):
            wait_until(lambda: AWAY in caplog.text, 30, "a look that is not answered")
        worker_process(VECTOR_EMBED_REDIS_URL=mortal_redis.url)
        assert [wait.result(60).embedded for wait in waits] == [2] * 4
