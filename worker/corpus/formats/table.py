"""A table: CSV or TSV, whose first line has the names of the columns.

The quoting rules of CSV are followed strictly, with commas or tabs: a quote that is never closed
costs its line, not the rest of the file. If a line of a `.tsv` breaks these rules but has the right
number of tabs, its quotes are taken as text, because many programs write `.tsv` like that. An empty
id means that there is no id: a table has no other way to say so.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence

from ...types import Job, Rejection
from ..encoding import decoded
from ..errors import CorpusError, Unfit
from ..fields import Fields
from ..lines import MAX_LINE_BYTES, Line, Lines
from ..reading import Reading
from ..stream import Stream

_DELIMITERS = ",;\t|"
_HELD_BYTES = 32  # of memory, at least, for each line of a row beside its bytes

csv.field_size_limit(MAX_LINE_BYTES)  # in place of 131,072 characters: texts may be longer


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of each row. Raises CorpusError."""
    delimiter = reading.delimiter or ("\t" if stream.suffix == ".tsv" else ",")
    lines = Lines(stream, reading.encoding)
    return iter(Table(lines, delimiter, stream.name, reading.fields))


class Table:
    """The rows of a CSV or TSV file. Raises CorpusError when the header lacks a column."""

    def __init__(self, lines: Lines, delimiter: str, where: str, fields: Fields) -> None:
        self._tabs = delimiter == "\t"
        # In a .tsv a line of tabs alone is a row of empty fields.
        self._feed = _Feed(lines, b" \t\r\v\f".replace(delimiter.encode(), b""))
        self._rows = csv.reader(self._feed, delimiter=delimiter, strict=True)
        self._width = 0  # no row has this width: the header itself must follow the rules
        names: Sequence[str] = ()
        try:
            names = self._header(where)
            self._columns = fields.columns(names, where)
        except CorpusError:
            wanted, header = set(fields.text.names), self._feed.raw()
            for other in _DELIMITERS.replace(delimiter, ""):
                if not wanted <= set(names) and wanted <= _names(header, other):
                    raise CorpusError(
                        f"{where} has {other!r} between its columns: add --delimiter {other!r}"
                    ) from None
            raise
        self._width = len(names)

    def _header(self, where: str) -> Sequence[str]:
        begun = self._feed.begin()
        if begun is None:
            raise CorpusError(f"{where} is empty: its first line must name the columns")
        if isinstance(begun, Rejection):
            reason = begun.reason
        else:
            try:
                return self._row()
            except Unfit as unfit:
                reason = unfit.reason
        raise CorpusError(f"{where}: the header cannot be read: {reason}")

    def __iter__(self) -> Iterator[Job | Rejection]:
        feed = self._feed
        while (begun := feed.begin()) is not None:
            if isinstance(begun, Rejection):
                yield begun
                continue
            try:
                yield self._job(self._row())
            except Unfit as unfit:
                yield unfit.rejection(begun[0], feed.raw())

    def _row(self) -> Sequence[str]:
        """The fields of the row that was begun. Raises Unfit.

        If it breaks the rules, only its first line is used up, and the others are read again.
        """
        feed = self._feed
        try:
            row = next(self._rows)
        except csv.Error as error:
            reason = str(error)
            if len(feed.taken) > 1 or "unexpected end" in reason:
                reason = "a quoted field that begins here is not closed"
            elif reason.startswith("new-line"):
                reason = "a carriage return outside quotes"
            feed.give_back()
            row = decoded(feed.raw()).removesuffix("\r").split("\t")
            if not self._tabs or len(row) != self._width:
                raise Unfit(f"malformed row: {reason}") from None
        else:
            if feed.undecodable is not None:
                raise Unfit(feed.undecodable)
        return row

    def _job(self, row: Sequence[str]) -> Job:
        if len(row) != self._width:
            raise Unfit(f"the row has {len(row)} fields and the header {self._width}")
        id = self._columns.id
        given: list[object] = list(row)
        if id is not None and not given[id]:
            given[id] = None
        return self._columns.job(given)


def _names(header: bytes, delimiter: str) -> set[str]:
    """The names of the columns, if this is between them."""
    lines = header.decode(errors="replace").splitlines(keepends=True)
    try:
        return set(next(csv.reader(lines, delimiter=delimiter, strict=True), ()))
    except csv.Error:
        return set()


class _Feed:
    """The lines of a table for the csv reader. It can read the lines of a broken row again."""

    def __init__(self, lines: Lines, blank: bytes) -> None:
        self._lines = iter(lines)
        self._again: deque[Line] = deque()
        self._blank = blank  # the characters of a blank line
        self.taken: list[tuple[int, bytes]] = []
        self.undecodable: str | None = None  # why, if a line of the row is not UTF-8

    def begin(self) -> Line | None:
        """The first line of the next row, or why it cannot be read. None at the end."""
        self.taken, self.undecodable, self._room = [], None, MAX_LINE_BYTES
        while (item := self._next()) is not None:
            if isinstance(item, Rejection):
                return item
            if item[1].strip(self._blank):
                self._again.appendleft(item)
                return item
        return None

    def give_back(self) -> None:
        """Read all lines of the row but the first one again."""
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def raw(self) -> bytes:
        """The row as read."""
        return b"\n".join([line for _, line in self.taken])

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        """The next line of the row. If there is none, the csv reader reports an open quote."""
        item = self._next()
        if item is None:
            raise StopIteration
        if isinstance(item, Rejection) or len(item[1]) > self._room:
            self._again.appendleft(item)
            raise StopIteration
        self.taken.append(item)
        line = item[1]
        self._room -= len(line) + _HELD_BYTES
        try:
            return decoded(line) + "\n"
        except Unfit as unfit:  # the row is rejected, but must be read to its end
            self.undecodable = self.undecodable or unfit.reason
            return line.decode(errors="surrogateescape") + "\n"

    def _next(self) -> Line | None:
        return self._again.popleft() if self._again else next(self._lines, None)
