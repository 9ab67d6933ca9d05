"""An export: the vectors of a collection as one file, `.jsonl`, `.npz`, `.npy` or `.parquet`.

Records are written as they are read, so memory does not grow with their number. The file has a
temporary name in the same directory until it is complete, so a partial file never has the final
name. `-` is standard output, as JSON lines.

A number in JSON lines is the shortest decimal that gives the stored float32 when it is read and
cast. Without numpy or orjson it has up to nine digits: just as exact, but slower to write.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Callable

from ..corpus.path import shown
from ..types import Stored
from .arrays import write_npy, write_npz
from .rows import ExportError as ExportError
from .rows import first

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # looked at before each use

if TYPE_CHECKING:
    import pyarrow  # type: ignore[import-untyped]  # it ships no types

FORMATS = ("jsonl", "parquet")  # of the files of a folder
_SUFFIXES = (".jsonl", ".npz", ".npy", ".parquet")
_ROWS = 4096  # of a parquet row group: 12 MB with 768 dimensions
# The shortest decimal of one float32, 7.038531e-26, and of its negative gives another float32 when
# it is read as a float64 and cast (all were tried). These bytes are in both.
_MISREAD = b"\xfd\x43\xae"
_DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def check_output(output: str) -> None:
    """Raise ExportError if `output` cannot be written: suffix, directory or library."""
    if output == "-":
        if sys.stdout is None:
            raise ExportError("standard output is closed: name a file instead of -")
        return
    path = Path(output)
    suffix = path.suffix.lower()
    if _is_stream(path):
        if suffix in _SUFFIXES[1:]:
            raise ExportError(
                f"{shown(output)} is a pipe or a device: only JSON lines can be written to it; "
                "name it .jsonl, or name a file"
            )
        return
    if suffix not in _SUFFIXES:
        raise ExportError(
            f"{shown(output)}: unknown kind of file: name it {', '.join(_SUFFIXES)},"
            " or write JSON lines to standard output with -"
        )
    folder = Path(os.path.realpath(output)).parent
    if path.is_dir():
        raise ExportError(f"{shown(output)} is a directory: name a file in it")
    if not folder.is_dir():
        raise ExportError(f"{shown(output)}: there is no directory {shown(str(folder))}: make it")
    try:
        tempfile.TemporaryFile(dir=folder).close()  # some file systems have no permissions
    except OSError as error:
        raise ExportError(
            f"{shown(output)}: the directory may not be written to ({error.strerror}): check its "
            "permissions, or name a file elsewhere"
        ) from None
    beside = ids_of(output)
    if beside is not None and beside.exists() and not beside.is_file():
        raise ExportError(f"{shown(str(beside))} is not a file, and the ids go there: move it away")
    check_format(output, suffix[1:])


def ids_of(output: str) -> Path | None:
    """The file of the ids beside an `.npy`; None for another kind of file."""
    path = Path(output)
    return path.with_suffix(".ids.json") if path.suffix.lower() == ".npy" else None


def _is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a device or the like, which cannot be replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_format(output: str, format: str) -> None:
    """Raise ExportError if the library that writes and reads `format` is not installed."""
    missing = {"npz": "numpy", "parquet": "pyarrow"}.get(format)
    try:
        if missing is not None:
            __import__(missing)
    except ImportError:
        raise ExportError(
            f"{shown(output)}: .{format} needs {missing}:"
            ' pip install "vector-embed-cache-client[parquet]"'
        ) from None


def export(records: Iterable[Stored], output: str) -> int:
    """Write `records` to `output` and return how many there were.

    JSON lines: {"id", "vector", "model", "dimensions", "cached"}, and "text" and "meta" if kept.
    `.npz`: `ids` (strings) and `vectors` (float32, one row each). `.npy`: `vectors` alone, and the
    ids in their order as a JSON list, in NAME.ids.json. `.parquet`: one column for each key of the
    JSON lines, meta as JSON; model and dimensions also in the metadata of the schema.

    Raises ExportError if check_output() does, before a record is read, and when the disk is full.
    Raises BrokenPipeError if the reader of a pipe has closed it.
    """
    check_output(output)
    if output == "-":
        count = write_as("jsonl", records, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return count
    if _is_stream(Path(output)):  # not replaced: its reader would get nothing
        with open(output, "wb") as stream:
            return write_as("jsonl", records, stream)
    path, beside = Path(os.path.realpath(output)), ids_of(output)
    with replaced(output) as file:
        if beside is None:
            return write_as(Path(output).suffix[1:].lower(), records, file)
        return _write_pair(records, path, file, Path(os.path.realpath(beside)))


def _write_pair(records: Iterable[Stored], path: Path, file: BinaryIO, beside: Path) -> int:
    """Write the vectors to `file`, the future `path`, and their ids to `beside`."""

    def name() -> Path:
        # At no moment do vectors lie beside the ids of others: the old ones go first.
        path.unlink(missing_ok=True)
        return beside

    with whole_file(_part_of(beside), str(beside), name) as ids:
        count = write_npy(records, file, ids)
        file.flush()
        os.fsync(file.fileno())
    return count


def replaced(output: str) -> AbstractContextManager[BinaryIO]:
    """A file that takes the place of `output` once it is complete. As `whole_file`."""
    path = Path(os.path.realpath(output))  # a symbolic link stays a link: its target is replaced
    return whole_file(_part_of(path), str(path), lambda: path)


def _part_of(path: Path) -> Path:
    """The name of a file until it is complete."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def write_as(
    format: str, records: Iterable[Stored], file: BinaryIO, *, positions: bool = False
) -> int:
    """Write `records` to `file`, as jsonl, npz or parquet, and return how many there were.

    `positions`: with the number and the digest of each, which an npz cannot hold.
    """
    if format == "npz":
        return write_npz(records, file)
    return {"jsonl": _write_jsonl, "parquet": _write_parquet}[format](records, file, positions)


