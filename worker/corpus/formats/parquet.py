"""Parquet: a table with typed columns, read a thousand rows at a time. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ...types import Job, Rejection
from ..errors import CorpusError, NotInstalled, Unfit, one_line
from ..pages import largest_page
from ..reading import Reading
from ..stream import READ_BYTES, Stream

try:
    import pyarrow.compute  # type: ignore[import-untyped]  # it ships no types
    import pyarrow.parquet  # type: ignore[import-untyped]

    from ..rows import FAILURES, ROWS, Rows, column_of
except ImportError:
    raise NotInstalled(
        'reading parquet needs pyarrow: pip install "vector-embed-cache-client[parquet]"'
    ) from None

_HELD_BYTES = 64 * 1024 * 1024  # of the rows that are decoded together
_FEW_ROWS = 16
_PAGE_BYTES = 1024 * 1024 * 1024  # of a page, which is decoded as a whole


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of each row. Raises CorpusError."""
    file = stream.random_access()
    # Without read-ahead: it would hold a whole row group in memory.
    options = {"pre_buffer": False, "buffer_size": READ_BYTES}
    try:
        table = pyarrow.parquet.ParquetFile(file, **options)
        rows = Rows(table.schema_arrow, reading.fields, stream.name)
        leaves = [column.path for column in table.schema if column.path in rows.names]
        shared = pyarrow.parquet.ParquetFile(file, read_dictionary=leaves, **options)
    except CorpusError:
        raise
    except FAILURES as error:
        raise CorpusError(f"{stream.name} cannot be read as parquet: {one_line(error)}") from None
    return _lines(stream, table, shared, rows)


def _lines(
    stream: Stream,
    table: pyarrow.parquet.ParquetFile,
    shared: pyarrow.parquet.ParquetFile,
    rows: Rows,
) -> Iterator[Job | Rejection]:
    number = 0
    for group in range(table.metadata.num_row_groups):
        try:
            _check_pages(stream.random_access(), table.metadata.row_group(group), rows.names)
            count = _rows_at_once(shared, group, rows.names)
            batches = table.iter_batches(count, row_groups=[group], columns=rows.names)
        except FAILURES as error:
            batches = iter([error])
        while True:
            try:
                batch = next(batches, None)
                if isinstance(batch, BaseException):
                    raise batch
            except FAILURES as error:
                stream.fault = f"the file cannot be read from this row on: {one_line(error)}"
                yield Unfit(stream.fault).rejection(number + 1, b"")
                return
            if batch is None:
                break
            yield from rows.lines(batch, number + 1)
            number += batch.num_rows
            stream.position = (stream.size or 0) * number // table.metadata.num_rows


def _check_pages(file: BinaryIO, group: pyarrow.parquet.RowGroupMetaData, names: list[str]) -> None:
    """Raise ValueError for a page of a wanted column that takes too much memory."""
    for column in map(group.column, range(group.num_columns)):
        if column.total_uncompressed_size <= _PAGE_BYTES or not _is_wanted(column, names):
            continue
        begin = min(
            column.dictionary_page_offset or column.data_page_offset, column.data_page_offset
        )
        if largest_page(file, begin, begin + column.total_compressed_size) > _PAGE_BYTES:
            raise ValueError(
                f"a page of column {column.path_in_schema!r} unpacks to more than {_PAGE_BYTES:,}"
                " bytes: write it with smaller pages"
            )


def _is_wanted(column: pyarrow.parquet.ColumnChunkMetaData, names: list[str]) -> bool:
    return any(f"{column.path_in_schema}.".startswith(f"{name}.") for name in names)


def _rows_at_once(shared: pyarrow.parquet.ParquetFile, group: int, names: list[str]) -> int:
    """How many rows of a group to decode together, so that they take no more than _HELD_BYTES.

    Rows may share a string, or its beginning: then their texts are longer than the data is.
    """
    described = shared.metadata.row_group(group)
    rows = ROWS
    for index in range(described.num_columns):
        column = described.column(index)
        size = column.total_uncompressed_size
        path = column.path_in_schema
        if not _is_wanted(column, names) or size * ROWS <= _HELD_BYTES:
            continue
        rows = min(rows, max(1, _HELD_BYTES * described.num_rows // size))
        if column.has_dictionary_page and path in names:
            rows = min(rows, max(1, _HELD_BYTES // (_longest(shared, group, path) or 1)))
        elif column.has_dictionary_page or "DELTA_BYTE_ARRAY" in column.encodings:
            rows = min(rows, max(_FEW_ROWS, _HELD_BYTES // size))
    return rows


def _longest(shared: pyarrow.parquet.ParquetFile, group: int, name: str) -> int:
    """The bytes of the longest string in the dictionary of a column."""
    batch = next(shared.iter_batches(1, row_groups=[group], columns=[name]), None)
    if batch is None:
        return 0
    column = column_of(batch, name.split("."))
    if not pyarrow.types.is_dictionary(column.type):
        return 0
    return pyarrow.compute.max(pyarrow.compute.binary_length(column.dictionary)).as_py() or 0
