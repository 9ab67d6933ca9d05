"""Work that stands still, and what the commands say of it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
import redis
from servers import API, API_KEY
from shell import Shell

from worker.local.redis_server import RedisServer
from worker.monitor.fleet import Work, Worker, announce_worker
from worker.settings import Settings
from worker.store.connection import connect

pytestmark = pytest.mark.heavy


@pytest.fixture
def waiting(shell: Shell) -> Shell:
    """A prompt beside a backlog."""
    shell.write("wiki.jsonl", {"id": "a", "text": "text"})
    assert shell("vec-enqueue", "wiki.jsonl").returncode == 0
    return shell


@pytest.fixture
def refusing(redis_client: redis.Redis) -> Iterator[None]:
    """A Redis that takes no changes, for want of replicas."""
    redis_client.config_set("min-replicas-to-write", 1)
    yield
    redis_client.config_set("min-replicas-to-write", 0)


@contextmanager
def announced(url: str, queue: str, state: str, reason: str | None = None) -> Iterator[None]:
    """A worker that says this of itself for as long as the block runs."""
    worker = Worker("vm:7:a", 8, work=(), queue=queue, state=state, reason=reason)
    with announcing(worker, Settings(redis_url=url)):
        yield


@contextmanager
def announcing(worker: Worker, settings: Settings) -> Iterator[None]:
    """This worker is alive for as long as the block runs."""
    ended = Event()

    def announce() -> None:
        while not ended.wait(0.3):
            announce_worker(connect(settings), settings.prefix, worker)

    announce_worker(connect(settings), settings.prefix, worker)
    thread = Thread(target=announce)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_worker_on_another_queue_is_told_apart_by_status_workers_and_wait(
    waiting: Shell, redis_server: RedisServer
) -> None:
    for command, said in (
        (["vec", "status", "wiki"], "wake-ups from the queue vec.wakeups: 1 worker alive, on"),
        (["vec", "status"], "wake-ups from the queue vec.wakeups"),
        (["vec", "workers"], "takes nothing from vec.wakeups, but from celery"),
        (["vec", "wait", "wiki", "--timeout", "1"], "no worker takes wake-ups"),
    ):
        with announced(redis_server.url, "celery", "working"):
            answer = waiting(*command)

        assert said in " ".join((answer.stdout + answer.stderr).split()), (command, answer)


def test_an_unfit_worker_is_shown_with_its_reason(
    waiting: Shell, redis_server: RedisServer, api: API
) -> None:
    reason = "socksio is missing \x1b[2J"
    with announced(redis_server.url, "vec.wakeups", "unfit", reason):
        shown = [waiting("vec", *command).stdout for command in (["status", "wiki"], ["workers"])]
        [worker] = json.loads(waiting("vec", "workers", "--json").stdout)

    for screen in shown:
        assert r"socksio is missing \x1b[2J" in " ".join(screen.split()), screen
    assert (worker["state"], worker["queue"]) == ("unfit", "vec.wakeups")


def test_json_names_what_blocks_a_collection_as_the_page_does(waiting: Shell) -> None:
    for command in (["wiki"], []):
        said = json.loads(waiting("vec", "status", *command, "--json").stdout)
        [status] = [said] if command else said
        assert status["reason"] == "no worker is alive: start one with vec worker"
    waiting("vec", "pause", "wiki")
    assert json.loads(waiting("vec", "status", "wiki", "--json").stdout)["reason"] == "by hand"


def test_a_redis_that_takes_no_changes_is_named_before_the_workers_that_cannot_announce(
    waiting: Shell, refusing: None
) -> None:
    shown = " ".join(waiting("vec", "status", "wiki").stdout.split())

    assert "Redis takes no changes (NOREPLICAS" in shown


def test_a_broker_that_is_away_is_named_beside_a_redis_that_is_there(
    waiting: Shell, redis_server: RedisServer, api: API
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    waiting.environ.update(
        VECTOR_EMBED_BROKER_URL=f"redis://:geheim@127.0.0.1:{port}/0",
        VECTOR_EMBED_BASE_URL=api.base_url,
        VECTOR_EMBED_API_KEY=API_KEY,
    )
    for command in (["status", "wiki"], ["doctor"]):
        with announced(redis_server.url, "vec.wakeups", "working"):
            answer = waiting("vec", *command)

        assert "no worker is woken" in " ".join(answer.stdout.split()), answer.stdout
        assert "geheim" not in answer.stdout


@pytest.mark.parametrize(("still", "named"), [(3.0, False), (11.0, True)])
def test_work_that_stops_is_named_within_seconds_although_its_rate_is_of_a_minute(
    waiting: Shell, redis_server: RedisServer, still: float, named: bool
) -> None:
    settings = Settings(redis_url=redis_server.url)
    shown = []
    for command in (["status", "wiki"], ["status"], ["doctor"], ["watch", "wiki"]):
        worker = Worker(
            "vm:7:a",
            8,
            work=[Work("wiki", 100, False)],
            rates={"wiki": 50.0},
            since_done={"wiki": still},
            queue="vec.wakeups",
            state="working",
        )
        with announcing(worker, settings):
            if command[0] == "watch":
                watching = waiting.start("vec", *command)
                assert watching.stdout is not None
                shown.append(watching.stdout.readline())
                watching.terminate()
                watching.wait(20)
            else:
                shown.append(waiting("vec", *command).stdout)
    for screen in shown:
        said = "100 texts wait for an answer" in " ".join(screen.split())
        assert said is named, screen
