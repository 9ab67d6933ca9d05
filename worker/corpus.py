"""A corpus: a file of texts, read as a stream of jobs and rejections.

`.jsonl`, `.ndjson`, `.csv`, `.tsv` and `.txt` (a text a line), each also with `.gz`; `.parquet`;
and `-` for standard input as JSON lines. What keeps the whole file from being read raises
CorpusError when it is opened. After that nothing raises: a record that cannot become a job
becomes a Rejection with its line number, and the next record is read. Every line is a job, a
rejection, or blank.

Memory does not grow with the file, nor with one line of it: no more than MAX_LINE_BYTES of a line
are held, and parquet is read a thousand rows at a time.

JSON lines have two readers. The quick one takes the ordinary record, and whatever it does not
like goes to the careful one, which alone decides what is wrong with a line. orjson, where
installed, makes the quick one quick; it reads whole numbers above 64 bits as floats, so the
careful one never uses it.

Tables keep the quoting rules of CSV to the letter, with commas or tabs: a quote that is never
closed costs the line it stands on, not the rest of the file. Where a line of a `.tsv` breaks
those rules but has the right number of tabs, its quotes are taken as text, as many programs that
write `.tsv` mean it.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import re
import stat
import sys
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Callable, NamedTuple, Union, cast

from vector_embed_client.http import text_fault
from worker.job import Job, Rejection, default_id

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]  # it ships no types

try:
    import orjson

    _loads: Callable[[bytes], object] | None = orjson.loads
except ImportError:
    _loads = None

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_ID_BYTES = 1024
_SHORT_ID = MAX_ID_BYTES // 4  # characters that are never more bytes
MAX_META_BYTES = 100_000  # of the kept fields as JSON: jobs are queued a thousand at a time
MAX_META_DEPTH = 100  # JSON encoders give up at 254
_RAW_CHARACTERS = 1000
_UNCLOSED = "a quoted field that begins here is not closed"
_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet")
_PARQUET_ROWS = 1024
_READ_BYTES = 128 * 1024  # more is slower: the lines leave the processor's cache


class CorpusError(ValueError):
    """The corpus cannot be read at all. One line: what, which file, what to do."""


class Corpus:
    """One file of texts, opened; iterate over it once.

    `text_field` and `id_field` name the JSON field or the column. An `id_field` that is given must
    be a column of the table; left out it is "id", where there is one. `keep` names fields to keep
    as meta. A `.txt` has no fields: its ids are the hashes of its texts.

    Raises CorpusError, when made, for what keeps the file from being read.
    """

    def __init__(
        self,
        path: str,
        *,
        text_field: str = "text",
        id_field: str | None = None,
        keep: Sequence[str] = (),
    ) -> None:
        self.path = path
        fields = _Fields(text_field, id_field or "id", id_field is not None, tuple(keep))
        _, suffix, packed = _split(path)
        self.name = collection_name(path)
        self.size: int | None = None  # bytes, as compressed; None where it cannot be known
        self._source: _Input | _Parquet
        self._records: Iterator[Job | Rejection] | None
        file = _open(path)
        try:
            status = os.fstat(file.fileno()) if path != "-" else None
            if status is not None and stat.S_ISREG(status.st_mode):
                self.size = status.st_size
            if suffix == ".parquet":
                self._source = _Parquet(file, path, self.size, fields)
                self._records = iter(self._source)
            else:
                self._source = _Input(file, path, packed)
                self._records = _records(suffix, _blocks(self._source), path, fields)
        except BaseException:
            if path != "-":
                file.close()
            raise

    @property
    def position(self) -> int:
        """How many bytes of the (compressed) file have been read."""
        return self._source.position

    def __iter__(self) -> Iterator[Job | Rejection]:
        records, self._records = self._records, None
        if records is None:
            raise CorpusError(f"{_shown(self.path)} was read already: open it again")
        return records

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        self._source.close()

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stem(path: str) -> str:
    """The file's name without its directory and suffixes: `wiki` of `data/wiki.jsonl.gz`."""
    return _split(path)[0]


