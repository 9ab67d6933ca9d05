"""Searching: the exact scan beside a pipelined read, and what an index finds and costs.

    python -m tests.bench.bench_search --vectors 1000000 --indexed 100000
    python -m tests.bench.bench_search --vectors 0 --indexed 300000 --written 300000 --kinds hnsw
        --dtype float16 --file texts.jsonl    # a field `text` a line; or .npy, with the vectors

The limit of the scan reads every vector, 500 in a pipeline, and does nothing with it. For the index
a private Redis 8 is started, if the wheels of the extra `elsewhere` are installed. Without a file
its vectors are sums of 64 directions and some noise, as those of texts are of topics. Recall is the
share of ten hits that are as near as the ten nearest; numpy finds these among the vectors that were
stored when the query was asked. A process of its own writes, 100 vectors in one step, as a worker's
commit does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle
from multiprocessing import Process
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy
from redis8 import Redis8

from worker.layout import DTYPES, Layout
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
from .texts import vectors

KEYS = CollectionKeys("vec", NAME)
LENGTH, TOP, QUERIES, SCANS = 768, 10, 200, 3
COMMIT = 100  # vectors in one step
TIE = 1e-4  # cosines of float16 differ by less from those of float32
COLUMNS = ("ms", "ms, 99 %", "queries", "recall", "least", "bytes", "us")


class Sizes(NamedTuple):
    """What is indexed and written. `dimensions`: of vectors that are made up."""

    indexed: int
    written: int
    dimensions: int = LENGTH
    dtype: str = "float32"
    kinds: Sequence[str] = KINDS
    file: str | None = None


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
    """A collection on a Redis 8, as commits would leave it: of the rows of a matrix, in order."""

    def __init__(self, url: str, rows: Any, layout: Layout) -> None:
        self.client: Any = connect(Settings(redis_url=url, broker_url=url))
        self.index = Index(self.client, KEYS)
        self.search = Search(self.client, KEYS)
        self._layout = layout
        self._rows = rows

    def write(self, first: int, end: int) -> None:
        """Store these rows."""
        now = {"model": "m", "dimensions": self._rows.shape[1], "layout": str(self._layout)}
        self.client.hset(KEYS.info, mapping={**now, "born": "1"})
        for at in range(first, end, COMMIT):
            rows = self._rows[at : min(end, at + COMMIT)]
            step = self.client.pipeline(transaction=True)
            for number, data in enumerate(self._layout.encode(rows), at + 1):
                fields = {self._layout.field: data, "hash": b"0123456789abcdef1 %d" % number}
                step.hset(KEYS.doc(f"document-{number:08d}"), mapping=fields)
                step.xadd(KEYS.done, {"id": f"document-{number:08d}"}, id=f"{number}-0")
            step.hset(KEYS.info, "commits", at + len(rows))
            step.execute()

    def ask(self, queries: Any, exact: bool = False) -> dict[str, float]:
        """The times of the answers in ms, and how good they are."""
        times, recalls = [], []
        for query in queries:
            there = int(self.client.hget(KEYS.info, "commits"))
            begun = time.perf_counter()
            hits = self.search.nearest(query, TOP, exact=exact)
            times.append(1000 * (time.perf_counter() - begun))
            assert len(hits) == TOP
            recalls.append(self._recall(query, hits, there))
        slow = sorted(times)[int(0.99 * len(times))]
        shares = {"recall": statistics.mean(recalls), "least": min(recalls)}
        return {"ms": statistics.median(times), "ms, 99 %": slow, "queries": len(times), **shares}

    def _recall(self, query: Any, hits: list[Hit], there: int) -> float:
        """The share of hits that are as near as the ten nearest of the first `there` rows."""
        cosines = self._rows[:there] @ query
        least = numpy.partition(cosines, -TOP)[-TOP] - TIE
        return len([hit for hit in hits if hit.score >= least]) / TOP

    def used(self) -> int:
        return int(self.client.info("memory")["used_memory"])


def indexes(table: Table, asked: Sizes, directory: Path) -> None:
    rows, queries = made(asked)
    layout = Layout("m", None, asked.dtype)
    for kind in asked.kinds:
        (directory / kind).mkdir()
        server = Redis8(directory / kind)
        try:
            wiki = Wiki(server.url, rows, layout)
            wiki.write(0, asked.indexed)
            stored = wiki.used() / asked.indexed
            table.add("the exact scan", **wiki.ask(queries[:SCANS], exact=True), bytes=stored)
            before, begun = wiki.used(), time.perf_counter()
            wiki.index.make(kind, Reader(wiki.client, KEYS).info(), lambda share: None)
            taken, seconds = wiki.used() - before, time.perf_counter() - begun
            row = {"bytes": taken / asked.indexed, "us": 1e6 * seconds / asked.indexed}
            table.add(kind, **wiki.ask(queries), **row)
            if kind == "hnsw" and asked.written:
                _while_written(table, wiki, asked, queries, partial(Wiki, server.url, rows, layout))
        finally:
            server.stop()


def _while_written(
    table: Table, wiki: Wiki, asked: Sizes, queries: Any, writer: Callable[[], Wiki]
) -> None:
    """Queries while more vectors are stored, and after that."""
    end = asked.indexed + asked.written
    child = Process(target=lambda: writer().write(asked.indexed, end))
    begun = time.perf_counter()
    child.start()
    try:
        found = wiki.ask(_until(child, queries))
        child.join()
        each = 1e6 * (time.perf_counter() - begun) / asked.written
    finally:
        child.kill()
    assert int(wiki.client.hget(KEYS.info, "commits")) == end
    table.add(f"hnsw, while {asked.written:,} more are written", **found, us=each)
    table.add(f"hnsw of {end:,}", **wiki.ask(queries), bytes=wiki.used() / end)


def _until(child: Process, queries: Any) -> Iterator[Any]:
    for query in cycle(queries):
        if not child.is_alive():
            return
        yield query


def made(asked: Sizes) -> tuple[Any, Any]:
    """The vectors to store, and queries; all of length 1."""
    count = asked.indexed + asked.written
    if asked.file is not None:
        rows = vectors(asked.file, count + QUERIES)
        return rows[QUERIES : QUERIES + count], rows[:QUERIES]
    chance = numpy.random.default_rng(3)
    topics = chance.normal(size=(64, asked.dimensions)).astype("<f4")
    rows = numpy.empty((count + QUERIES, asked.dimensions), "<f4")
    for first in range(0, len(rows), 10_000):
        some = rows[first : first + 10_000]
        some[:] = chance.normal(size=(len(some), 64)).astype("<f4") @ topics
        some += 2 * chance.normal(size=some.shape)
        some /= numpy.linalg.norm(some, axis=1, keepdims=True)
    return rows[QUERIES:], rows[:QUERIES]


def bench(scanned: int, runs: int, asked: Sizes) -> None:
    with stack() as on:
        if scanned:
            fill(on, scanned)
            table = Table(f"{scanned:,} x {LENGTH}", ("vectors/s", "us a vector", "MB"))
            for _ in range(runs):
                table.add("a pipelined read", **read(on, scanned))
                table.add("the exact scan", **scan(on, scanned))
            table.ratios("vectors/s", "a pipelined read")
            table.show()
            on.flush()
        found = Table(f"{asked.indexed:,} vectors, {asked.dtype}", COLUMNS)
        try:
            indexes(found, asked, on.directory)
        except ModuleNotFoundError as error:
            print(f"\nno index: {error.name} is not installed (extra `elsewhere`)")
            return
        found.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_search", description=__doc__)
    parser.add_argument("--vectors", type=int, default=50_000, help="of the scan; 0: leave it out")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--indexed", type=int, default=5_000)
    parser.add_argument("--written", type=int, default=5_000, help="beside the queries")
    parser.add_argument("--dimensions", type=int, default=LENGTH)
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--file", help="JSON lines with a field `text`, or vectors in a .npy")
    asked = vars(parser.parse_args())
    print(machine())
    bench(asked.pop("vectors"), asked.pop("runs"), Sizes(**asked))


if __name__ == "__main__":
    main()
