"""Rows of Arrow data: typed columns, nested ones by dots, to jobs. Needs pyarrow.

Texts may be binary, and are UTF-8 then. Ids may be text, whole numbers, decimals or UUIDs. Kept
columns are what JSON can hold; times and decimals are kept as text, and missing numbers, which
pandas writes as NaN, as null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy
import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.compute  # type: ignore[import-untyped]
from pyarrow import types

from ..types import Job, Rejection
from .errors import CorpusError, Unfit, one_line
from .fields import Fields, field_text
from .lines import MAX_LINE_BYTES

FAILURES = (pyarrow.ArrowException, OSError, ValueError, MemoryError)
ROWS = 1024  # that become Python values together
HELD_BYTES = MAX_LINE_BYTES  # of their texts, and no more than these
_DEPTH = 50
_LISTS = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")


class Rows:
    """The wanted columns of a schema. Raises CorpusError if one is missing or cannot be used."""

    def __init__(self, schema: pyarrow.Schema, fields: Fields, where: str) -> None:
        self._where = where
        paths = [path for field in schema for path in _paths(field, (), 0)]
        depths: dict[str, int] = {}  # a dot leads into a column, unless one has it in its name
        for path, _ in paths:
            name = ".".join(path)
            depths[name] = min(len(path), depths.get(name, len(path)))
        paths = [path for path in paths if len(path[0]) == depths[".".join(path[0])]]
        names = [".".join(path) for path, _ in paths]
        found = fields.columns(names, where)
        for at in found.text:
            if not (_is_text(paths[at][1]) or _is_binary(paths[at][1])):
                self._refuse(
                    names[at], paths[at][1], f"not text: name one with {fields.text.option}"
                )
        if found.id is not None and not _is_id(kind := paths[found.id][1]):
            self._refuse(
                names[found.id],
                kind,
                "and ids are strings or whole numbers: convert it, or name another with --id-field",
            )
        for name, at in found.keep.items():
            if not (_as_text(paths[at][1]) or _is_json(paths[at][1])):
                self._refuse(name, paths[at][1], "which JSON cannot hold: do not --keep it")
        wanted = [*found.text, *([] if found.id is None else [found.id]), *found.keep.values()]
        wanted = list(dict.fromkeys(wanted))
        self._paths = [paths[at][0] for at in wanted]
        self._kept_as_text = [at in found.keep.values() and _as_text(paths[at][1]) for at in wanted]
        self._columns = found._replace(
            text=[wanted.index(at) for at in found.text],
            id=None if found.id is None else wanted.index(found.id),
            keep={name: wanted.index(at) for name, at in found.keep.items()},
        )
        self.names = [names[at] for at in wanted]  # with dots
        self.top = list(dict.fromkeys(path[0] for path in self._paths))  # columns of the schema

    def _refuse(self, name: str, kind: pyarrow.DataType, why: str) -> None:
        raise CorpusError(f"{self._where}: column {name!r} is {kind}, {why}")

    def lines(self, batch: pyarrow.RecordBatch, number: int) -> Iterator[Job | Rejection]:
        """The job or the rejection of each row. `number` is that of the first, from 1."""
        columns = [column_of(batch, path) for path in self._paths]
        for begin, count in _pieces(columns, batch.num_rows):
            if count == 1 and _bytes([column.slice(begin, 1) for column in columns]) > HELD_BYTES:
                reason = f"the row is longer than {HELD_BYTES:,} bytes"
                yield Unfit(reason).rejection(number + begin, b"")
                continue
            values = [
                self._values(column.slice(begin, count), name, as_text)
                for column, name, as_text in zip(columns, self.names, self._kept_as_text)
            ]
            job = self._columns.job
            for at, row in enumerate(zip(*values), number + begin):
                try:
                    yield job(row)
                except Unfit as unfit:
                    yield unfit.rejection(at, self._shown(row))

    def _values(self, column: pyarrow.Array, name: str, as_text: bool) -> list[object]:
        """The cells of a column; one that cannot be read is an Unfit."""
        kind = column.type
        if as_text:
            column = column.cast(pyarrow.string())
        try:
            values: list[object] = column.to_pylist()
        except FAILURES:  # text that is not UTF-8: find which
            values = [_value(cell, name) for cell in column]
        if _is_binary(kind):
            return [_decoded(value, name) for value in values]
        if types.is_floating(kind):
            return [None if value != value else value for value in values]
        if not as_text and types.is_decimal(kind):
            return [None if value is None else format(value, "f") for value in values]
        if not as_text and isinstance(kind, _UUID):
            return [None if value is None else str(value) for value in values]
        return values

    def _shown(self, row: Sequence[object]) -> bytes:
        cut = [value[:1000] if isinstance(value, str) else value for value in row]
        return json.dumps(dict(zip(self.names, cut)), default=str).encode()


def _paths(
    field: pyarrow.Field, above: tuple[str, ...], depth: int
) -> Iterator[tuple[tuple[str, ...], pyarrow.DataType]]:
    """The names that lead to a field and those in it, each with its type."""
    path = (*above, field.name)
    yield path, field.type
    if types.is_struct(field.type) and depth < _DEPTH:
        for index in range(field.type.num_fields):
            yield from _paths(field.type.field(index), path, depth + 1)


def column_of(batch: pyarrow.RecordBatch, path: Sequence[str]) -> pyarrow.Array:
    """The column to which the names lead."""
    column = batch.column(path[0])
    for name in path[1:]:
        column = pyarrow.compute.struct_field(column, [name])
    if isinstance(column, pyarrow.ExtensionArray) and not isinstance(column.type, _UUID):
        column = column.storage
    return column


def _pieces(columns: Sequence[pyarrow.Array], rows: int) -> Iterator[tuple[int, int]]:
    """Where the rows that are read together begin, and how many there are."""
    waiting = [(begin, min(ROWS, rows - begin)) for begin in range(0, rows, ROWS)][::-1]
    while waiting:
        begin, count = waiting.pop()
        if count > 1 and _bytes([column.slice(begin, count) for column in columns]) > HELD_BYTES:
            half = count // 2
            waiting += [(begin + half, count - half), (begin, half)]
        else:
            yield begin, count


def _bytes(columns: Sequence[pyarrow.Array]) -> int:
    """The bytes of the cells as Python values, more or less: those that are shared count twice."""
    return sum(map(_length, columns))


def _length(column: pyarrow.Array) -> int:
    kind = column.type
    if not (_is_text(kind) or _is_binary(kind)):
        return int(column.nbytes)
    if types.is_dictionary(kind):
        lengths = _lengths(column.dictionary).take(column.indices)
    else:
        lengths = _lengths(column)
    return pyarrow.compute.sum(lengths).as_py() or 0


def _lengths(column: pyarrow.Array) -> pyarrow.Array:
    """The bytes of each text."""
    if not _one_of(column.type, "string_view", "binary_view"):
        return pyarrow.compute.binary_length(column)
    # Of a view, the first of four numbers is its length.
    views = numpy.frombuffer(column.buffers()[1], "<i4").reshape(-1, 4)
    return pyarrow.array(views[column.offset : column.offset + len(column), 0])


def _value(cell: pyarrow.Scalar, name: str) -> object:
    try:
        return cell.as_py()
    except FAILURES as error:
        return Unfit(f"column {name!r} cannot be read: {one_line(error)}")


def _decoded(value: object, name: str) -> object:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        return Unfit(f"column {name!r} cannot be read: not UTF-8 at byte {error.start + 1}")


_UUID = getattr(pyarrow, "UuidType", ())  # since pyarrow 18


def _plain(kind: pyarrow.DataType) -> pyarrow.DataType:
    """The type of the values of a dictionary or an extension."""
    if isinstance(kind, pyarrow.ExtensionType) or hasattr(kind, "storage_type"):
        kind = kind.storage_type
    return kind.value_type if types.is_dictionary(kind) else kind


def _one_of(kind: pyarrow.DataType, *names: str) -> bool:
    kind = _plain(kind)
    return any(getattr(types, f"is_{name}", lambda _: False)(kind) for name in names)


def _is_text(kind: pyarrow.DataType) -> bool:
    return _one_of(kind, "string", "large_string", "string_view")


def _is_binary(kind: pyarrow.DataType) -> bool:
    return _one_of(kind, "binary", "large_binary", "binary_view")


def _is_id(kind: pyarrow.DataType) -> bool:
    if isinstance(kind, _UUID):
        return True
    return _is_text(kind) or _is_binary(kind) or _one_of(kind, "integer", "decimal", "null")


def _as_text(kind: pyarrow.DataType) -> bool:
    return bool(types.is_temporal(kind) or types.is_decimal(kind) or isinstance(kind, _UUID))


def _is_json(kind: pyarrow.DataType, depth: int = 0) -> bool:
    if depth > _DEPTH:
        return False
    if types.is_struct(kind) or _one_of(kind, *_LISTS):
        inner = [kind.field(index).type for index in range(kind.num_fields)]
        return all(_is_json(one, depth + 1) for one in inner)
    return _is_text(kind) or _one_of(kind, "integer", "floating", "boolean", "null")


def table_lines(table: object, *, no_pieces: bool) -> Iterator[Job | Rejection]:
    """The job or the rejection of each row of what is an Arrow stream. All other columns are kept.

    Raises CorpusError if a column is missing or cannot be used.
    """
    try:
        batches = pyarrow.RecordBatchReader.from_stream(table)
    except FAILURES as error:  # of pandas: values of several kinds in one column
        reason = ": ".join(map(str, error.args))
        raise CorpusError(f"texts cannot be read as a table: {reason}: ") from None
    others = (name for name in batches.schema.names if name not in ("id", "text"))
    keep = tuple(name for name in others if not name.startswith("__index_level_"))  # of pandas
    rows = Rows(batches.schema, Fields(field_text("text"), "id", False, keep, no_pieces), "texts")
    return _table_lines(batches, rows)


def _table_lines(batches: pyarrow.RecordBatchReader, rows: Rows) -> Iterator[Job | Rejection]:
    number = 1
    for batch in batches:
        yield from rows.lines(batch, number)
        number += batch.num_rows
