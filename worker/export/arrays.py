"""Vectors as one numpy array: `.npz` with the ids in it, `.npy` with the ids in a file beside it.

A `.npy` can be mapped into memory: a program reads only the rows that it needs.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from ..layout import KINDS
from ..types import Stored
from .rows import ExportError, first

_BLOCK = 256  # vectors written at once
_HEADER = 128  # bytes of an .npy before its vectors: room for any number of rows


def write_npy(records: Iterable[Stored], vectors: BinaryIO, ids: BinaryIO) -> int:
    """Write the vectors as an `.npy`, and the ids as a JSON list in the order of the rows.

    The header has the number of rows, so it is written last.
    """
    one, remaining = first(records)
    dimensions = 0 if one is None else one.dimensions
    count = 0
    vectors.write(bytes(_HEADER))
    ids.write(b"[")
    while some := list(islice(remaining, _BLOCK)):
        for record in some:
            # In ASCII: a program that opens it as text needs to name no encoding.
            ids.write((",\n" if count else "").encode() + json.dumps(record.id).encode())
            count += 1
        vectors.write(b"".join([record.data for record in some]))
    ids.write(b"]\n")
    vectors.seek(0)
    vectors.write(_header(_kind(one), (count, dimensions)))
    return count


def _kind(one: Stored | None) -> str:
    """What numpy calls the type of the numbers."""
    return KINDS["float32" if one is None else one.dtype]


def _header(kind: str, shape: tuple[int, ...]) -> bytes:
    """The header of an `.npy`, always of the same size: numpy.lib.format, version 1.0."""
    said = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    size = _HEADER - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + said.ljust(size - 1) + b"\n"


def write_npz(records: Iterable[Stored], file: BinaryIO) -> int:
    """Write the vectors and the ids, each first into a temporary file.

    An array begins with its number of rows and the length of its longest id, which are known only
    at the end. The directory needs room for the vectors twice.
    """
    import numpy as np

    count = longest = 0
    one, remaining = first(records)
    dimensions = 0 if one is None else one.dimensions
    with ExitStack() as stack:
        folder = Path(file.name).parent
        vectors = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        ids = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        while some := list(islice(remaining, _BLOCK)):
            vectors.write(b"".join([record.data for record in some]))
            for record in some:
                if record.id.endswith("\0"):
                    raise ExportError(
                        f"id {record.id!r} ends in NUL, which .npz drops: use .parquet"
                    )
                longest = max(longest, len(record.id))
                id = record.id.encode()
                ids.write(len(id).to_bytes(4, "little") + id)
            count += len(some)
        # Packed: numpy gives every id four bytes for each character of the longest one.
        kind = f"<U{max(longest, 1)}"
        names = _read_ids(ids)
        blocks = iter(lambda: list(islice(names, 1000)), [])
        with zipfile.ZipFile(file, "w") as archive:
            shape = (count, dimensions)
            rows = _pieces(vectors)
            _add_array(archive, "vectors", _kind(one), shape, rows, zipfile.ZIP_STORED)
            packed = (np.array(block, dtype=kind).tobytes() for block in blocks)
            _add_array(archive, "ids", kind, (count,), packed, zipfile.ZIP_DEFLATED)
    return count


def _add_array(
    archive: zipfile.ZipFile,
    name: str,
    kind: str,
    shape: tuple[int, ...],
    data: Iterable[bytes],
    compression: int,
) -> None:
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = compression
    with archive.open(member, "w", force_zip64=True) as out:
        out.write(_header(kind, shape))
        for piece in data:
            out.write(piece)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    return iter(lambda: file.read(1024 * 1024), b"")


def _read_ids(file: BinaryIO) -> Iterator[str]:
    file.seek(0)
    while size := file.read(4):
        yield file.read(int.from_bytes(size, "little")).decode()
