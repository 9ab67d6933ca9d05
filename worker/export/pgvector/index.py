"""The HNSW index of a column: made once all is loaded, while others read and write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from ...logs import logger
from .address import NAME_BYTES
from .catalog import Catalog, bare, named, run

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

MANY = 10_000  # rows: an index of fewer is made at once
MOST_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}


# Trying again does not help: rights, the version, memory that the server has not.
_IN_VAIN = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.DiskFull,
    psycopg.errors.OutOfMemory,
)


class Index:
    """The index of a table's column. `table` is its oid; `shown` is what a person calls it."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        place: tuple[str, str],
        table: int,
        column: str,
        shown: str,
    ) -> None:
        self._connection = connection
        self._catalog = Catalog(connection)
        self._schema, self._name = place
        self._table = table
        self._column = column
        self._shown = shown
        end = b"_hnsw"
        cut = f"{self._name}_{column}".encode()[: NAME_BYTES - len(end)]
        self.name = (cut + end).decode(errors="ignore")

    def make(self) -> None:
        """Make it if the column has no index for nearest vectors; say so, or why not.

        One of ours that a kill left half made is made again.
        """
        found = self._catalog.indexes(self._table, self._column)
        if any(index.is_valid or index.name != self.name for index in found):
            return
        type, dimensions = self._catalog.embedding(self._table, self._column)
        most = MOST_DIMENSIONS.get(type.name, 0)
        if not 0 < dimensions <= most:
            self._warn(
                f"HNSW takes at most {most:,} dimensions of a {type.name}: a smaller collection "
                "is made with --dimensions, or with --dtype float16"
            )
            return
        operators = named(type.schema, f"{type.name}_cosine_ops")
        statement = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING hnsw ({} {})").format(
            named(self.name), named(self._schema, self._name), named(self._column), operators
        )
        if self._catalog.has_rows(self._schema, self._name, MANY):
            logger.warning("%s: making the index %s, which may take long", self._shown, self.name)
        self._connection.add_notice_handler(self._pass_on)
        # It waits for all transactions that are open.
        self._connection.execute("SET lock_timeout = 0")
        try:
            for _ in found:
                half = named(self._schema, self.name)
                run(self._connection, sql.SQL("DROP INDEX CONCURRENTLY {}").format(half))
            run(self._connection, statement)
        except _IN_VAIN as error:
            reason = error.diag.message_primary
            self._warn(f"{reason}: let the table's owner run {bare(statement).decode()}")
        finally:
            self._connection.remove_notice_handler(self._pass_on)

    def _pass_on(self, notice: psycopg.errors.Diagnostic) -> None:
        logger.warning("%s: %s. %s", self._shown, notice.message_primary, notice.message_hint or "")

    def _warn(self, reason: str) -> None:
        logger.warning("%s has no index, so a query compares all vectors: %s", self._shown, reason)
