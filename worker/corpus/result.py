"""The result of a query: its rows as jobs and rejections, a few rows in memory at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING

from ..types import Job, Rejection
from .cells import Cells, parsed
from .errors import CorpusError, Unfit
from .reading import Reading
from .sources.query import Query

if TYPE_CHECKING:
    from sqlalchemy import Connection

Row = Sequence[object]
Rows = Generator[Row, None, None]

_FETCHED = 1000  # rows for one message to PostgreSQL
_HELD_BYTES = 16 * 1024 * 1024  # of their texts
_FEW = 16  # rows, of databases that we ask through SQLAlchemy alone
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
# As the database writes them: Python has no year 10,000, no infinite day.
_TIMES = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")


class Result:
    """The rows, once, in the order of the query. Raises CorpusError if there are none to read."""

    size = None  # unknown
    position = 0

    def __init__(self, query: Query, reading: Reading) -> None:
        import sqlalchemy

        self.fault: str | None = None  # why reading ended early
        self._query = query
        self._rows: Rows | None = None
        postgresql = query.url.drivername == "postgresql+psycopg"
        options = {}
        if postgresql:
            options = {"isolation_level": "REPEATABLE READ", "json_deserializer": parsed}
        fields = reading.fields
        with _one_line(query, "cannot connect to the database"):
            engine = sqlalchemy.create_engine(query.url, poolclass=sqlalchemy.NullPool, **options)
            self._connection = engine.connect()
        try:
            with _one_line(query, "the query cannot be run"):
                read = _postgresql if postgresql else _any
                names, self._rows = read(self._connection, query.sql)
            self._cells = Cells(names, fields, query.path)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Job | Rejection]:
        assert self._rows is not None
        number = 1
        while True:
            try:
                row = next(self._rows, None)
            except Exception as error:  # a driver's, and a traceback could show the password
                reason = self._query.reason(error)
                self.fault = f"the rows from this one on cannot be read: {reason}"
                yield Unfit(self.fault).rejection(number, b"")
                return
            if row is None:
                return
            try:
                yield self._cells.job(row)
            except Unfit as unfit:
                yield unfit.rejection(number, self._cells.shown(row))
            number += 1

    @property
    def broken(self) -> bool:
        """Whether the database did not give all rows."""
        return self.fault is not None

    def close(self) -> None:
        """Roll back, and close the connection."""
        with suppress(Exception):  # it may be lost
            if self._rows is not None:
                self._rows.close()  # first: in the middle of rows, the driver locks the connection
            if self.fault is not None:
                self._connection.invalidate()
            self._connection.close()


@contextmanager
def _one_line(query: Query, what: str) -> Iterator[None]:
    """Make one line of the errors of a library, without the password."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # any: a traceback could show the password
        raise CorpusError(f"{what}: {query.reason(error)}") from None


def _postgresql(connection: Connection, sql: str) -> tuple[list[str], Rows]:
    """The names of the columns, and the rows. libpq holds one, however long the others are."""
    driver = connection.execution_options(postgresql_readonly=True).connection.driver_connection
    assert driver is not None
    loader = import_module("psycopg.types.string").TextLoader
    for kind in _TIMES:
        driver.adapters.register_loader(kind, loader)
    cursor = driver.cursor()
    # Binary, because that takes the protocol which refuses several statements.
    cursor.execute(f"DECLARE corpus NO SCROLL CURSOR FOR {sql}", binary=True)
    cursor.execute("FETCH 0 FROM corpus")
    names = [column.name for column in cursor.description]

    def rows() -> Rows:
        asked = _FEW
        while True:
            number = total = size = 0
            held: list[Row] = []
            # They are held, so that the statement's time does not include what is done with them.
            rows = cursor.stream(f"FETCH {asked} FROM corpus")
            for number, row in enumerate(rows, 1):  # noqa: B007  # it is used below
                size += sum(map(_length, row))
                held.append(row)
                if size > _HELD_BYTES:
                    yield from held
                    total, size, held = total + size, 0, []
            yield from held
            if number < asked:
                return
            # The server keeps in a file what one message asks for.
            asked = max(1, min(_FETCHED, _HELD_BYTES * number // (total + size + 1)))

    return names, rows()


def _length(cell: object) -> int:
    if isinstance(cell, (str, bytes)):
        return len(cell)
    return len(str(cell)) if isinstance(cell, (list, dict)) else 0


def _any(connection: Connection, sql: str) -> tuple[list[str], Rows]:
    """The names of the columns, and the rows."""
    statement = _READ_ONLY.get(connection.dialect.name)
    if statement is not None:
        connection.exec_driver_sql(statement)
        connection.rollback()
    if connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.text_factory = _sqlite_text
    result = connection.execution_options(yield_per=_FEW, no_parameters=True).exec_driver_sql(sql)
    cursor = result.cursor
    if cursor is None or cursor.description is None:
        raise CorpusError("--sql gives no rows: write a SELECT")
    return [column[0] for column in cursor.description], (row for row in result)


def _sqlite_text(data: bytes) -> object:
    """Text of SQLite, which may be no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
