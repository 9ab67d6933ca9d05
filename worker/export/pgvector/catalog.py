"""What a database has: the types of pgvector, tables, their columns and indexes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from ..rows import ExportError

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_SCHEMA = """
SELECT coalesce(
  (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.oid = to_regclass(quote_ident(%s))),
  current_schema())
"""
_TYPES = """
SELECT t.typname, t.oid::int8, n.nspname
FROM pg_extension e
JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
  AND d.classid = 'pg_type'::regclass
JOIN pg_type t ON t.oid = d.objid
JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE e.extname = 'vector' AND t.typname IN ('vector', 'halfvec')
"""
_RELATION = """
SELECT c.oid::int8, c.relkind::text, c.relpersistence::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR t.typdefault IS NOT NULL,
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique
    AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
    AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""
_INDEXES = """
SELECT DISTINCT c.relname, n.nspname, i.indisvalid
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_am m ON m.oid = c.relam
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
WHERE i.indrelid = %s AND a.attname = %s
  AND m.amname NOT IN ('btree', 'hash', 'gin', 'gist', 'brin')
"""
_EMBEDDING = """
SELECT t.typname, t.oid::int8, n.nspname, a.atttypmod
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = %s AND a.attname = %s
"""
_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
}


class Type(NamedTuple):
    """A type of pgvector."""

    name: str
    oid: int
    schema: str


class Column(NamedTuple):
    """A column of a table. `type` as PostgreSQL shows it."""

    name: str
    type: str
    is_required: bool  # not null
    has_default: bool
    is_unique: bool


class Index(NamedTuple):
    """An index for the nearest vectors of a column."""

    name: str
    schema: str
    is_valid: bool


class Catalog:
    """Reads the catalog of the database behind a connection."""

    def __init__(self, connection: Connection[TupleRow]) -> None:
        self._connection = connection

    def schema_of(self, table: str) -> str:
        """The schema that a table is in, or where it would be made. Raises ExportError."""
        ((schema,),) = self._read(_SCHEMA, table)
        if schema is None:
            raise ExportError(
                "the database has no schema on the role's search_path: name one in the address "
                "with schema=NAME"
            )
        return str(schema)

    def types(self) -> dict[str, Type]:
        """The types of pgvector, by their names. Raises ExportError if it is not there."""
        types = {name: Type(name, oid, schema) for name, oid, schema in self._read(_TYPES)}
        if "vector" in types:
            return types
        ((database,),) = self._read("SELECT current_database()")
        if self._read("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
            raise ExportError(
                f"the database {database} does not have pgvector: let a superuser, or the role "
                "that may on a managed server, run CREATE EXTENSION vector there"
            )
        raise ExportError(
            "the server does not have pgvector: install it (0.7 or later), then run CREATE "
            f"EXTENSION vector in the database {database}"
        )

    def check_encoding(self) -> None:
        """Raise ExportError if the database cannot hold every character."""
        ((encoding,),) = self._read("SELECT current_setting('server_encoding')")
        if encoding != "UTF8":
            raise ExportError(
                f"the encoding of the database is {encoding} and must be UTF8: make the table in "
                "another database"
            )

    def table(self, schema: str, name: str) -> int | None:
        """The oid of a table; None if there is none. Raises ExportError for anything else."""
        found = self._read(_RELATION, schema, name)
        if not found:
            return None
        ((oid, kind, persistence),) = found
        if kind not in "rp":
            raise ExportError(f"{schema}.{name} is {_KINDS.get(kind, kind)} and must be a table")
        if persistence == "u":
            raise ExportError(
                f"the table {schema}.{name} is UNLOGGED, so a crash of the server empties it: "
                "ALTER TABLE ... SET LOGGED"
            )
        return int(oid)

    def columns(self, table: int) -> dict[str, Column]:
        """The columns of a table, by their names."""
        return {row[0]: Column(*row) for row in self._read(_COLUMNS, table)}

    def shown(self, type: Type, dimensions: int) -> str:
        """A type of pgvector as PostgreSQL shows it for a column."""
        ((shown,),) = self._read("SELECT format_type(%s::oid, %s)", type.oid, dimensions)
        return str(shown)

    def embedding(self, table: int, column: str) -> tuple[Type, int]:
        """The type of a column of vectors, and how many numbers one has."""
        ((*type, dimensions),) = self._read(_EMBEDDING, table, column)
        return Type(*type), int(dimensions)

    def indexes(self, table: int, column: str) -> list[Index]:
        """The indexes for the nearest vectors of a column, of whatever kind."""
        return [Index(*row) for row in self._read(_INDEXES, table, column)]

    def has_rows(self, schema: str, table: str, count: int) -> bool:
        """Whether a table has this many rows."""
        statement = sql.SQL("SELECT 1 FROM {} OFFSET %s LIMIT 1").format(named(schema, table))
        return bool(run(self._connection, statement, count - 1))

    def _read(self, query: str, *values: object) -> Sequence[TupleRow]:
        return self._connection.execute(query.encode(), values).fetchall()


def named(*names: str) -> sql.Identifier:
    """A name in a statement: where parameters are given, a `%` has to be doubled."""
    return sql.Identifier(*(name.replace("%", "%%") for name in names))


def bare(statement: sql.Composable) -> bytes:
    """A statement that is sent without parameters."""
    return statement.as_bytes(None).replace(b"%%", b"%")


def run(
    connection: Connection[TupleRow], statement: sql.Composed, *values: object
) -> list[TupleRow]:
    """The rows that a statement gives, if it gives any."""
    if values:
        cursor = connection.execute(statement, values)
    else:
        cursor = connection.execute(bare(statement))
    return cursor.fetchall() if cursor.description else []
