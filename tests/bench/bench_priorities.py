"""Priorities: a person who waits for a vector every 200 ms, before a long backlog of bulk.

    python -m tests.bench.bench_priorities

A bare client beside each row sends one text to the API as often, without Redis and without limits:
what it needs is the limit of what the person can get. `request times` is how much longer the
person's p99 is than that of the bare client, in requests of the API. The bulk's limit is its rate
when it is alone in the same run.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import httpx

from worker import Collection, enqueue
from worker.settings import Settings
from worker.store.adder import Adder
from worker.store.connection import connect
from worker.store.keys import CollectionKeys
from worker.types import Job

from .stack import Stack, stack, wait_until
from .table import Table, machine

BULK, OTHER, APART = "bulk", "person", "apart"
EVERY = 0.2
COLUMNS = (
    "bulk texts/s",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "bare p50 ms",
    "bare p99 ms",
    "request times",
)
TEXT = "It was about as long as the sentences that people keep in their corpora, so they say. "


def queue(settings: Settings, texts: int, priority: str = "bulk") -> None:
    """Queue the bulk."""
    client = connect(settings)
    adder = Adder(client, CollectionKeys(settings.prefix, BULK), settings.model, priority=priority)
    for at in range(0, texts, 1000):
        adder.add([Job(f"b{number}", f"{TEXT} {number}") for number in range(at, at + 1000)])


class Person:
    """Calls something every 200 ms in a thread of its own, and notes how long each call takes."""

    def __init__(self, call: Callable[[int], object], end: float) -> None:
        self.took: list[float] = []
        self._call = call
        self._end = end
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def at(self, share: float) -> float:
        """A quantile of the times, in ms."""
        return sorted(self.took)[int(share * len(self.took))] * 1000

    def _run(self) -> None:
        for number in count():
            begun = time.perf_counter()
            if begun > self._end:
                return
            self._call(number)
            self.took.append(time.perf_counter() - begun)
            time.sleep(max(0.0, EVERY - self.took[-1]))


def person(settings: Settings, collection: str, priority: str) -> Callable[[int], object]:
    """A call that enqueues a text and waits for its vector."""
    client, keys = connect(settings), CollectionKeys(settings.prefix, collection)

    def ask(number: int) -> None:
        id = f"{priority}-{number}"
        dtype = "float16" if collection == APART else None
        call = partial(enqueue, priority=priority, dtype=dtype, settings=settings)
        call([(id, f"{TEXT} {id}")], collection)
        wait_until(lambda: client.exists(keys.doc(id)), 60, "the vector", every=0.002)

    return ask


def bare(url: str) -> Callable[[int], object]:
    """A call that embeds one text, past Redis and the throttle."""
    client = httpx.Client(timeout=30)

    def ask(number: int) -> None:
        body = {"texts": [f"{TEXT} bare {number}"], "model": "nomic-v1.5"}
        client.post(f"{url}/v1/embed/batch", json=body)

    return ask


def measure(
    on: Stack, url: str, latency: float, seconds: float, asked: Sequence[tuple[str, str]]
) -> dict[str, float]:
    """The rate of the bulk, and the waits of those who ask (collection, priority) beside it."""
    settings = on.settings(base_url=url)
    done = CollectionKeys(settings.prefix, BULK).done
    before, requests, begun = int(on.client.xlen(done)), _requests(url), time.perf_counter()
    end = begun + seconds
    persons = [Person(person(settings, *one), end) for one in asked]
    beside = Person(bare(url), end)
    time.sleep(end - time.perf_counter())
    took = time.perf_counter() - begun
    rate = (int(on.client.xlen(done)) - before) / took
    requests = _requests(url) - requests - len(beside.took)
    for one in (*persons, beside):
        one.join()
    found = {
        "bulk texts/s": rate,
        "requests/s": requests / took,
        "bare p50 ms": beside.at(0.5),
        "bare p99 ms": beside.at(0.99),
    }
    for one in persons:
        found["p50 ms"], found["p99 ms"] = one.at(0.5), one.at(0.99)
        found["request times"] = (one.at(0.99) - beside.at(0.99)) / (latency * 1000)
    return found


def _requests(url: str) -> int:
    return int(httpx.get(f"{url}/requests").text)


def bench(texts: int, threads: int, latency: float, seconds: float, runs: int) -> None:
    title = f"{texts:,} texts of bulk, {threads} threads, {latency} s a request"
    table = Table(title, COLUMNS)
    rows: dict[str, Sequence[tuple[str, str]]] = {
        "bulk alone": [],
        "a person, in the bulk's collection": [(BULK, "interactive")],
        "a person, in another collection": [(OTHER, "interactive")],
        "a person, in one of another layout": [(APART, "interactive")],
        "a person who is not urgent, in the bulk's": [(BULK, "normal")],
    }
    for _ in range(runs):
        with stack() as on:
            url, _ = on.api(latency)
            settings = on.settings(base_url=url)
            queue(settings, texts)
            bulk = Collection(BULK, settings=settings)
            with on.workers(1, threads, {"VECTOR_EMBED_BASE_URL": url}):
                time.sleep(5)  # the pace is found
                for row, asked in rows.items():
                    table.add(row, **measure(on, url, latency, seconds, asked))
                    if not bulk.status().backlog:
                        raise SystemExit("the bulk is over: more --texts")
    table.ratios("bulk texts/s", "bulk alone")
    table.show()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_priorities", description=__doc__
    )
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=1)
    asked = parser.parse_args()
    print(machine())
    bench(asked.texts, asked.threads, asked.latency, asked.seconds, asked.runs)


if __name__ == "__main__":
    main()
