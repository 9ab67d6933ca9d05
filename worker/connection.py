"""The connection to Redis: made lazily, per process, and never retrying by itself.

redis-py would send a command again after a lost reply; a step that counts would then count twice.
Only steps that are idempotent are sent again, by those who know that they are.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from .settings import Settings, without_password

MINIMUM_VERSION = (6, 2)


class RedisUnfit(Exception):
    """This Redis cannot keep the promises. The message says why and what to change."""


def connect(settings: Settings) -> redis.Redis:
    """The process's client for `settings.redis_url`. Answers come as bytes."""
    # A pool shared over a fork gave one child the other's answers: the pid is part of the key.
    return _connect(settings.redis_url, os.getpid())


@cache
def _connect(url: str, pid: int) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        socket_timeout=30,
        socket_connect_timeout=5,
        socket_keepalive=True,
        health_check_interval=30,
    )


@cache
def script(name: str) -> Script:
    """The atomic step `scripts/<name>.lua`. Nothing is sent before it is called with a client."""
    source = (Path(__file__).parent / "scripts" / f"{name}.lua").read_text(encoding="utf-8")
    return redis.Redis().register_script(source)


def check_redis(client: redis.Redis) -> None:
    """Raises RedisUnfit on a server too old, or one that would evict what we store."""
    info = client.info()
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_VERSION:
        raise RedisUnfit(f"Redis {version} is too old: 6.2 or newer is needed")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy.startswith("allkeys"):
        raise RedisUnfit(
            f"Redis evicts keys under maxmemory-policy {policy}: texts and vectors would be lost; "
            "set it to noeviction"
        )


def memory_used(client: redis.Redis) -> float:
    """The share of maxmemory in use, 0.0 where there is no limit."""
    info = client.info("memory")
    limit = int(info.get("maxmemory", 0))
    return int(info["used_memory"]) / limit if limit else 0.0


def cannot_reach(settings: Settings, error: Exception) -> str:
    """One line for a Redis that does not answer."""
    url = without_password(settings.redis_url)
    reason = str(error).strip().rstrip(".") or type(error).__name__
    return (
        f"cannot reach Redis at {url}: {reason}. Start one, name another with --redis-url or "
        "VECTOR_EMBED_REDIS_URL, or try --local, which brings its own"
    )
