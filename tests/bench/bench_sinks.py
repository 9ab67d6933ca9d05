"""Sinks: vectors a second into PostgreSQL with pgvector, against the same statements by hand.

    python -m tests.bench.bench_sinks --vectors 100000 --dimensions 768

By hand, a first load is a bare binary COPY into the same table; replaced vectors are that COPY into
a temporary table, and one upsert from there. The limit is the same with rows that were encoded
before. Both commit as often as the sink, and check nothing. Needs the extra `elsewhere`.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterable, Iterator
from functools import partial

import numpy
import psycopg
from postgresql import PostgreSQL

from worker.export.pgvector import PgVector
from worker.export.pgvector.binary import NULL, bigint, copied, field, with_vectors
from worker.layout import Layout
from worker.types import Stored, text_digest

from .table import Table, machine

COLUMNS = "id, embedding, text, parent, start_offset, end_offset, meta, model, digest, number"
RENEWED = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS.split(", ")[1:])
TEXT = "A text of some length, as it is kept beside the vector of a document. " * 4
DIGEST = text_digest(TEXT)


class Load:
    """`count` vectors, a part at a time; again with higher numbers, as if all were replaced."""

    def __init__(self, server: PostgreSQL, count: int, dimensions: int) -> None:
        rng = numpy.random.default_rng(1)
        self._rows = [row.tobytes() for row in rng.normal(0, 0.04, (500, dimensions)).astype("<f4")]
        self._server = server
        self._count = count
        self._dimensions = dimensions
        self._round = 0
        self._part = min(10_000, 16 * 1024 * 1024 // (4 * dimensions + len(TEXT)))

    def parts(self) -> Iterator[list[Stored]]:
        for first in range(0, self._count, self._part):
            numbers = range(first, min(first + self._part, self._count))
            yield [self._record(number) for number in numbers]

    def _record(self, number: int) -> Stored:
        data = self._rows[number % len(self._rows)]
        place = self._round * self._count + number + 1
        return Stored(f"document-{number:08d}", data, "m", False, TEXT, None, place, DIGEST)

    def by_hand(
        self, statement: str, *before: str, after: str = "SELECT 1", is_encoded: bool = False
    ) -> dict[str, float]:
        """A COPY of each part by `statement`. `is_encoded`: without the time to encode rows."""
        with psycopg.connect(self._server.url) as connection:
            for one in before:
                connection.execute(one.encode())
            connection.commit()
            seconds = 0.0
            for part in self.parts():
                data: Iterable[bytes] = copied(map(_row, with_vectors(part)))
                if is_encoded:
                    data = list(data)
                begun = time.perf_counter()
                with connection.cursor().copy(statement.encode()) as copy:
                    for some in data:
                        copy.write(some)
                connection.execute(after.encode())
                connection.commit()
                seconds += time.perf_counter() - begun
        self._round += 1
        return {"vectors/s": self._count / seconds}

    def sink(self) -> dict[str, float]:
        """The same parts through the sink."""
        sink = PgVector(f"{self._server.url}&table=bench", "bench")
        seconds = 0.0
        with sink.locked():
            sink.accept(b"life", Layout("m"))
            for part in self.parts():
                begun = time.perf_counter()
                sink.write(part)
                seconds += time.perf_counter() - begun
        self._round += 1
        return {"vectors/s": self._count / seconds, "peak MB": peak()}

    def fresh(self) -> None:
        """An empty table, as the sink makes it."""
        self._server("DROP TABLE IF EXISTS bench, vector_embed_sinks, vector_embed_tombstones")
        sink = PgVector(f"{self._server.url}&table=bench", "bench")
        with sink.locked():
            sink.write([self._record(0)])
        self._server("TRUNCATE bench", "CHECKPOINT")

    def settle(self) -> None:
        """Before rows are replaced: the rows that were replaced before are out of the way."""
        self._server("VACUUM bench", "CHECKPOINT")


def _row(record: tuple[Stored, bytes]) -> tuple[bytes, ...]:
    one, vector = record
    ends = (field(one.model), field(one.digest), bigint(one.number))
    return (field(one.id), vector, field(one.text), NULL, NULL, NULL, NULL, *ends)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bench(vectors: int, dimensions: int, runs: int) -> None:
    server = PostgreSQL()
    try:
        server("CREATE EXTENSION vector")
        load = Load(server, vectors, dimensions)
        staged = (
            f"CREATE TEMP TABLE staged ON COMMIT DELETE ROWS AS SELECT {COLUMNS} FROM bench "
            "WITH NO DATA"
        )
        upsert = (
            f"INSERT INTO bench ({COLUMNS}) SELECT {COLUMNS} FROM staged ON CONFLICT (id) "
            f"DO UPDATE SET {RENEWED} WHERE bench.number < excluded.number"
        )
        into, to_staged = (
            f"COPY {table} ({COLUMNS}) FROM STDIN (FORMAT BINARY)" for table in ("bench", "staged")
        )
        first = partial(load.by_hand, into)
        again = partial(load.by_hand, to_staged, staged, after=upsert)
        for title, by_hand, ready in (
            (f"first load, {vectors:,} x {dimensions}", first, load.fresh),
            (f"all replaced, {vectors:,} x {dimensions}", again, load.settle),
        ):
            table = Table(title, ("vectors/s", "peak MB"))
            for _ in range(runs):
                ready()
                table.add("encoded before", **by_hand(is_encoded=True))
                ready()
                table.add("by hand", **by_hand())
                ready()
                table.add("the sink", **load.sink())
            table.ratios("vectors/s", "encoded before")
            table.ratios("vectors/s", "by hand")
            table.show()
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_sinks", description=__doc__)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.vectors, asked.dimensions, asked.runs)


if __name__ == "__main__":
    main()
