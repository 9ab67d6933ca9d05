"""The workers alive, and those that were lost."""

from __future__ import annotations

from dataclasses import replace

import redis

from worker.monitor.fleet import (
    WORKER_SECONDS,
    Work,
    Worker,
    announce_worker,
    forget_worker,
    read_fleet,
    threads_alive,
)
from worker.settings import Settings
from worker.store.connection import connect


def test_threads_alive_are_those_of_workers_seen_in_the_last_seconds(settings: Settings) -> None:
    client = connect(settings)
    assert threads_alive(client, "vec") == 0
    one, two = Worker("host:1:a", 8), Worker("host:2:b", 16)
    announce_worker(client, "vec", one)
    announce_worker(client, "vec", two)
    announce_worker(client, "vec", two)
    assert threads_alive(client, "vec") == 24
    forget_worker(client, "vec", one)
    assert threads_alive(client, "vec") == 16
    with redis.Redis.from_url(settings.redis_url) as direct:
        direct.zincrby("vec:workers", -WORKER_SECONDS - 1, "host:2:b/16")
    assert threads_alive(client, "vec") == 0
    assert threads_alive(client, "other") == 0


def test_a_worker_says_what_it_is_at_and_an_older_one_beside_it_still_counts(
    settings: Settings,
) -> None:
    client = connect(settings)
    work = (Work("wiki", 100, False), Work("news", 0, True))
    halt = Worker("vm:1:7:a", 8, throttle="t-k", queue="q", state="halted", reason="no key")
    announce_worker(client, "vec", replace(halt, up_seconds=12.5, version="0.2.0", work=work))
    with redis.Redis.from_url(settings.redis_url) as direct:
        direct.zadd("vec:workers", {"old:2:b/4": direct.time()[0]})

    old, new = read_fleet(client, "vec")

    assert (new.host, new.pid, new.threads, new.up_seconds, new.version, new.work) == (
        "vm:1",
        "7",
        8,
        12.5,
        "0.2.0",
        work,
    )
    assert (new.throttle, new.queue, new.state, new.reason) == ("t-k", "q", "halted", "no key")
    assert (old.host, old.pid, old.threads, old.work) == ("old", "2", 4, None)
    assert (old.throttle, old.queue, old.state, old.reason) == (None, None, None, None)
    assert threads_alive(client, "vec") == 12


def test_a_worker_that_is_killed_is_remembered_as_lost(settings: Settings) -> None:
    client = connect(settings)
    announce_worker(client, "vec", Worker("host:1:a", 8))
    announce_worker(client, "vec", Worker("host:2:b", 8))
    with redis.Redis.from_url(settings.redis_url) as direct:
        direct.zincrby("vec:workers", -60, "host:1:a/8")

    alive, lost = read_fleet(client, "vec")

    assert (alive.pid, alive.alive) == ("2", True)
    assert (lost.pid, lost.alive) == ("1", False)
    assert 59 < lost.seen_seconds < 70
