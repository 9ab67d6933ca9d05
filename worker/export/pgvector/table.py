"""Where vectors go: into a table of ours, or into a column of a user's table, by its key.

Both take the vectors of one transaction: first into a temporary table by a binary COPY, then from
there by one statement, which leaves a row with a higher number as it is. Ids that a table of ours
does not have are copied straight into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from psycopg import sql

from ...types import PIECE_FIELDS, Position, Stored, parent_of
from ..rows import ExportError
from .binary import (
    ESCAPE,
    NULL,
    bigint,
    check_alike,
    copied,
    field,
    holdable,
    json_of,
    with_vectors,
)
from .catalog import Catalog, Column, Type, bare, named, run

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_NO_META = (NULL,) * 4
MOST_DIMENSIONS = 16_000  # of a vector or a halfvec
_STAGED = sql.Identifier("pg_temp", "vector_embed_staged")
_BIGINTS = 1 << 63
# Those of a table, and their types; that of the embedding depends on the collection.
_COLUMNS = {
    "id": "text",
    "embedding": "",
    "text": "text",
    "parent": "text",
    "start_offset": "bigint",
    "end_offset": "bigint",
    "meta": "jsonb",
    "model": "text",
    "digest": "bytea",
    "number": "bigint",
}
# Which ids can be equal to a key of each type; all are sent as text.
_TEXT, _WHOLE = r"[^\0\ud800-\udfff]*", r"-?[0-9]{1,19}"
_KEYS = {
    "text": _TEXT,
    "character varying": _TEXT,
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "smallint": _WHOLE,
    "integer": _WHOLE,
    "bigint": _WHOLE,
    "numeric": r"-?[0-9]{1,100}(\.[0-9]{1,100})?",
}
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}


class Target(Protocol):
    """What holds the vectors. Its methods run in the transaction of the caller."""

    column: str
    held: sql.Composed  # a query of id, number and digest of all that it holds
    table: int | None  # the oid of the table; None if it is not made yet
    replaced: str  # an id beside which characters were written as others

    def write(self, records: Sequence[Stored]) -> list[str]:
        """Write records, each id once. The ids that have no row."""

    def remove(self, tombstones: Sequence[Position]) -> None:
        """Remove the vectors of ids that are older than the tombstones."""


def vector_type(catalog: Catalog, dtype: str) -> Type:
    """The type of pgvector for the numbers of a layout. Raises ExportError if it is not there."""
    types = catalog.types()
    if dtype == "float32":
        return types["vector"]
    if "halfvec" not in types:
        raise ExportError(
            f"{dtype} needs the type halfvec of pgvector 0.7 or later: upgrade pgvector and run "
            "ALTER EXTENSION vector UPDATE"
        )
    return types["halfvec"]


class _Writer:
    """What both have: a connection, a table and a temporary table."""

    def __init__(self, connection: Connection[TupleRow], schema: str, name: str) -> None:
        self._connection = connection
        self._catalog = Catalog(connection)
        self._name = f"{schema}.{name}"
        self._schema = schema
        self._relation = named(schema, name)
        self.table = self._catalog.table(schema, name)
        self.replaced = ""
        self._is_checked = False

    def _run(self, statement: str, *values: object, **names: sql.Composable) -> list[TupleRow]:
        composed = sql.SQL(statement).format(t=self._relation, staged=_STAGED, **names)
        return run(self._connection, composed, *values)

    def _copy(self, into: sql.Composable, rows: Iterable[Sequence[bytes]]) -> None:
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(into)
        with self._connection.cursor().copy(bare(statement)) as copy:
            for data in copied(rows):
                copy.write(data)

    def _check_embedding(self, column: Column, record: Stored) -> None:
        """Raise ExportError if a column cannot hold the vectors."""
        type = vector_type(self._catalog, record.dtype)
        wanted = self._catalog.shown(type, record.dimensions)
        if column.type != wanted:
            raise self._unfit(column.name, column.type, wanted)

    def _unfit(self, column: str, is_now: str, wanted: str) -> ExportError:
        return ExportError(
            f"column {column!r} of {self._name} is {is_now} and must be {wanted}: change it, or "
            "name another table"
        )


class Table(_Writer):
    """A table of ours: a row for each id. It is made when the first vector comes."""

    column = "embedding"

    def __init__(self, connection: Connection[TupleRow], schema: str, name: str) -> None:
        super().__init__(connection, schema, name)
        self.held = sql.SQL("(SELECT id, number, digest FROM {})").format(self._relation)
        if self.table is not None:
            self._check(self._catalog.columns(self.table))

    def _check(self, columns: dict[str, Column]) -> None:
        for name, wanted in _COLUMNS.items():
            if name not in columns:
                raise ExportError(
                    f"{self._name} has no column {name!r}: name another table, or ALTER TABLE ... "
                    f"ADD COLUMN {name} {wanted or 'vector(N)'}"
                )
            if wanted and columns[name].type != wanted:
                raise self._unfit(name, columns[name].type, wanted)
            if name not in ("id", "embedding") and columns[name].is_required:
                raise self._unfit(name, "NOT NULL", f"{wanted} that may be NULL")
        if not columns["id"].is_unique:
            raise ExportError(
                f"column 'id' of {self._name} is not unique: ALTER TABLE ... ADD PRIMARY KEY (id)"
            )
        for column in columns.values():
            if column.name not in _COLUMNS and column.is_required and not column.has_default:
                raise self._unfit(column.name, "NOT NULL", "NULL or have a default")

    def write(self, records: Sequence[Stored]) -> list[str]:
        """Insert or replace the rows of records, each id once."""
        check_alike(records)
        if not self._is_checked:
            self._prepare(records[0])
            self._is_checked = True
        columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        target = sql.SQL("{} ({})").format(self._relation, columns)
        known: set[str] = set()
        if self._run("SELECT 1 FROM {t} LIMIT 1"):
            ids = [holdable(record.id) for record in records]
            found = self._run("SELECT id FROM {t} WHERE id = ANY(%b)", ids)
            known = {id for (id,) in found}
        rows = (self._row(record, vector) for record, vector in with_vectors(records))
        if not known:
            self._copy(target, rows)
            return []
        self._run(
            "CREATE TEMP TABLE IF NOT EXISTS vector_embed_staged ON COMMIT DELETE ROWS AS "
            "SELECT {columns} FROM {t} WITH NO DATA",
            columns=columns,
        )
        self._copy(_STAGED, rows)
        renewed = sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
            for name in _COLUMNS
            if name != "id"
        )
        self._run(
            "INSERT INTO {t} AS kept ({columns}) SELECT {columns} FROM {staged} "
            "ON CONFLICT (id) DO UPDATE SET {renewed} "
            "WHERE kept.number IS NULL OR kept.number < excluded.number",
            columns=columns,
            renewed=renewed,
        )
        return []

    def _prepare(self, record: Stored) -> None:
        """Make the table if it is not there, for vectors like this one; check it otherwise."""
        if record.dimensions > MOST_DIMENSIONS:
            raise ExportError(
                f"vectors with {record.dimensions:,} dimensions: pgvector takes at most "
                f"{MOST_DIMENSIONS:,}: begin a smaller collection with --dimensions"
            )
        if self.table is not None:
            self._check_embedding(self._catalog.columns(self.table)["embedding"], record)
            return
        type = vector_type(self._catalog, record.dtype)
        embedding = sql.SQL("{}({}) NOT NULL").format(
            named(type.schema, type.name), sql.Literal(record.dimensions)
        )
        body = sql.SQL(", ").join(
            sql.Identifier(name)
            + sql.SQL(" ")
            + (embedding if name == "embedding" else sql.SQL(wanted))
            + sql.SQL(' COLLATE "C" PRIMARY KEY' if name == "id" else "")
            for name, wanted in _COLUMNS.items()
        )
        self._run("CREATE TABLE {t} ({body})", body=body)
        self.table = self._catalog.table(self._schema, self._name.partition(".")[2])

    def _row(self, record: Stored, vector: bytes) -> tuple[bytes, ...]:
        """The fields of a row."""
        id, text, meta = record.id, record.text, record.meta
        return (
            self._text(id, id),
            vector,
            NULL if text is None else self._text(text, id),
            *(_NO_META if meta is None else self._kept(id, meta)),
            field(record.model),
            field(record.digest),
            bigint(record.number),
        )

    def _kept(self, id: str, meta: Mapping[str, object]) -> tuple[bytes, ...]:
        """The fields of a meta: parent, offsets, and all of it."""
        parent, place = parent_of(id, meta), _NO_META[1:]
        if parent is not None:
            start, end = (_offset(meta[name]) for name in PIECE_FIELDS[1:])
            place = (self._text(parent, id), bigint(start), bigint(end))
        held = json_of(meta)
        if ESCAPE in held:
            self.replaced = id
        return (*place, field(b"\x01" + held))

    def _text(self, text: str, id: str) -> bytes:
        held = holdable(text)
        if held is not text:
            self.replaced = id
        return field(held)

    def remove(self, tombstones: Sequence[Position]) -> None:
        """Delete the rows of ids, if they are older than the tombstones."""
        self._run(
            "DELETE FROM {t} AS kept USING unnest(%b::text[], %b::bigint[]) AS gone(id, number) "
            "WHERE kept.id = gone.id AND (kept.number IS NULL OR kept.number < gone.number)",
            *_columns_of(tombstones),
        )


class ColumnOf(_Writer):
    """A column of a user's table: the rows whose key is the id. Which text is noted beside it."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        schema: str,
        name: str,
        column: str,
        key: str,
        sink: int,
    ) -> None:
        super().__init__(connection, schema, name)
        self.column = column
        if self.table is None:
            raise ExportError(f"there is no table {self._name}: check the name")
        columns = self._catalog.columns(self.table)
        for one in (column, key):
            if one not in columns:
                what = f" {one} vector(N)" if one == column else ""
                add = f": ALTER TABLE ... ADD COLUMN{what}" if what else ": check the name"
                raise ExportError(f"{self._name} has no column {one!r}{add}")
        self._key_type = columns[key].type.partition("(")[0]
        if self._key_type not in _KEYS:
            raise self._unfit(key, columns[key].type, f"one of {', '.join(_KEYS)}")
        if not columns[key].is_unique:
            raise self._unfit(key, "not unique", "a primary key, or unique")
        if columns[column].is_required:
            raise self._unfit(column, "NOT NULL", "NULL for rows without a vector")
        self._names = {
            "column": named(column),
            "noted": named(schema, "vector_embed_rows"),
            "sink": sql.Literal(sink),
            # The text of the key as well: 7 is no row of the id 007.
            "match": sql.SQL("(t.{key} = r.id::{type} AND t.{key}::text = r.id)").format(
                key=named(key), type=sql.SQL(self._key_type)
            ),
        }
        self.held = sql.SQL(
            "(SELECT r.id, r.number, r.digest FROM {noted} r JOIN {t} t ON {match} "
            "WHERE r.sink = {sink} AND t.{column} IS NOT NULL)"
        ).format(t=self._relation, **self._names)

    def write(self, records: Sequence[Stored]) -> list[str]:
        """Update the rows whose keys are the ids of records. The ids that are no key."""
        check_alike(records)
        if not self._is_checked:
            assert self.table is not None
            column = self._catalog.columns(self.table)[self.column]
            self._check_embedding(column, records[0])
            self._is_checked = True
        self._run(
            "CREATE TEMP TABLE IF NOT EXISTS vector_embed_staged ON COMMIT DELETE ROWS AS "
            "SELECT r.id, r.number, r.digest, t.{column} AS embedding FROM {noted} r, {t} t "
            "WITH NO DATA",
            **self._names,
        )
        fitting = [record for record in records if self._can_be_key(record.id)]
        if fitting:
            rows = (
                (field(record.id), bigint(record.number), field(record.digest), vector)
                for record, vector in with_vectors(fitting)
            )
            self._copy(_STAGED, rows)
            self._run(
                "WITH renewed AS (UPDATE {t} AS t SET {column} = r.embedding FROM {staged} r "
                "WHERE {match} AND NOT EXISTS (SELECT FROM {noted} n WHERE n.sink = {sink} "
                "AND n.id = r.id AND n.number >= r.number AND t.{column} IS NOT NULL) "
                "RETURNING r.id, r.number, r.digest) "
                "INSERT INTO {noted} AS n (sink, id, number, digest) "
                "SELECT {sink}, id, number, digest FROM renewed "
                "ON CONFLICT (sink, id) DO UPDATE SET number = excluded.number, "
                "digest = excluded.digest",
                **self._names,
            )
        return self._unmatched(records)

    def _can_be_key(self, id: str) -> bool:
        if re.fullmatch(_KEYS[self._key_type], id, re.DOTALL) is None:
            return False
        bits = _BITS.get(self._key_type)
        return bits is None or -(1 << bits) <= int(id) < 1 << bits

    def _unmatched(self, records: Sequence[Stored]) -> list[str]:
        found = self._run(
            "SELECT r.id FROM {staged} r WHERE EXISTS (SELECT FROM {t} t WHERE {match})",
            **self._names,
        )
        matched = {id for (id,) in found}
        return [record.id for record in records if record.id not in matched]

    def remove(self, tombstones: Sequence[Position]) -> None:
        """Set the column of rows to NULL, if their vectors are older than the tombstones."""
        self._run(
            "WITH r AS (DELETE FROM {noted} AS kept "
            "USING unnest(%b::text[], %b::bigint[]) AS gone(id, number) WHERE kept.sink = {sink} "
            "AND kept.id = gone.id AND kept.number < gone.number RETURNING kept.id) "
            "UPDATE {t} AS t SET {column} = NULL FROM r WHERE {match}",
            *_columns_of(tombstones),
            **self._names,
        )


def _columns_of(tombstones: Sequence[Position]) -> tuple[list[str], list[int]]:
    return [holdable(one.id) for one in tombstones], [one.number for one in tombstones]


def _offset(value: object) -> int | None:
    """A position in a text; None for what a person called so and is no such number."""
    return value if isinstance(value, int) and -_BIGINTS <= value < _BIGINTS else None
