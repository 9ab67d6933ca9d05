"""Messages: the parts of an Arrow file, and how many bytes each says that it unpacks to.

A packed buffer begins with the number of its unpacked bytes. pyarrow believes it, so a small file
could take all memory. Here only the heads of messages are read, which are flatbuffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import error as TooShort
from struct import unpack_from
from typing import BinaryIO

_HEAD_BYTES = 16 * 1024 * 1024
_DICTIONARY, _BATCH = 2, 3  # kinds of messages


def batches_within(file: BinaryIO, most: int) -> int | None:
    """How many record batches come before the first buffer that unpacks to more than `most` bytes.

    None if there is no such buffer, as far as the file is in order.
    """
    number = 0
    try:
        for kind, largest in _messages(file):
            if largest > most:
                return number
            number += kind == _BATCH
    except (TooShort, OSError, ValueError, OverflowError):  # it is damaged: reading it tells where
        pass
    return None


def _messages(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """The kind of each message, and the unpacked bytes of its largest packed buffer."""
    at = 8 if file.read(6) == b"ARROW1" else 0
    while True:
        file.seek(at)
        start = file.read(8)
        size, head = _int("<i", start, 0), 4
        if size == -1:  # not so before Arrow 0.15
            size, head = _int("<i", start, 4), 8
        if not 0 < size <= _HEAD_BYTES:
            return
        file.seek(at + head)
        data = file.read(size)
        body = at + head + size
        message = _follow(data, 0)
        kind = _int("<B", data, _field(data, message, 1))
        table = _follow(data, _field(data, message, 2))
        if kind == _DICTIONARY:
            table = _follow(data, _field(data, table, 1))
        yield kind, max(_claims(file, data, table, body), default=0) if kind in (2, 3) else 0
        length = _field(data, message, 3)
        at = body + (_int("<q", data, length) if length else 0)
        if at < body:
            return


def _claims(file: BinaryIO, data: bytes, batch: int, body: int) -> Iterator[int]:
    """The unpacked bytes of each packed buffer of a batch."""
    buffers = _field(data, batch, 2)
    if not buffers or not _field(data, batch, 3):  # not packed
        return
    vector = _follow(data, buffers)
    for number in range(_int("<I", data, vector)):
        begin, length = unpack_from("<qq", data, vector + 4 + 16 * number)
        if length > 8:
            file.seek(body + begin)
            yield _int("<q", file.read(8), 0)


def _field(data: bytes, table: int, slot: int) -> int:
    """Where a field of a table is; 0 if it has none."""
    fields = table - _int("<i", data, table)
    at = 4 + 2 * slot
    offset = _int("<H", data, fields + at) if at < _int("<H", data, fields) else 0
    return table + offset if offset else 0


def _follow(data: bytes, at: int) -> int:
    return at + _int("<I", data, at)


def _int(kind: str, data: bytes, at: int) -> int:
    number: int = unpack_from(kind, data, at)[0]
    return number
