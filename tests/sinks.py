"""Sinks for tests: each as one case of the contract, and one that fails where it is told to."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from postgresql import PostgreSQL

from worker.export.folder import Folder
from worker.export.sink import Part, Rotation, Sink, Watermarks
from worker.layout import Layout
from worker.types import Position, Stored

T = TypeVar("T")


class Held(NamedTuple):
    """What a sink holds of an id."""

    digest: bytes
    vector: bytes  # float32


class Case(Protocol):
    """One kind of sink, empty at the beginning."""

    def open(self, rotation: Rotation | None = None, collection: str = "wiki") -> Sink:
        """Another object for the same sink."""

    def held(self) -> dict[str, Held]:
        """What a person finds in it, by id."""


class FolderCase:
    """A folder of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, rotation: Rotation | None = None, collection: str = "wiki") -> Sink:
        return Folder(str(self._path), collection, "jsonl", rotation)

    def held(self) -> dict[str, Held]:
        """Read as the documentation says."""
        deleted = {row["id"]: row["number"] for row in self._rows("wiki-*.tombstones")}
        found = {}
        for row in self._rows("wiki-*.jsonl"):
            if row["number"] > deleted.get(row["id"], 0):
                vector = struct.pack(f"<{row['dimensions']}f", *row["vector"])
                found[row["id"]] = Held(bytes.fromhex(row["digest"]), vector)
        return found

    def _rows(self, pattern: str) -> list[dict]:  # type: ignore[type-arg]  # of JSON
        files = sorted(self._path.glob(pattern))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class PgVectorCase:
    """A table of PostgreSQL, or with `column` a column of a user's table, by its key."""

    def __init__(self, server: PostgreSQL, column: str | None = None) -> None:
        self._server = server
        self._column = column
        if column:
            server(
                f"CREATE TABLE wiki (id text PRIMARY KEY, {column} vector(2))",
                "INSERT INTO wiki SELECT chr(n) FROM generate_series(97, 122) n",
                "ALTER TABLE wiki OWNER TO app",
            )

    def open(self, rotation: Rotation | None = None, collection: str = "wiki") -> Sink:
        from worker.export.pgvector import PgVector

        return PgVector(self._server.url, collection, self._column, rotation=rotation)

    def held(self) -> dict[str, Held]:
        query = "SELECT id, digest, embedding::text FROM wiki"
        if self._column:
            query += " JOIN vector_embed_rows USING (id) WHERE embedding IS NOT NULL"
        if self._server("SELECT to_regclass('wiki')") == [(None,)]:
            return {}
        found = {}
        for id, digest, embedding in self._server(query):
            vector = json.loads(str(embedding))
            assert isinstance(digest, bytes)
            found[str(id)] = Held(digest, struct.pack(f"<{len(vector)}f", *vector))
        return found


class Failing:
    """A sink that raises `error` at its call number `at`, before it is done or after.

    `calls` counts them. Only the methods that change something or look are counted.
    """

    def __init__(
        self, sink: Sink, at: int, error: Callable[[], BaseException], *, after: bool
    ) -> None:
        self.calls = 0
        self.collection = sink.collection
        self.rotation = sink.rotation
        self._sink = sink
        self._at = at
        self._error = error
        self._after = after

    def __str__(self) -> str:
        return str(self._sink)

    @property
    def size(self) -> int:
        return self._sink.size

    @property
    def life(self) -> bytes | None:
        return self._step(lambda: self._sink.life)

    @contextmanager
    def locked(self) -> Iterator[str]:
        with self._sink.locked() as token:
            yield token

    def accept(self, born: bytes, layout: Layout) -> None:
        self._step(lambda: self._sink.accept(born, layout))

    def note_life(self, born: bytes) -> None:
        self._step(lambda: self._sink.note_life(born))

    def watermarks(self) -> Watermarks:
        return self._step(self._sink.watermarks)

    def write(self, records: Iterable[Stored]) -> Part | None:
        return self._step(lambda: self._sink.write(records))

    def write_tombstones(self, tombstones: Iterable[Position]) -> Part | None:
        return self._step(lambda: self._sink.write_tombstones(tombstones))

    def holds(self, positions: Sequence[Position]) -> list[bool]:
        return self._step(lambda: self._sink.holds(positions))

    def positions(self, above: int = 0) -> Iterator[Position]:
        return self._step(lambda: self._sink.positions(above))

    def tombstones(self, above: int) -> Iterator[Position]:
        return self._step(lambda: self._sink.tombstones(above))

    def finish(self) -> None:
        self._step(self._sink.finish)

    def _step(self, step: Callable[[], T]) -> T:
        self.calls += 1
        is_now = self.calls == self._at
        if is_now and not self._after:
            raise self._error()
        done = step()
        if is_now:
            raise self._error()
        return done
