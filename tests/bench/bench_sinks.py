"""Sinks: vectors a second into PostgreSQL with pgvector and into Qdrant, against the same by hand.

    python -m tests.bench.bench_sinks --vectors 100000 --dimensions 768
    python -m tests.bench.bench_sinks --exported 100000 10000000 --dimensions 16

By hand, a first load is a bare binary COPY into the same table; replaced vectors are that COPY into
a temporary table, and one upsert from there. The limit is the same with rows that were encoded
before. Both commit as often as the sink, and check nothing. For Qdrant, by hand means requests of
as many points each. Its server is the tests' own around the engine, written in Python, so there the
processor time of the client says more than the rate. Needs the extra `elsewhere`.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import httpx
import numpy
import orjson
import psycopg
from postgresql import PostgreSQL
from qdrant_server import QdrantProcess

from worker.export.pgvector import PgVector
from worker.export.pgvector.binary import NULL, bigint, copied, field, with_vectors
from worker.export.qdrant import BATCH_POINTS, Qdrant
from worker.export.qdrant.notes import point_id
from worker.layout import Layout
from worker.types import Stored, text_digest

from .bench_export import NAME, fill
from .stack import stack
from .table import Table, machine

COLUMNS = "id, embedding, text, parent, start_offset, end_offset, meta, model, digest, number"
RENEWED = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS.split(", ")[1:])
TEXT = "A text of some length, as it is kept beside the vector of a document. " * 4
DIGEST = text_digest(TEXT)


class Vectors:
    """`count` vectors, part by part; each round with higher numbers, as if all were replaced."""

    def __init__(self, count: int, dimensions: int) -> None:
        rng = numpy.random.default_rng(1)
        self._rows = [row.tobytes() for row in rng.normal(0, 0.04, (500, dimensions)).astype("<f4")]
        self.count = count
        self.dimensions = dimensions
        self.round = 0
        self._part = min(10_000, 16 * 1024 * 1024 // (4 * dimensions + len(TEXT)))

    def parts(self) -> Iterator[list[Stored]]:
        """All of them, in a new round."""
        self.round += 1
        for first in range(0, self.count, self._part):
            numbers = range(first, min(first + self._part, self.count))
            yield [self.record(number) for number in numbers]

    def record(self, number: int) -> Stored:
        data = self._rows[number % len(self._rows)]
        place = self.round * self.count + number + 1
        return Stored(f"document-{number:08d}", data, "m", False, TEXT, None, place, DIGEST)


class Load:
    """The vectors into a PostgreSQL."""

    def __init__(self, server: PostgreSQL, vectors: Vectors) -> None:
        self._server = server
        self._vectors = vectors

    def by_hand(
        self, statement: str, *before: str, after: str = "SELECT 1", is_encoded: bool = False
    ) -> dict[str, float]:
        """A COPY of each part by `statement`. `is_encoded`: without the time to encode rows."""
        with psycopg.connect(self._server.url) as connection:
            for one in before:
                connection.execute(one.encode())
            connection.commit()
            seconds = 0.0
            for part in self._vectors.parts():
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
        return {"vectors/s": self._vectors.count / seconds}

    def sink(self) -> dict[str, float]:
        """The same parts through the sink."""
        sink = PgVector(f"{self._server.url}&table=bench", "bench")
        seconds = 0.0
        with sink.locked():
            sink.accept(b"life", Layout("m"))
            for part in self._vectors.parts():
                begun = time.perf_counter()
                sink.write(part)
                seconds += time.perf_counter() - begun
        return {"vectors/s": self._vectors.count / seconds, "peak MB": peak()}

    def fresh(self) -> None:
        """An empty table, as the sink makes it."""
        self._server("DROP TABLE IF EXISTS bench, vector_embed_sinks, vector_embed_tombstones")
        sink = PgVector(f"{self._server.url}&table=bench", "bench")
        with sink.locked():
            sink.write([self._vectors.record(0)])
        self._server("TRUNCATE bench", "CHECKPOINT")

    def settle(self) -> None:
        """Before rows are replaced: the rows that were replaced before are out of the way."""
        self._server("VACUUM bench", "CHECKPOINT")


def _row(record: tuple[Stored, bytes]) -> tuple[bytes, ...]:
    one, vector = record
    ends = (field(one.model), field(one.digest), bigint(one.number))
    return (field(one.id), vector, field(one.text), NULL, NULL, NULL, NULL, *ends)


class IntoQdrant:
    """The vectors into new collections of a Qdrant."""

    def __init__(self, server: QdrantProcess, vectors: Vectors) -> None:
        self._server = server
        self._vectors = vectors

    def by_hand(self, *, is_encoded: bool = False) -> dict[str, float]:
        """Requests of 256 points. `is_encoded`: without the time to make JSON of them."""
        path = f"/collections/by-hand-{self._vectors.round}"
        with httpx.Client(base_url=self._server.url, timeout=60) as client:
            config = {"vectors": {"size": self._vectors.dimensions, "distance": "Cosine"}}
            client.put(path, json=config).raise_for_status()
            seconds = processor = 0.0
            for part in self._vectors.parts():
                bodies: Iterable[bytes] = map(_points, _batches(part))
                if is_encoded:
                    bodies = list(bodies)
                begun, used = time.perf_counter(), time.process_time()
                for body in bodies:
                    client.put(f"{path}/points?wait=true", content=body).raise_for_status()
                seconds += time.perf_counter() - begun
                processor += time.process_time() - used
        return self._told(seconds, processor)

    def sink(self) -> dict[str, float]:
        """The same parts through the sink."""
        address = self._server.address.replace("articles", f"sink-{self._vectors.round}")
        sink = Qdrant(address, "bench")
        seconds = processor = 0.0
        with sink.locked():
            sink.accept(b"life", Layout("m"))
            for part in self._vectors.parts():
                begun, used = time.perf_counter(), time.process_time()
                sink.write(part)
                seconds += time.perf_counter() - begun
                processor += time.process_time() - used
        return {**self._told(seconds, processor), "peak MB": peak()}

    def _told(self, seconds: float, processor: float) -> dict[str, float]:
        count = self._vectors.count
        return {"vectors/s": count / seconds, "us of processor": 1e6 * processor / count}


def _batches(part: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    for first in range(0, len(part), BATCH_POINTS):
        yield part[first : first + BATCH_POINTS]


def _points(records: Sequence[Stored]) -> bytes:
    points = [
        {
            "id": point_id(one.id),
            "vector": numpy.frombuffer(one.data, "<f4"),
            "payload": {
                "id": one.id,
                "number": one.number,
                "digest": DIGEST.hex(),
                "model": one.model,
                "text": one.text,
            },
        }
        for one in records
    ]
    return orjson.dumps({"points": points}, option=orjson.OPT_SERIALIZE_NUMPY)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def into_postgresql(vectors: Vectors, runs: int) -> None:
    server = PostgreSQL()
    try:
        server("CREATE EXTENSION vector")
        load = Load(server, vectors)
        size = f"{vectors.count:,} x {vectors.dimensions}"
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
            (f"pgvector, first load, {size}", first, load.fresh),
            (f"pgvector, all replaced, {size}", again, load.settle),
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


def into_qdrant(vectors: Vectors, runs: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = QdrantProcess(Path(directory) / "qdrant")
        try:
            load = IntoQdrant(server, vectors)
            title = f"Qdrant, first load, {vectors.count:,} x {vectors.dimensions}"
            table = Table(title, ("vectors/s", "us of processor", "peak MB"))
            for _ in range(runs):
                table.add("encoded before", **load.by_hand(is_encoded=True))
                table.add("by hand", **load.by_hand())
                table.add("the sink", **load.sink())
            table.ratios("us of processor", "by hand")
            table.show()
        finally:
            server.stop()


def exported(counts: Sequence[int], dimensions: int) -> None:
    """What `vec export` takes for collections of these sizes.

    The table has an index that costs nothing to keep: what is measured is the export.
    """
    columns = ("vectors/s", "peak MB", "us of processor")
    table = Table(f"vec export into pgvector, x {dimensions}", columns)
    server = PostgreSQL()
    try:
        server("CREATE EXTENSION vector")
        for count in counts:
            Load(server, Vectors(1, dimensions)).fresh()
            server(
                "CREATE INDEX ON bench USING ivfflat (embedding vector_cosine_ops) WITH (lists = 1)"
            )
            with stack() as on:
                fill(on, count, dimensions)
                address = f"{server.url}&table=bench"
                ran = on.run("vec", "export", NAME, VECTOR_EMBED_SINK_URL=address)
            assert server("SELECT count(*) FROM bench") == [(count,)], ran.said
            row = {"vectors/s": count / ran.seconds, "peak MB": ran.peak_megabytes}
            row["us of processor"] = 1e6 * ran.cpu_seconds / count
            table.add(f"{count:,} vectors", **row)
        table.show()
    finally:
        server.stop()


def bench(count: int, dimensions: int, runs: int) -> None:
    into_postgresql(Vectors(count, dimensions), runs)
    into_qdrant(Vectors(count, dimensions), runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_sinks", description=__doc__)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=768)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--exported", type=int, nargs="+", help="instead, what the command takes for so many"
    )
    asked = parser.parse_args()
    print(machine())
    if asked.exported:
        exported(asked.exported, asked.dimensions)
    else:
        bench(asked.vectors, asked.dimensions, asked.runs)


if __name__ == "__main__":
    main()
