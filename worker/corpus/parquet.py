"""Parquet: a table with typed columns, read a thousand rows at a time. Needs pyarrow.

Ids may be text or whole numbers. Kept columns are what JSON can hold; times and decimals are kept
as text, and missing numbers, which pandas writes as NaN, as null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet  # type: ignore[import-untyped]
from pyarrow import types

from ..types import Job, Rejection
from .errors import CorpusError, Unfit, one_line
from .fields import Fields, make_job
from .source import READ_BYTES, Source

_ROWS = 1024
_FAILURES = (pyarrow.ArrowException, OSError, ValueError)


class Parquet:
    """The rows of a parquet file. Raises CorpusError if a column is missing or cannot be used."""

    def __init__(self, source: Source, fields: Fields) -> None:
        self._source = source
        self._fields = fields
        file = source.random_access()
        try:
            # Without read-ahead: it would hold a whole row group in memory.
            self._table = pyarrow.parquet.ParquetFile(
                file, pre_buffer=False, buffer_size=READ_BYTES
            )
        except _FAILURES as error:
            raise CorpusError(
                f"{source.name} cannot be read as parquet: {one_line(error)}"
            ) from None
        self._wanted, self._as_text = self._columns()

    def _columns(self) -> tuple[list[str], set[str]]:
        """The columns to read, and those of them to keep as text."""
        fields, where = self._fields, self._source.name
        schema = self._table.schema_arrow
        columns = fields.columns(schema.names, where)
        wanted, as_text = {fields.text: None}, set()
        kind = schema.types[columns.text]
        if not _is_text(kind):
            raise CorpusError(
                f"{where}: column {fields.text!r} is {kind}, not text: name one with --text-field"
            )
        if columns.id is not None:
            wanted[fields.id] = None
            kind = schema.types[columns.id]
            if not (_is_text(kind) or types.is_integer(kind) or types.is_null(kind)):
                raise CorpusError(
                    f"{where}: column {fields.id!r} is {kind}, and ids are strings or whole"
                    " numbers: convert it, or name another with --id-field"
                )
        for name, index in columns.keep.items():
            wanted[name] = None
            kind = schema.types[index]
            if types.is_temporal(kind) or types.is_decimal(kind):
                as_text.add(name)
            elif not _is_json(kind):
                raise CorpusError(
                    f"{where}: column {name!r} is {kind}, which JSON cannot hold: do not --keep it"
                )
        return list(wanted), as_text

    def __iter__(self) -> Iterator[Job | Rejection]:
        source, rows, number = self._source, self._table.metadata.num_rows, 0
        batches = self._table.iter_batches(_ROWS, columns=self._wanted)
        while True:
            try:
                batch = next(batches, None)
            except _FAILURES as error:
                source.fault = f"the file cannot be read from this row on: {one_line(error)}"
                yield Unfit(source.fault).rejection(number + 1, b"")
                return
            if batch is None:
                return
            names = batch.schema.names
            for values in zip(*[self._values(batch, name) for name in names]):
                number += 1
                row = dict(zip(names, values))
                try:
                    yield self._job(row)
                except Unfit as unfit:
                    yield unfit.rejection(number, json.dumps(row, default=str).encode())
            source.position = (source.size or 0) * number // rows

    def _values(self, batch: pyarrow.RecordBatch, name: str) -> list[object]:
        """The cells of a column; one that cannot be read is an Unfit."""
        column = batch.column(name)
        if name in self._as_text:
            column = column.cast(pyarrow.string())
        try:
            values: list[object] = column.to_pylist()
        except _FAILURES:  # text that is not UTF-8: find which
            values = [_value(cell, name) for cell in column]
        return values

    def _job(self, row: Mapping[str, object]) -> Job:
        for value in row.values():
            if isinstance(value, Unfit):
                raise value
        fields = self._fields
        meta = {name: None if row[name] != row[name] else row[name] for name in fields.keep}
        return make_job(row.get(fields.id), row[fields.text], meta, no_pieces=fields.no_pieces)


def _value(cell: pyarrow.Scalar, name: str) -> object:
    try:
        return cell.as_py()
    except _FAILURES as error:
        return Unfit(f"column {name!r} cannot be read: {one_line(error)}")


def _is_text(kind: pyarrow.DataType) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_json(kind: pyarrow.DataType) -> bool:
    if types.is_list(kind) or types.is_large_list(kind) or types.is_struct(kind):
        return all(_is_json(kind.field(index).type) for index in range(kind.num_fields))
    number = types.is_integer(kind) or types.is_floating(kind)
    return bool(number or types.is_boolean(kind) or types.is_null(kind) or _is_text(kind))
