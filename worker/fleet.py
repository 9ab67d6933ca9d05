"""The fleet: which worker processes are alive, and how many slices they can work on at once."""

from __future__ import annotations

from .connection import Redis

WORKER_SECONDS = 4.0  # a worker not seen for so long is not alive


def announce_worker(client: Redis, prefix: str, worker: str, slots: int) -> None:
    """Say that a worker process with `slots` threads is alive."""
    key = f"{prefix}:workers"
    now = _now(client)
    pipeline = client.pipeline(transaction=False)
    pipeline.zadd(key, {f"{worker}/{slots}": now})
    pipeline.zremrangebyscore(key, "-inf", now - 3600)
    pipeline.execute()


def forget_worker(client: Redis, prefix: str, worker: str, slots: int) -> None:
    """Say that a worker process has ended."""
    client.zrem(f"{prefix}:workers", f"{worker}/{slots}")


def workers_alive(client: Redis, prefix: str) -> tuple[int, int]:
    """The number of worker processes alive, and of their slots."""
    alive = client.zrangebyscore(f"{prefix}:workers", _now(client) - WORKER_SECONDS, "+inf")
    return len(alive), sum(int(name.rpartition(b"/")[2]) for name in alive)


def _now(client: Redis) -> float:
    seconds, micros = client.time()
    return float(seconds) + float(micros) / 1e6
