"""Latency: how long one text takes on an idle system, and whether small producers fill batches.

    python -m tests.bench.bench_latency

The limit of one text is the API's own answer. A hundred producers enqueue one text each, threads at
the same moment or one after the other: the fewer requests they come to, the fuller the batches.
`--linger 0` shows them without the wait.
"""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from worker import Collection, ThrottledClient, enqueue
from worker.settings import Settings

from .stack import Stack, stack, wait_until
from .table import Table, machine

NAME = "bench"
LATENCY = 0.2


def post(url: str) -> float:
    """The limit: one request, in milliseconds."""
    with httpx.Client(timeout=30) as client:
        client.post(f"{url}/v1/embed/batch", json={"texts": ["warm"], "model": "nomic-v1.5"})
        begun = time.perf_counter()
        client.post(f"{url}/v1/embed/batch", json={"texts": ["one"], "model": "nomic-v1.5"})
        return (time.perf_counter() - begun) * 1000


def one(on: Stack, url: str, number: int) -> float:
    """From the call of enqueue() until the vector is stored, in milliseconds."""
    settings = on.settings(base_url=url)
    collection = Collection(NAME, settings=settings)
    begun = time.perf_counter()
    enqueue([(f"one-{number}", f"text {number}")], NAME, settings=settings)
    wait_until(lambda: collection.get(f"one-{number}"), 30, "the vector", every=0.001)
    return (time.perf_counter() - begun) * 1000


def many(on: Stack, url: str, run: str, producers: int, threads: int) -> tuple[float, float]:
    """Milliseconds until all are stored, and the requests that it took."""
    settings = on.settings(base_url=url)
    collection = Collection(NAME, settings=settings)
    stored = collection.status().embedded
    before = _requests(url)
    gate = threading.Barrier(threads)

    def produce(i: int) -> None:
        if i < threads:
            gate.wait()
        enqueue([(f"many-{run}-{i}", f"text {run} {i}")], NAME, settings=settings)

    with ThreadPoolExecutor(threads) as pool:
        begun = time.perf_counter()
        for _ in pool.map(produce, range(producers)):  # raises what a producer raised
            pass
    wait_until(
        lambda: collection.status().embedded >= stored + producers, 60, "all vectors", every=0.005
    )
    return (time.perf_counter() - begun) * 1000, _requests(url) - before


def beside(on: Stack, url: str, table: Table, samples: int) -> None:
    """Queries while workers send a bulk, in turns with requests of a client of its own."""
    settings = on.settings(base_url=url)
    enqueue((f"bulk {number}" for number in range(5_000 * samples)), "bulk", settings=settings)
    bulk, client = Collection("bulk", settings=settings), ThrottledClient(settings)
    before, begun = bulk.status().embedded, time.perf_counter()
    for number in range(samples):
        table.add("a request beside the throttle", ms=post(url))
        asked = time.perf_counter()
        client.embed(f"query {number}")
        table.add("a query", ms=(time.perf_counter() - asked) * 1000)
    status, seconds = bulk.status(), time.perf_counter() - begun
    assert status.backlog, "the bulk was done with before"
    table.add("the bulk", **{"texts/s": (status.embedded - before) / seconds})
    bulk.drop()


def _requests(url: str) -> int:
    return int(httpx.get(f"{url}/requests").text)


def bench(samples: int, producers: int, linger: float = Settings.linger) -> None:
    with stack() as on:
        url, _ = on.api(LATENCY)
        environ = {"VECTOR_EMBED_BASE_URL": url, "VECTOR_EMBED_LINGER": str(linger)}
        with on.workers(1, 8, environ):
            one(on, url, -1)  # connections are made at the first
            table = Table(f"one text, {LATENCY * 1000:.0f} ms API", ("ms", "ms over the API's"))
            for number in range(samples):
                limit = post(url)
                took = one(on, url, number)
                table.add("one request", **{"ms": limit, "ms over the API's": 0.0})
                table.add("enqueue to stored", **{"ms": took, "ms over the API's": took - limit})
            table.show()
            table = Table(
                f"{producers} producers of one text", ("ms until all are stored", "requests")
            )
            for number in range(max(1, samples // 5)):
                for name, threads in ("at once", producers), ("one after the other", 1):
                    took, requests = many(on, url, f"{threads}-{number}", producers, threads)
                    table.add(name, **{"ms until all are stored": took, "requests": requests})
            table.show()
            table = Table(f"beside a bulk, {LATENCY * 1000:.0f} ms API", ("ms", "texts/s"))
            beside(on, url, table, samples)
            table.show()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_latency", description=__doc__
    )
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--producers", type=int, default=100)
    parser.add_argument("--linger", type=float, default=Settings.linger)
    asked = parser.parse_args()
    print(machine())
    bench(asked.samples, asked.producers, asked.linger)


if __name__ == "__main__":
    main()
