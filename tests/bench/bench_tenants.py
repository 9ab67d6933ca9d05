"""Many collections with a text each, as a product has that keeps one for each customer.

    python -m tests.bench.bench_tenants --collections 10000

The limit is the same number of texts in one collection. All is queued before a worker starts, so
what is measured is how the fleet works on it.
"""

from __future__ import annotations

import argparse
import time

import httpx

from worker.settings import Settings
from worker.store.adder import Adder
from worker.store.connection import connect
from worker.store.keys import CollectionKeys
from worker.types import Job

from .stack import Stack, stack, usage, wait_until
from .table import Table, machine

LATENCY = 0.2
COLUMNS = ("texts/s", "requests", "texts a request", "worker ms/text", "Redis ms/text")


def queue(settings: Settings, texts: int, collections: int) -> list[CollectionKeys]:
    """Queue texts in so many collections, in equal parts."""
    client = connect(settings)
    names = [CollectionKeys(settings.prefix, f"tenant-{number}") for number in range(collections)]
    for first, keys in enumerate(names):
        jobs = [Job(f"{number}", f"text {number}") for number in range(first, texts, collections)]
        adder = Adder(client, keys, settings.model)
        for at in range(0, len(jobs), 1000):
            adder.add(jobs[at : at + 1000])
    return names


def measure(on: Stack, texts: int, collections: int, threads: int) -> dict[str, float]:
    """From the first request until all is stored."""
    on.flush()
    url, _ = on.api(LATENCY)
    settings = on.settings(base_url=url)
    waiting = queue(settings, texts, collections)
    client = connect(settings)

    def done() -> bool:
        pipeline = client.pipeline(transaction=False)
        for keys in waiting[:500]:
            pipeline.xlen(keys.jobs)
        sizes = pipeline.execute()
        waiting[:500] = [keys for keys, size in zip(waiting, sizes) if size]
        return not waiting

    with on.workers(1, threads, {"VECTOR_EMBED_BASE_URL": url}) as (pid,):
        wait_until(lambda: _requests(url), 60, "a request", every=0.01)
        begun, worker, server = time.perf_counter(), usage(pid), usage(on.redis_pid)
        wait_until(done, 3600, "all vectors", every=0.1)
        seconds = time.perf_counter() - begun
        worker_ms = usage(pid).cpu_seconds - worker.cpu_seconds
        server_ms = usage(on.redis_pid).cpu_seconds - server.cpu_seconds
    requests = _requests(url)
    return {
        "texts/s": texts / seconds,
        "requests": requests,
        "texts a request": texts / requests,
        "worker ms/text": 1000 * worker_ms / texts,
        "Redis ms/text": 1000 * server_ms / texts,
    }


def _requests(url: str) -> int:
    return int(httpx.get(f"{url}/requests").text)


def bench(collections: int, threads: int, runs: int) -> None:
    with stack() as on:
        table = Table(f"{collections:,} texts, {threads} threads, {LATENCY} s", COLUMNS)
        for _ in range(runs):
            table.add("of one collection", **measure(on, collections, 1, threads))
            row = f"of {collections:,} collections"
            table.add(row, **measure(on, collections, collections, threads))
        table.ratios("texts/s", "of one collection")
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_tenants", description=__doc__
    )
    parser.add_argument("--collections", type=int, default=1_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.collections, asked.threads, asked.runs)


if __name__ == "__main__":
    main()