@contextmanager
def whole_file(part: Path, what: str, name: Callable[[], Path | None]) -> Iterator[BinaryIO]:
    """A file that is called `part` until it is complete and on the disk, and then `name()`.

    It is removed if `name()` is None. Raises ExportError, which says that `what` cannot be written.
    """
    try:
        with open(part, "xb", buffering=1024 * 1024) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path = name()
        if path is not None:
            os.replace(part, path)
            _flush_folder(path.parent)
    except OSError as error:
        if error.filename == str(part) or error.errno in _DISK_FAULTS:
            reason = error.strerror or str(error)
            raise ExportError(f"{shown(what)} cannot be written: {reason}") from None
        raise
    finally:
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush the new name of a file to the disk."""
    with suppress(OSError):  # some file systems cannot do this
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


# --- JSON lines


def _write_jsonl(records: Iterable[Stored], file: BinaryIO, positions: bool) -> int:
    count = 0
    vector_json = _vector_encoder()
    for record in records:
        text = b"" if record.text is None else b',"text":' + _json(record.text)
        meta = b"" if record.meta is None else b',"meta":' + _json(dict(record.meta))
        position = b""
        if positions and record.number is not None and record.digest is not None:
            number, digest = record.number, record.digest.hex().encode()
            position = b',"number":%d,"digest":"%b"' % (number, digest)
        file.write(
            b'{"id":%b,"vector":%b,"model":%b,"dimensions":%d,"cached":%b%b%b%b}\n'
            % (
                _json(record.id),
                vector_json(record.float32),
                _json(record.model),
                record.dimensions,
                b"true" if record.cached else b"false",
                text,
                meta,
                position,
            )
        )
        count += 1
    return count


def _vector_encoder() -> Callable[[bytes], bytes]:
    """float32 bytes to a JSON list."""
    try:
        import numpy as np
    except ImportError:
        return _slow_vector_json
    if orjson is None:
        return _slow_vector_json
    dumps, option = orjson.dumps, orjson.OPT_SERIALIZE_NUMPY

    def vector_json(data: bytes) -> bytes:
        vector = np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False)
        if _MISREAD in data:  # also by chance: that only costs digits
            return dumps(vector.astype(np.float64), option=option)
        return dumps(vector, option=option)

    return vector_json


def _slow_vector_json(data: bytes) -> bytes:
    # Nine digits identify every float32, also when they are read as a float64 first.
    floats = Stored("", data, "", False).vector
    return json.dumps([float(f"{number:.9g}") for number in floats]).encode()


def _json(value: object) -> bytes:
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # a whole number above 64 bits
            pass
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# --- Parquet


def _write_parquet(records: Iterable[Stored], file: BinaryIO, positions: bool) -> int:
    import pyarrow
    import pyarrow.parquet  # type: ignore[import-untyped]

    count = 0
    one, remaining = first(records)
    schema = _schema(one, positions)
    others = [name for name in schema.names if name != "vector"]
    turn = Lock()
    with ExitStack() as last:
        writer = pyarrow.parquet.ParquetWriter(
            file,
            schema,
            use_dictionary=["model"],  # only the model repeats
            compression={name: "snappy" for name in others},  # vectors do not pack
            write_statistics=others,
        )

        @last.callback
        def close() -> None:
            with turn:  # interrupted twice, we did not wait for the thread
                writer.close()

        def write(rows: list[Stored]) -> None:
            with turn:
                writer.write_batch(_batch(rows, schema))

        thread = last.enter_context(ThreadPoolExecutor(1))
        writing = None
        while some := list(islice(remaining, _ROWS)):
            if writing is not None:
                writing.result()
            writing = thread.submit(write, some)  # while the next are read
            count += len(some)
        if writing is not None:
            writing.result()
    return count


def _schema(first: Stored | None, positions: bool) -> pyarrow.Schema:
    import pyarrow

    # No record: no dimensions either.
    number = pyarrow.type_for_alias("float32" if first is None else first.dtype)
    kind = pyarrow.list_(number, -1 if first is None else first.dimensions)
    position = [("number", pyarrow.int64()), ("digest", pyarrow.string())]
    return pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("vector", kind),
            ("model", pyarrow.string()),
            ("dimensions", pyarrow.int32()),
            ("cached", pyarrow.bool_()),
            ("text", pyarrow.string()),
            ("meta", pyarrow.string()),
            *(position if positions else []),
        ],
        {} if first is None else {"model": first.model, "dimensions": str(first.dimensions)},
    )


def _batch(records: list[Stored], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    import pyarrow

    kind = schema.field("vector").type
    data = b"".join([record.data for record in records])
    length = len(records) * kind.list_size
    buffers = [None, pyarrow.py_buffer(data)]
    numbers = pyarrow.Array.from_buffers(kind.value_type, length, buffers)
    computed = {
        "vector": pyarrow.FixedSizeListArray.from_arrays(numbers, kind.list_size),
        "meta": [None if one.meta is None else _json(dict(one.meta)).decode() for one in records],
        "digest": [None if one.digest is None else one.digest.hex() for one in records],
    }
    columns = [
        computed[name] if name in computed else [getattr(one, name) for one in records]
        for name in schema.names
    ]
    arrays = [
        column if isinstance(column, pyarrow.Array) else pyarrow.array(column, field.type)
        for column, field in zip(columns, schema)
    ]
    return pyarrow.record_batch(arrays, schema=schema)