def collection_name(path: str) -> str:
    """The collection that a corpus goes to where none is named."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", stem(path))[:100]


class _Fields(NamedTuple):
    text: str
    id: str
    id_required: bool
    keep: tuple[str, ...]


# A line's number, from 1, and the line without its newline; or why there is none.
_Line = Union[tuple[int, bytes], Rejection]
# The number of the first of some lines, and these; or why there are none.
_Block = Union[tuple[int, list[bytes]], Rejection]


# --- Opening


def _split(path: str) -> tuple[str, str, bool]:
    """Stem, suffix in lower case, and whether it is gzip."""
    if path == "-":
        return "stdin", ".jsonl", False
    stem, suffix = os.path.splitext(os.path.basename(path))
    packed = suffix.lower() == ".gz"
    if packed:
        stem, suffix = os.path.splitext(stem)
    suffix = suffix.lower()
    if os.path.isdir(path):
        raise CorpusError(f"{_shown(path)} is a directory: name the file in it")
    if suffix not in _SUFFIXES:
        raise CorpusError(
            f"{_shown(path)}: unknown kind of file: name it {', '.join(_SUFFIXES)}"
            " (or one of the texts with .gz), or pipe it in as JSON lines with -"
        )
    if packed and suffix == ".parquet":
        raise CorpusError(
            f"{_shown(path)}: parquet cannot be read through gzip (it is packed inside): gunzip it"
        )
    return stem, suffix, packed


def _open(path: str) -> BinaryIO:
    if path == "-":
        if sys.stdin is None:
            raise CorpusError("standard input is closed: name a file instead of -")
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise CorpusError(f"{_shown(path)} does not exist: check the name") from None
    except PermissionError:
        raise CorpusError(f"{_shown(path)} may not be read: check its permissions") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{_shown(path)} cannot be opened: {error}") from None


def _shown(path: str) -> str:
    """The path in characters that every terminal takes."""
    return "standard input" if path == "-" else path.encode(errors="replace").decode()


# --- Bytes to lines


class _Input:
    """The bytes of a file, decompressed. A fault in them is an end with a reason, not an exception,
    so that all before it counts."""

    def __init__(self, file: BinaryIO, path: str, packed: bool) -> None:
        self.position = 0  # in the file as it is stored
        self.fault: str | None = None
        self._file = file
        self._borrowed = path == "-"
        self._packed: gzip.GzipFile | None = None
        if packed:
            if not cast(io.BufferedReader, file).peek(2).startswith(b"\x1f\x8b"):
                raise CorpusError(f"{_shown(path)} is not gzip data: name it without .gz")
            self._packed = gzip.GzipFile(fileobj=file, mode="rb")
        self._ahead = self._next()
        if self._ahead.startswith(b"\x1f\x8b"):
            raise CorpusError(f"{_shown(path)} is gzip data: unpack it, or add .gz to its name")
        if self._ahead.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
            raise CorpusError(f"{_shown(path)} is UTF-16 or UTF-32: convert it to UTF-8")
        self._ahead = self._ahead.removeprefix(codecs.BOM_UTF8)

    def read(self) -> bytes:
        """The next bytes, at most _READ_BYTES; none at the end or at a fault."""
        if self._ahead:
            ahead, self._ahead = self._ahead, b""
            return ahead
        return self._next()

    def _next(self) -> bytes:
        if self.fault is not None:
            return b""
        try:
            if self._packed is None:
                data = cast(io.BufferedReader, self._file).read1(_READ_BYTES)
                self.position += len(data)
            else:
                data = self._packed.read1(_READ_BYTES)
                self.position = self._file.tell()
        except EOFError:
            self.fault = "the gzip file ends early: the rest is missing, fetch it again"
        except (gzip.BadGzipFile, zlib.error) as error:
            self.fault = f"the gzip data is damaged from here on ({error}): fetch it again"
        except OSError as error:
            self.fault = f"the file cannot be read any further: {error.strerror or error}"
        else:
            return data
        return b""

    def close(self) -> None:
        if not self._borrowed:
            self._file.close()


def _blocks(source: _Input) -> Iterator[_Block]:
    """The physical lines, as many at a time as were read. One too long, and the place where the
    data breaks off, are rejections."""
    number = 1
    parts: list[bytes] = []  # of the line whose end has not been seen
    size = (
        0  # of the parts; once it is too large they are dropped, and the rest of the line as well
    )
    while data := source.read():
        if b"\n" in data:
            *lines, rest = b"".join([*parts, data]).split(b"\n")
            # Only the first can be too long: the others came in one piece.
            if size > MAX_LINE_BYTES:
                lines, number = lines[1:], number + 1
            elif len(lines[0]) > MAX_LINE_BYTES:
                yield _too_long(number, lines[0])
                lines, number = lines[1:], number + 1
            if lines:
                yield number, lines
            number += len(lines)
            parts, size = [], 0
            data = rest
        if size <= MAX_LINE_BYTES:
            parts.append(data)
            size += len(data)
            if size > MAX_LINE_BYTES:
                yield _too_long(number, parts[0])
                parts = []
    if size > MAX_LINE_BYTES:
        number += 1
    rest = b"".join(parts)
    if source.fault is not None:
        yield Rejection(number, None, source.fault, _raw(rest))
    elif rest:
        yield number, [rest]


def _too_long(number: int, line: bytes) -> Rejection:
    return Rejection(number, None, f"the line is longer than {MAX_LINE_BYTES:,} bytes", _raw(line))


def _lines(blocks: Iterator[_Block]) -> Iterator[_Line]:
    for block in blocks:
        if isinstance(block, Rejection):
            yield block
        else:
            yield from enumerate(block[1], block[0])


# --- Lines to records


def _records(
    suffix: str, blocks: Iterator[_Block], path: str, fields: _Fields
) -> Iterator[Job | Rejection]:
    if suffix == ".txt":
        return _plain_text(_lines(blocks))
    if suffix in (".csv", ".tsv"):
        # Reads the header at once: without its columns there is nothing to read.
        return iter(_Table(_lines(blocks), "\t" if suffix == ".tsv" else ",", path, fields))
    return _json_lines(blocks, fields)


def _plain_text(lines: Iterator[_Line]) -> Iterator[Job | Rejection]:
    for item in lines:
        if isinstance(item, Rejection):
            yield item
            continue
        number, line = item
        if not line or line.isspace():
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            yield Rejection(number, None, _not_utf8(error), _raw(line))
            continue
        yield _judge(number, None, text.removesuffix("\r"), {}, line)


def _json_lines(blocks: Iterator[_Block], fields: _Fields) -> Iterator[Job | Rejection]:
    text_field, id_field, _, keep = fields
    loads = None if keep else _loads
    for block in blocks:
        if isinstance(block, Rejection):
            yield block
            continue
        for number, line in enumerate(block[1], block[0]):
            if loads is not None:
                try:
                    record = loads(line)
                    text = record[text_field]  # type: ignore[index]  # where it is no object, the
                    given = record.get(id_field)  # type: ignore[attr-defined]  # careful one decides
                except (ValueError, TypeError, KeyError):
                    pass
                else:
                    if text_fault(text) is None:
                        if type(given) is str:
                            if 0 < len(given) <= _SHORT_ID:
                                yield Job(given, text)
                                continue
                        elif given is None:
                            yield Job(default_id(text), text)
                            continue
                        elif type(given) is int:
                            yield Job(str(given), text)
                            continue
            decided = _careful(number, line, fields)
            if decided is not None:
                yield decided


def _careful(number: int, line: bytes, fields: _Fields) -> Job | Rejection | None:
    """What a line of JSON is: a job, a rejection with its reason, or None for a blank line."""
    if not line or line.isspace():
        return None
    try:
        record = json.loads(line.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return Rejection(number, None, _not_utf8(error), _raw(line))
    except json.JSONDecodeError as error:
        reason = f"malformed JSON: {error.msg} (character {error.pos + 1})"
        return Rejection(number, None, reason, _raw(line))
    except ValueError as error:  # a constant, or a whole number of thousands of digits
        return Rejection(number, None, f"malformed JSON: {error}", _raw(line))
    except RecursionError:
        return Rejection(number, None, "malformed JSON: nested too deeply", _raw(line))
    if not isinstance(record, dict):
        return Rejection(number, None, f"not a JSON object but {_kind(record)}", _raw(line))
    if fields.text not in record:
        given, fault = _read_id(record.get(fields.id))
        return Rejection(number, given, fault or f"no field {fields.text!r}", _raw(line))
    meta = {name: record[name] for name in fields.keep if name in record}
    return _judge(number, record.get(fields.id), record[fields.text], meta, line)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class _Table:
    """The rows of a CSV or TSV file. Raises CorpusError when the header lacks a column."""

    def __init__(self, lines: Iterator[_Line], delimiter: str, path: str, fields: _Fields) -> None:
        # In a .tsv a line of tabs alone is a row of empty fields.
        self._feed = _Feed(lines, b" \r\v\f" if delimiter == "\t" else b" \t\r\v\f")
        self._rows = csv.reader(self._feed, delimiter=delimiter, strict=True)
        self._literal = delimiter == "\t"
        columns = self._header(path)
        where = _shown(path)
        self._width = len(columns)
        self._text = _column(where, columns, fields.text, "--text-field")
        known = fields.id in columns or fields.id_required
        self._id = _column(where, columns, fields.id, "--id-field") if known else None
        self._keep = [(name, _column(where, columns, name, "--keep")) for name in fields.keep]

    def _header(self, path: str) -> list[str]:
        where = _shown(path)
        try:
            row = next(self._rows)
        except StopIteration:
            raise CorpusError(f"{where} is empty: its first line must name the columns") from None
        except _Broken as broken:
            raise CorpusError(f"{where}: the header cannot be read: {broken.item.reason}") from None
        except csv.Error as error:
            raise CorpusError(f"{where}: the header cannot be read: {error}") from None
        if self._feed.undecodable is not None:
            raise CorpusError(
                f"{where}: the header is {self._feed.undecodable}: convert the file to UTF-8"
            )
        return row

    def __iter__(self) -> Iterator[Job | Rejection]:
        feed, rows = self._feed, self._rows
        while True:
            feed.begin()
            try:
                row = next(rows)
            except StopIteration:
                return
            except _Broken as broken:
                if not feed.taken:
                    yield broken.item
                    continue
                feed.give_back(broken.item)
                yield self._first_line(_UNCLOSED)
                continue
            except csv.Error as error:
                unclosed = len(feed.taken) > 1 or "unexpected end" in str(error)
                yield self._first_line(_UNCLOSED if unclosed else str(error))
                continue
            number = feed.taken[0][0]
            if feed.undecodable is not None:
                yield Rejection(number, None, feed.undecodable, _raw(feed.raw()))
                continue
            yield self._record(number, row)

    def _first_line(self, reason: str) -> Job | Rejection:
        """What becomes of a record that breaks the rules: its first line is decided alone, the
        others are read again."""
        feed = self._feed
        number, line = feed.taken[0]
        feed.give_back()
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            return Rejection(number, None, _not_utf8(error), _raw(line))
        if self._literal:
            row = text.removesuffix("\r").split("\t")
            if len(row) == self._width:
                return self._record(number, row)
        if reason.startswith("new-line"):
            reason = "a carriage return outside quotes"
        return Rejection(number, None, f"malformed row: {reason}", _raw(line))

    def _record(self, number: int, row: Sequence[str]) -> Job | Rejection:
        if len(row) != self._width:
            reason = f"the row has {len(row)} fields and the header {self._width}"
            return Rejection(number, None, reason, _raw(self._feed.raw()))
        meta = {name: row[index] for name, index in self._keep}
        given = None if self._id is None else row[self._id]
        return _judge(number, given, row[self._text], meta, self._feed.raw())


class _Broken(Exception):
    """Raised through the csv reader where there is no line to give it."""

    def __init__(self, item: Rejection) -> None:
        super().__init__(item.reason)
        self.item = item


class _Feed:
    """The lines for the csv reader, without blank ones between records. It remembers those of the
    present record, so that they can be read again when the record turns out to be none."""

    def __init__(self, lines: Iterator[_Line], blank: bytes) -> None:
        self._lines = lines
        self._blank = blank  # the characters of a blank line
        self._again: deque[_Line] = deque()
        self.begin()

    def begin(self) -> None:
        """A new record begins with the next line."""
        self.taken: list[tuple[int, bytes]] = []
        self.undecodable: str | None = None  # why, where a line of the record is not UTF-8
        self._room = MAX_LINE_BYTES

    def give_back(self, *after: Rejection) -> None:
        """Let all lines of the record but the first, and then `after`, be read again."""
        self._again.extendleft(reversed([*self.taken[1:], *after]))
        del self.taken[1:]

    def raw(self) -> bytes:
        """The record as read."""
        return b"\n".join([line for _, line in self.taken])

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        while True:
            item = self._again.popleft() if self._again else next(self._lines)
            if isinstance(item, Rejection):
                raise _Broken(item)
            if self.taken or item[1].strip(self._blank):
                break
        self.taken.append(item)
        line = item[1]
        self._room -= len(line)
        if self._room < 0:
            raise csv.Error(f"the record is longer than {MAX_LINE_BYTES:,} bytes")
        try:
            return line.decode() + "\n"
        except UnicodeDecodeError as error:
            self.undecodable = self.undecodable or _not_utf8(error)
            return line.decode(errors="surrogateescape") + "\n"


def _column(where: str, columns: Sequence[str], name: str, option: str) -> int:
    """The index of the column of that name."""
    if columns.count(name) == 1:
        return columns.index(name)
    shown = ", ".join(map(repr, columns[:20])) + (", ..." if len(columns) > 20 else "")
    if name in columns:
        raise CorpusError(f"{where} has more than one column {name!r}: rename one of {shown}")
    raise CorpusError(f"{where} has no column {name!r}: name one of {shown} with {option}")


# --- Parquet


class _Parquet:
    """The rows of a parquet file. Raises CorpusError when a column is missing or of no use."""

    def __init__(self, file: BinaryIO, path: str, size: int | None, fields: _Fields) -> None:
        try:
            import pyarrow
            import pyarrow.parquet  # type: ignore[import-untyped]
        except ImportError:
            raise CorpusError(
                f"{_shown(path)}: reading parquet needs pyarrow:"
                ' pip install "vector-embed-cache-client[parquet]"'
            ) from None
        self.position = 0
        self._file = file
        self._size = size or 0
        self._failures = (pyarrow.ArrowException, OSError, ValueError)
        try:
            # Without read-ahead: it would hold a whole row group in memory.
            self._table = pyarrow.parquet.ParquetFile(
                file, pre_buffer=False, buffer_size=_READ_BYTES
            )
        except self._failures as error:
            raise CorpusError(
                f"{_shown(path)} cannot be read as parquet: {_one_line(error)}"
            ) from None
        self._rows = self._table.metadata.num_rows
        self._text, self._id = fields.text, fields.id
        self._keep = fields.keep
        self._cast: set[str] = set()
        self._check(path, fields)

    def _check(self, path: str, fields: _Fields) -> None:
        import pyarrow

        where, types, schema = _shown(path), pyarrow.types, self._table.schema_arrow
        self._columns = [self._text, *self._keep]

        def column(name: str, option: str) -> pyarrow.DataType:
            return schema.types[_column(where, schema.names, name, option)]

        kind = column(self._text, "--text-field")
        if not _is_text(kind):
            raise CorpusError(
                f"{where}: column {self._text!r} is {kind}, not text: name one with --text-field"
            )
        if fields.id_required or self._id in schema.names:
            kind = column(self._id, "--id-field")
            if not (_is_text(kind) or types.is_integer(kind) or types.is_null(kind)):
                raise CorpusError(
                    f"{where}: column {self._id!r} is {kind}, and ids are strings or whole numbers:"
                    " convert it, or name another with --id-field"
                )
            self._columns.append(self._id)
        for name in self._keep:
            kind = column(name, "--keep")
            if types.is_temporal(kind) or types.is_decimal(kind):
                self._cast.add(name)
            elif not _is_json(kind):
                raise CorpusError(
                    f"{where}: column {name!r} is {kind}, which JSON cannot hold: do not --keep it"
                )

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Job | Rejection]:
        number = 0
        batches = self._table.iter_batches(
            _PARQUET_ROWS, columns=list(dict.fromkeys(self._columns))
        )
        while True:
            try:
                batch = next(batches, None)
            except self._failures as error:
                reason = f"the file cannot be read from this row on: {_one_line(error)}"
                yield Rejection(number + 1, None, reason, "")
                return
            if batch is None:
                return
            columns = [self._values(batch, name) for name in batch.schema.names]
            for values in zip(*columns):
                number += 1
                yield self._record(number, dict(zip(batch.schema.names, values)))
            self.position = self._size * number // self._rows

    def _values(self, batch: pyarrow.RecordBatch, name: str) -> list[object]:
        import pyarrow

        column = batch.column(name)
        if name in self._cast:
            column = column.cast(pyarrow.string())
        try:
            values: list[object] = column.to_pylist()
        except self._failures:  # text that is not UTF-8: find which
            values = [self._value(cell) for cell in column]
        return values

    def _value(self, cell: pyarrow.Scalar) -> object:
        try:
            return cell.as_py()
        except self._failures as error:
            return _Unreadable(_one_line(error))

    def _record(self, number: int, row: Mapping[str, object]) -> Job | Rejection:
        for name, value in row.items():
            if isinstance(value, _Unreadable):
                return Rejection(
                    number, None, f"column {name!r} cannot be read: {value.reason}", _raw(row)
                )
        # pandas writes a missing number as NaN.
        meta = {name: None if row[name] != row[name] else row[name] for name in self._keep}
        return _judge(number, row.get(self._id), row[self._text], meta, row)


class _Unreadable(NamedTuple):
    reason: str


def _is_text(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_json(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_struct(kind):
        return all(_is_json(kind.field(index).type) for index in range(kind.num_fields))
    number = types.is_integer(kind) or types.is_floating(kind)
    return bool(number or types.is_boolean(kind) or types.is_null(kind) or _is_text(kind))


# --- What a record must be


def _judge(
    number: int,
    given: object,
    text: object,
    meta: Mapping[str, object],
    record: bytes | Mapping[str, object],
) -> Job | Rejection:
    """The job of a record, or why it is none. `given` is its id, None where it has none."""
    id, fault = _read_id(given)
    if fault is None and (reason := text_fault(text)) is not None:
        fault = f"text: {reason}"
    if fault is None and meta:
        fault = _meta_fault(meta)
    if fault is not None:
        return Rejection(number, id, fault, _raw(record))
    text = cast(str, text)
    return Job(default_id(text) if id is None else id, text, meta or None)


def _read_id(given: object) -> tuple[str | None, str | None]:
    """The id, and what is wrong with it. Both None: there is none."""
    if given is None:
        return None, None
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str):
        return None, f"id: neither a string nor a whole number but {_kind(given)}"
    if not given:
        return None, "id: empty"
    try:
        size = len(given.encode())
    except UnicodeEncodeError as error:
        return None, f"id: an unpaired surrogate at character {error.start + 1}"
    if size > MAX_ID_BYTES:
        return None, f"id: {size:,} bytes, more than {MAX_ID_BYTES:,}"
    return given, None


def _meta_fault(meta: Mapping[str, object]) -> str | None:
    try:
        size = len(json.dumps(meta, ensure_ascii=False, allow_nan=False).encode())
        deep = _depth(meta) > MAX_META_DEPTH
    except UnicodeEncodeError:
        return "kept fields: an unpaired surrogate"
    except ValueError:
        return "kept fields: a number that is not finite"
    except RecursionError:
        size, deep = 0, True
    if deep:
        return f"kept fields: nested more than {MAX_META_DEPTH} deep"
    if size > MAX_META_BYTES:
        return f"kept fields: {size:,} bytes, more than {MAX_META_BYTES:,}"
    return None


def _depth(value: object) -> int:
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _raw(record: bytes | Mapping[str, object]) -> str:
    """The record for a person to recognise, cut to a sensible length."""
    if not isinstance(record, bytes):
        record = json.dumps(record, default=str).encode()
    shown = record[: 4 * _RAW_CHARACTERS].decode(errors="replace")
    return shown.removesuffix("\r")[:_RAW_CHARACTERS]


def _kind(value: object) -> str:
    """What a JSON value is called."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 at byte {error.start + 1}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
