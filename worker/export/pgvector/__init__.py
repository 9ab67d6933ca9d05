"""A sink: a table of a PostgreSQL with pgvector, or a column of a user's table.

    postgresql://USER@HOST:PORT/NAME?table=articles

What comes at once is one transaction, and the number of its last vector is noted in it. So after a
kill of anything at any point the table is as it was after some transaction, and the number says
after which. An advisory lock of the session lets one export at a time write to a table. An export
that loses its session loses the lock; so each transaction also finds the row of its own run.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql

from ...layout import Layout
from ...logs import logger, plain
from ...types import Position, Stored
from ..rows import ExportError
from ..sink import Part, Rotation, SinkAway, Watermarks
from .address import Address
from .binary import holdable, restored
from .catalog import Catalog, run
from .index import Index
from .state import Ledger, State
from .table import ColumnOf, Table, Target

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_PAGE = 10_000
_BURIED = 1_000  # tombstones of one transaction
_LOCK_SECONDS = 3  # an export that was killed leaves its lock within this time


class _Session(NamedTuple):
    """A connection, and what is known over it."""

    connection: Connection[TupleRow]
    ledger: Ledger
    schema: str
    state: State | None
    target: Target | None


class PgVector:
    """The vectors of a collection in PostgreSQL.

    `column` and `key`: into this column of a table that is there, in the rows whose key is the id.
    Raises ExportError if the address cannot be read. Neither `str` nor an error has a password.
    """

    size = 0  # not known: the server does not say how far a transaction is
    _session: _Session | None = None

    def __init__(
        self,
        address: str,
        collection: str,
        column: str | None = None,
        key: str | None = None,
        rotation: Rotation | None = None,
    ) -> None:
        self.collection = collection
        self.rotation = rotation or Rotation(10_000, 16 * 1024 * 1024, 1.0)
        self._address = Address.read(address)
        self._table = self._address.table or collection
        self._column = column or self._address.column
        self._key = key or self._address.key or "id"
        self._run = ""  # of this export, while it has the lock
        self._is_begun = False  # and it had the lock before
        self._unmatched = 0  # vectors that found no row
        self._is_told = False  # that characters were replaced

    def __str__(self) -> str:
        where = plain(f"{self._address.server}?table={self._table}")
        return where if self._column is None else f"column {plain(self._column)} of {where}"

    def __repr__(self) -> str:
        return f"PgVector({str(self)!r}, {self.collection!r})"

    def __del__(self) -> None:
        self._close()  # what reads without the lock leaves a session

    @contextmanager
    def locked(self) -> Iterator[str]:
        """Make or check the tables, and lock the sink. Yields the sink's own token.

        Raises ExportError if another export has the lock, or a table cannot be written to.
        """
        self._close()
        self._run = secrets.token_hex(8)
        try:
            with self._connected() as session:
                token = _known(session.state).token
            self._is_begun = True
            yield token
        finally:
            self._run, self._is_begun = "", False
            self._close()

    @property
    def life(self) -> bytes | None:
        """The life of the collection that it holds; None if it never held one."""
        with self._connected() as session:
            state = session.ledger.read()
            return state.life if state else None

    def accept(self, born: bytes, layout: Layout) -> None:
        """Raise ExportError if what it holds cannot stand beside this life and layout."""
        with self._connected() as session:
            state = _known(session.state)
            if state.layout == str(layout) and state.life in (None, born):
                return
            if _is_empty(session):
                self._renew(session, state.life, str(layout))
                return
        if state.life not in (None, born):
            raise ExportError(
                f"{self} holds an earlier life of {self.collection}, which was dropped or lost "
                f"since: name another table, or empty this one: {self._emptied()}"
            )
        raise ExportError(
            f"{self} holds vectors of {self.collection} as {Layout.read('', state.layout).name}, "
            f"and they are stored as {layout.name} now: name another table, or {self._emptied()}"
        )

    @property
    def _place(self) -> str:
        schema = self._address.schema
        return self._table if schema is None else f"{schema}.{self._table}"

    def _emptied(self) -> str:
        if self._column is None:
            return f"DROP TABLE {self._place}"
        return f"UPDATE {self._place} SET {self._column} = NULL"

    def note_life(self, born: bytes) -> None:
        """Note which life of the collection is written from now on."""
        with self._connected() as session:
            state = _known(session.state)
            if state.life != born:
                self._renew(session, born, state.layout)

    def watermarks(self) -> Watermarks:
        """Up to which numbers it holds all vectors, and has removed what was deleted."""
        with self._connected() as session:
            state = session.ledger.read()
            return Watermarks(state.vectors, state.tombstones) if state else Watermarks(0, 0)

    def write(self, records: Iterable[Stored]) -> Part | None:
        """Write numbered records in one transaction; None if there were none."""
        batch = list(records)
        if not batch:
            return None
        first, last = batch[0].number or 0, batch[-1].number or 0
        latest = {record.id: record for record in batch}  # the last one of an id
        with self._connected() as session, session.connection.transaction():
            state, target, heeded = self._fenced(session, vectors=last)
            if heeded > first:
                buried = session.ledger.buried(state, list(latest))
                for id, number in buried.items():
                    if number > (latest[id].number or 0):
                        del latest[id]
            unmatched = target.write(list(latest.values())) if latest else []
        self._tell(unmatched, target.replaced)
        return Part(str(self), first, last)

    def write_tombstones(self, tombstones: Iterable[Position]) -> Part | None:
        """Remove deleted ids, each with its older vectors; None if there were none."""
        remaining = iter(tombstones)
        first = last = 0
        while some := list(islice(remaining, _BURIED)):
            first, last = first or some[0].number, some[-1].number
            latest = list({one.id: one for one in some}.values())
            with self._connected() as session, session.connection.transaction():
                state, target, _ = self._fenced(session, tombstones=last)
                session.ledger.bury(state, latest)
                if target.table is not None:
                    target.remove(latest)
        return Part(str(self), first, last) if last else None

    def holds(self, positions: Sequence[Position]) -> list[bool]:
        """Whether exactly these are there."""
        with self._connected() as session:
            if session.target is None or session.target.table is None:
                return [False] * len(positions)
            statement = (
                "SELECT held.id IS NOT NULL "
                "FROM unnest(%b::text[], %b::bigint[], %b::bytea[]) WITH ORDINALITY "
                "AS asked(id, number, digest, at) "
                "LEFT JOIN {held} held USING (id, number, digest) ORDER BY at"
            )
            asked = [
                [holdable(one.id) for one in positions],
                [one.number for one in positions],
                [one.digest for one in positions],
            ]
            return [is_there for (is_there,) in _ask(session, statement, *asked)]

    def positions(self, above: int = 0) -> Iterator[Position]:
        """What it holds with numbers above this one, in their order; memory stays flat.

        The server sorts them once, and keeps them for the session.
        """
        cursor = f"positions_{secrets.token_hex(8)}"
        with self._connected() as session:
            if session.target is None or session.target.table is None:
                return
            _ask(
                session,
                f"DECLARE {cursor} CURSOR WITH HOLD FOR SELECT number, id, digest FROM {{held}} "
                "held WHERE number > %s AND digest IS NOT NULL ORDER BY number",
                above,
            )
        connection = session.connection
        try:
            while page := self._fetch(cursor):
                for number, id, digest in page:
                    yield Position(number, restored(id), digest)
        finally:
            with suppress(psycopg.Error):  # the session is gone, and the cursor with it
                connection.execute(f"CLOSE {cursor}".encode())

    def _fetch(self, cursor: str) -> list[TupleRow]:
        with self._connected() as session:
            return session.connection.execute(f"FETCH {_PAGE} FROM {cursor}".encode()).fetchall()

    def tombstones(self, above: int) -> Iterator[Position]:
        """Those with higher numbers, as far as it remembers."""
        with self._connected() as session:
            found = session.ledger.tombstones(session.state, above) if session.state else iter(())
            return iter(list(found))

    def finish(self) -> None:
        """Make the index if there is none; say how many vectors found no row."""
        if self._unmatched:
            logger.warning("%s: %s vectors found no row", self, f"{self._unmatched:,}")
            self._unmatched = 0
        with self._connected() as session:
            target = session.target
            if target is not None and target.table is not None:
                place = (session.schema, self._table)
                Index(session.connection, place, target.table, target.column, str(self)).make()

    def _tell(self, unmatched: Sequence[str], replaced: str) -> None:
        """Say once what could not be written as it is."""
        if unmatched and not self._unmatched:
            logger.warning(
                "%s: no row has the key %r: its vector is not stored there, nor are others without "
                "a row",
                self,
                unmatched[0],
            )
        self._unmatched += len(unmatched)
        if replaced and not self._is_told:
            self._is_told = True
            logger.warning(
                "%s: the id, the text or the meta of %r has a character that PostgreSQL cannot "
                "hold: it is written as ␀ and its code, as ␀0000 for U+0000",
                self,
                replaced,
            )

    # Sessions

    @contextmanager
    def _connected(self) -> Iterator[_Session]:
        """A session, a new one after an error. With the lock, while this export has it."""
        try:
            if self._session is None:
                self._session = self._connect()
            yield self._session
        except psycopg.Error as error:
            is_new = self._session is None
            self._close()
            raise self._address.told(error, str(self), is_new=is_new) from None
        except BaseException:
            self._close()
            raise

    def _connect(self) -> _Session:
        connection = self._address.connect()
        try:
            return self._prepare(connection)
        except BaseException:
            connection.close()
            raise

    def _prepare(self, connection: Connection[TupleRow]) -> _Session:
        catalog = Catalog(connection)
        schema = self._address.schema or catalog.schema_of(self._table)
        ledger = Ledger(connection, schema, (self._table, self._column or ""))
        if self._run:
            self._lock(connection, ledger, f"{schema}\0{self._table}\0{self._column or ''}")
            catalog.check_encoding()
            catalog.types()
            ledger.make()
            ledger.begin(self.collection, self._run)
        state = ledger.read()
        target: Target | None = None
        if self._column is None:
            target = Table(connection, schema, self._table)
        elif state is not None:
            place = (schema, self._table, self._column, self._key)
            target = ColumnOf(connection, *place, state.sink)
        session = _Session(connection, ledger, schema, state, target)
        if self._run and state is not None and state.vectors and _is_empty(session):
            # Someone dropped or emptied the table: what Redis has is written again.
            session = self._renew(session, state.life, state.layout)
        return session

    def _lock(self, connection: Connection[TupleRow], ledger: Ledger, name: str) -> None:
        """Take the lock of the sink. Raises SinkAway while our own broken session has it."""
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        taken = f"another vec export writes {self.collection} to {self}"
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'".encode())
                connection.execute("SELECT pg_advisory_lock(%s)", [key])
        except psycopg.errors.LockNotAvailable:
            if self._is_begun and self._is_ours(ledger):
                raise SinkAway(f"{self}: the server still has our broken session") from None
            raise ExportError(taken) from None
        if self._is_begun and not self._is_ours(ledger):
            raise ExportError(taken)

    def _is_ours(self, ledger: Ledger) -> bool:
        state = ledger.read()
        return state is not None and state.run == self._run

    def _renew(self, session: _Session, life: bytes | None, layout: str) -> _Session:
        session.ledger.renew(_known(session.state), life, layout)
        self._session = session._replace(state=session.ledger.read())
        return self._session

    def _fenced(
        self, session: _Session, vectors: int = 0, tombstones: int = 0
    ) -> tuple[State, Target, int]:
        """What a transaction writes to, after it noted how far it goes. Raises ExportError.

        And the number up to which tombstones are heeded.
        """
        state, target = _known(session.state), session.target
        assert target is not None
        heeded = session.ledger.advance(state, vectors, tombstones)
        if heeded is None:
            raise ExportError(f"another vec export took over {self}: let one write at a time")
        return state, target, heeded

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.connection.close()


def _known(state: State | None) -> State:
    """The state of a sink that is locked."""
    assert state is not None, "it is written to while it is locked"
    return state


def _is_empty(session: _Session) -> bool:
    """Whether no vector is there."""
    target = session.target
    return (
        target is None
        or target.table is None
        or not _ask(session, "SELECT 1 FROM {held} held LIMIT 1")
    )


def _ask(session: _Session, statement: str, *values: object) -> list[TupleRow]:
    """The rows that a query of what the sink holds gives."""
    assert session.target is not None
    composed = sql.SQL(statement).format(held=session.target.held)
    return run(session.connection, composed, *values)
