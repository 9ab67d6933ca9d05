"""Searching: the exact scan beside a pipelined read, and what an index finds and costs.

    python -m tests.bench.bench_search --vectors 1000000 --indexed 100000

The limit of the scan reads every vector, 500 in a pipeline, and does nothing with it. For the index
a private Redis 8 is started, if the wheels of the extra `elsewhere` are installed. Its vectors are
sums of 64 directions and some noise, as those of texts are of topics; recall is the share of the
exact top 10 that is found. The queries of the last row are answered while as many vectors are
written.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy
from redis8 import Redis8

from worker.settings import Settings
from worker.store.connection import connect
from worker.store.index import KINDS, Index
from worker.store.keys import CollectionKeys
from worker.store.reader import Reader
from worker.store.search import Search
from worker.types import Hit

from .bench_export import NAME, fill, read
from .stack import Stack, stack
from .table import Table, machine

KEYS = CollectionKeys("vec", NAME)
LENGTH, TOP, QUERIES = 768, 10, 50


def scan(on: Stack, count: int) -> dict[str, float]:
    """An exact search, and by how much the process has grown."""
    query = numpy.random.default_rng(2).normal(size=LENGTH)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    Search(connect(on.settings()), KEYS).nearest(query, TOP)
    seconds = time.perf_counter() - begun
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"vectors/s": count / seconds, "us a vector": 1e6 * seconds / count, "MB": grown / 1000}


class Wiki:
    """A collection on a Redis 8, as commits would leave it."""

    def __init__(self, server: Redis8) -> None:
        settings = Settings(redis_url=server.url, broker_url=server.url)
        self.client: Any = connect(settings)
        self.index = Index(self.client, KEYS)
        self.search = Search(self.client, KEYS)
        self._chance = numpy.random.default_rng(3)
        self._topics = self._chance.normal(size=(64, LENGTH))
        self._count = 0

    def rows(self, count: int) -> Any:
        topics = self._chance.normal(size=(count, 64)) @ self._topics
        rows = topics + 2 * self._chance.normal(size=(count, LENGTH))
        return rows.astype("<f4")

    def add(self, count: int) -> None:
        """Store more vectors."""
        self.client.hset(KEYS.info, mapping={"model": "m", "dimensions": LENGTH, "born": "1"})
        for first in range(0, count, 500):
            pipeline = self.client.pipeline(transaction=False)
            for row in self.rows(min(500, count - first)):
                self._count += 1
                number = self._count
                fields = {"vector": row.tobytes(), "hash": b"0123456789abcdef1 %d" % number}
                pipeline.hset(KEYS.doc(f"document-{number:08d}"), mapping=fields)
                pipeline.xadd(KEYS.done, {"id": f"document-{number:08d}"}, id=f"{number}-0")
            pipeline.hset(KEYS.info, "commits", self._count)
            pipeline.execute()

    def ask(self, queries: Any, exact: bool = False) -> tuple[list[list[Hit]], float]:
        """The answers, and the median of their times in ms."""
        answers, times = [], []
        for query in queries:
            begun = time.perf_counter()
            answers.append(self.search.nearest(query, TOP, exact=exact))
            times.append(1000 * (time.perf_counter() - begun))
        return answers, statistics.median(times)

    def used(self) -> int:
        return int(self.client.info("memory")["used_memory"])


def recall(found: list[list[Hit]], exact: list[list[Hit]]) -> float:
    pairs = zip(found, exact)
    same = sum(len({h.record.id for h in a} & {h.record.id for h in b}) for a, b in pairs)
    return same / max(1, sum(map(len, exact)))


def indexes(table: Table, vectors: int, directory: Path) -> None:
    for kind in KINDS:
        (directory / kind).mkdir()
        server = Redis8(directory / kind)
        try:
            wiki = Wiki(server)
            wiki.add(vectors)
            queries = wiki.rows(QUERIES)
            exact, exact_ms = wiki.ask(queries, exact=True)
            table.add("the exact scan", **{"ms a query": exact_ms, "recall": 1.0})
            before, begun = wiki.used(), time.perf_counter()
            wiki.index.make(kind, Reader(wiki.client, KEYS).info(), lambda share: None)
            taken, seconds = wiki.used() - before, time.perf_counter() - begun
            found, ms = wiki.ask(queries)
            row = {"bytes a vector": taken / vectors, "us to make": 1e6 * seconds / vectors}
            table.add(kind, **row, **{"ms a query": ms, "recall": recall(found, exact)})
            if kind == "hnsw":
                table.add("hnsw, while vectors are written", **_while_written(wiki, vectors))
        finally:
            server.stop()


def _while_written(wiki: Wiki, vectors: int) -> dict[str, float]:
    """Queries while as many vectors again are stored."""
    writer = threading.Thread(target=wiki.add, args=[vectors])
    queries, answers = wiki.rows(QUERIES), list[list[Hit]]()
    times: list[float] = []
    writer.start()
    while writer.is_alive():
        found, ms = wiki.ask(queries[len(answers) % QUERIES :][:1])
        answers += found
        times.append(ms)
    writer.join()
    assert all(len(hits) == TOP for hits in answers)
    return {"ms a query": statistics.median(times), "queries": len(times)}


def bench(vectors: int, indexed: int, runs: int) -> None:
    with stack() as on:
        fill(on, vectors)
        table = Table(f"{vectors:,} x {LENGTH}", ("vectors/s", "us a vector", "MB"))
        for _ in range(runs):
            table.add("a pipelined read", **read(on, vectors))
            table.add("the exact scan", **scan(on, vectors))
        table.ratios("vectors/s", "a pipelined read")
        table.show()
        on.flush()
        columns = ("ms a query", "recall", "bytes a vector", "us to make", "queries")
        found = Table(f"{indexed:,} x {LENGTH}", columns)
        try:
            indexes(found, indexed, on.directory)
        except ModuleNotFoundError as error:
            print(f"\nno index: {error.name} is not installed (extra `elsewhere`)")
            return
        found.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_search", description=__doc__)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--indexed", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.vectors, asked.indexed, asked.runs)


if __name__ == "__main__":
    main()
