"""How far a sink is: a row of a table beside the vectors, written in their transaction.

    vector_embed_sinks        a row for each table, or column, that a collection goes to
    vector_embed_tombstones   the last ids that were deleted: no older vector of them returns
    vector_embed_rows         which text each row of a user's table has the vector of

`run` names the export that writes. An export whose row names another one does not write any more,
even if it lost the lock without a notice.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from ...types import Position
from ..rows import ExportError
from .binary import holdable, restored
from .catalog import Catalog, named, run

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

KEPT_TOMBSTONES = 10_000
TABLES = {
    "vector_embed_sinks": """(
  sink int GENERATED ALWAYS AS IDENTITY,
  target text, column_name text,
  collection text NOT NULL,
  token text NOT NULL,
  run text NOT NULL,
  life bytea,
  layout text NOT NULL DEFAULT '',
  vectors bigint NOT NULL DEFAULT 0,
  tombstones bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (target, column_name))""",
    "vector_embed_tombstones": """(
  sink int, id text COLLATE "C", number bigint NOT NULL, PRIMARY KEY (sink, id))""",
    "vector_embed_rows": """(
  sink int, id text COLLATE "C", number bigint NOT NULL, digest bytea NOT NULL,
  PRIMARY KEY (sink, id))""",
}
_MAKING = 7_310_579_281_467_183  # of an advisory lock: one export at a time makes these tables


class State(NamedTuple):
    """The row of a sink."""

    sink: int
    collection: str
    token: str
    run: str
    life: bytes | None
    layout: str
    vectors: int
    tombstones: int


class Ledger:
    """The rows of one sink in these tables, over one connection."""

    def __init__(self, connection: Connection[TupleRow], schema: str, key: Sequence[str]) -> None:
        self._connection = connection
        self._schema = schema
        self._key = key  # the table and the column
        self._tables = {name: named(schema, name) for name in TABLES}

    def make(self) -> None:
        """Make the tables that are not there."""
        with self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MAKING])
            for name, body in TABLES.items():
                if Catalog(self._connection).table(self._schema, name) is None:
                    statement = sql.SQL("CREATE TABLE {} " + body).format(self._tables[name])
                    run(self._connection, statement)

    def read(self) -> State | None:
        """The row; None if the table never was a sink."""
        if Catalog(self._connection).table(self._schema, "vector_embed_sinks") is None:
            return None
        found = self._run(
            "SELECT sink, collection, token, run, life, layout, vectors, tombstones FROM {sinks} "
            "WHERE target = %s AND column_name = %s",
            *self._key,
        )
        return State(*found[0]) if found else None

    def begin(self, collection: str, run: str) -> State:
        """The row, made if there was none, for the export `run`. Raises ExportError."""
        self._run(
            "INSERT INTO {sinks} (target, column_name, collection, token, run) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (target, column_name) "
            "DO UPDATE SET run = excluded.run RETURNING sink",
            *self._key,
            collection,
            secrets.token_hex(8),
            run,
        )
        state = self.read()
        assert state is not None
        if state.collection != collection:
            raise ExportError(
                f"the table {self._key[0]} holds vectors of {state.collection}: name another table "
                f"for {collection}"
            )
        return state

    def advance(self, state: State, vectors: int = 0, tombstones: int = 0) -> int | None:
        """Note how far the transaction goes, and tell up to where tombstones are heeded.

        None if another export took over.
        """
        noted = self._run(
            "UPDATE {sinks} SET vectors = greatest(vectors, %s), "
            "tombstones = greatest(tombstones, %s) WHERE sink = %s AND run = %s "
            "RETURNING tombstones",
            vectors,
            tombstones,
            state.sink,
            state.run,
        )
        return noted[0][0] if noted else None

    def renew(self, state: State, life: bytes | None, layout: str) -> None:
        """Begin at zero, for another life of the collection or vectors of another layout."""
        with self._connection.transaction():
            self._run("DELETE FROM {tombstones} WHERE sink = %s", state.sink)
            self._run(
                "UPDATE {sinks} SET life = %s, layout = %s, vectors = 0, tombstones = 0 "
                "WHERE sink = %s AND run = %s",
                life,
                layout,
                state.sink,
                state.run,
            )

    def bury(self, state: State, tombstones: Sequence[Position]) -> None:
        """Remember tombstones; the last ones, each id once."""
        self._run(
            "INSERT INTO {tombstones} AS kept (sink, id, number) "
            "SELECT %s, * FROM unnest(%b::text[], %b::bigint[]) ON CONFLICT (sink, id) "
            "DO UPDATE SET number = greatest(kept.number, excluded.number)",
            state.sink,
            [holdable(one.id) for one in tombstones],
            [one.number for one in tombstones],
        )
        self._run(
            "DELETE FROM {tombstones} WHERE sink = %s AND (number, id) <= (SELECT number, id FROM "
            "{tombstones} WHERE sink = %s ORDER BY number DESC, id DESC OFFSET %s LIMIT 1)",
            state.sink,
            state.sink,
            KEPT_TOMBSTONES,
        )

    def buried(self, state: State, ids: Sequence[str]) -> dict[str, int]:
        """The numbers of the tombstones of ids."""
        found = self._run(
            "SELECT id, number FROM {tombstones} WHERE sink = %s AND id = ANY(%b)",
            state.sink,
            [holdable(id) for id in ids],
        )
        return {restored(id): number for id, number in found}

    def tombstones(self, state: State, above: int) -> Iterator[Position]:
        """Those with higher numbers that are remembered, in the order of their numbers."""
        for number, id in self._run(
            "SELECT number, id FROM {tombstones} WHERE sink = %s AND number > %s ORDER BY number",
            state.sink,
            above,
        ):
            yield Position(number, restored(id), b"")

    def _run(self, statement: str, *values: object) -> list[TupleRow]:
        composed = sql.SQL(statement).format(
            sinks=self._tables["vector_embed_sinks"],
            tombstones=self._tables["vector_embed_tombstones"],
        )
        return run(self._connection, composed, *values)
