"""Arrow: record batches in an IPC file (Feather V2) or an IPC stream. Needs pyarrow.

Nothing in a batch is believed: what it unpacks to is bounded, and it is validated before its cells
are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import BinaryIO

from ...types import Job, Rejection
from ..errors import CorpusError, NotInstalled, Unfit, one_line
from ..messages import batches_within
from ..reading import Reading
from ..stream import Stream

try:
    import pyarrow.ipc  # type: ignore[import-untyped]  # it ships no types

    from ..rows import FAILURES, Rows
except ImportError:
    raise NotInstalled(
        'reading Arrow needs pyarrow: pip install "vector-embed-cache-client[parquet]"'
    ) from None

_UNPACKED_BYTES = 1024 * 1024 * 1024  # of a column in a batch


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of each row. Raises CorpusError."""
    file = stream.random_access()
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"FEA1"):
        raise CorpusError(f"{stream.name} is Feather V1: write it again, as V2 or as parquet")
    try:
        within = batches_within(file, _UNPACKED_BYTES)
        schema, _ = _opened(file, magic, None)
        rows = Rows(schema, reading.fields, stream.name)
        _, batches = _opened(file, magic, [schema.get_field_index(name) for name in rows.top])
    except CorpusError:
        raise
    except FAILURES as error:
        raise CorpusError(f"{stream.name} cannot be read as Arrow: {one_line(error)}") from None
    return _lines(stream, batches, rows, within)


def _opened(
    file: BinaryIO, magic: bytes, columns: list[int] | None
) -> tuple[pyarrow.Schema, Iterator[pyarrow.RecordBatch]]:
    """The schema, and the batches with these columns alone."""
    file.seek(0)
    options = pyarrow.ipc.IpcReadOptions(included_fields=columns)
    if magic == b"ARROW1":
        table = pyarrow.ipc.open_file(file, options=options)
        return table.schema, iter(map(table.get_batch, range(table.num_record_batches)))
    table = pyarrow.ipc.open_stream(file, options=options)
    return table.schema, iter(partial(_next, table), None)


def _next(table: pyarrow.RecordBatchReader) -> pyarrow.RecordBatch | None:
    return next(table, None)


def _lines(
    stream: Stream, batches: Iterator[pyarrow.RecordBatch], rows: Rows, within: int | None
) -> Iterator[Job | Rejection]:
    file, number = stream.random_access(), 0
    for read in count():
        try:
            if read == within:
                raise ValueError(
                    f"a column of its batch unpacks to more than {_UNPACKED_BYTES:,} bytes"
                )
            batch = next(batches, None)
            if batch is None:
                return
            batch = _validated(batch.select(rows.top))
        except FAILURES as error:
            stream.fault = f"the file cannot be read from this row on: {one_line(error)}"
            yield Unfit(stream.fault).rejection(number + 1, b"")
            return
        yield from rows.lines(batch, number + 1)
        number += batch.num_rows
        stream.position = min(file.tell(), stream.size or 0)


def _validated(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """The batch, if it is in order. Its text may be none: as binary it costs its row alone."""
    try:
        batch.validate(full=True)
    except FAILURES:
        binary = {
            pyarrow.string(): pyarrow.binary(),
            pyarrow.large_string(): pyarrow.large_binary(),
        }
        columns = [column.cast(binary.get(column.type, column.type)) for column in batch.columns]
        batch = pyarrow.RecordBatch.from_arrays(columns, names=batch.schema.names)
        batch.validate(full=True)
    return batch
