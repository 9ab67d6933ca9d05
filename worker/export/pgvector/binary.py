"""Rows of vectors as the bytes of a binary COPY.

PostgreSQL's format: https://www.postgresql.org/docs/current/sql-copy.html. pgvector's: the number
of dimensions and a zero, two bytes each; then the numbers, as float32 (vector) or float16
(halfvec). All of it is big-endian. numpy turns the numbers of many rows at once.

PostgreSQL's texts and jsonb cannot hold U+0000, and no UTF-8 holds half a surrogate pair. Such a
character is written as `␀` and its four hexadecimal digits, and `␀` itself (U+2400) as `␀2400`: so
two ids stay two, and `restored` gives back what was there.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ...layout import decode
from ...types import Stored
from ..rows import ExportError

NULL = b"\xff\xff\xff\xff"  # a field without a value
_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_BIGINT = struct.Struct("!iq").pack
_BLOCK = 256  # rows written at once
ESCAPE = "\u2400".encode()  # in what was not written as it is
_ESCAPED = re.compile("[\0\u2400\ud800-\udfff]")
_WRITTEN = re.compile("\u2400([0-9a-f]{4})")


def holdable(text: str) -> str:
    """The text as PostgreSQL can hold it."""
    if "\0" not in text and (text.isascii() or "\u2400" not in text and _is_plain(text)):
        return text
    return _ESCAPED.sub(lambda found: f"\u2400{ord(found[0]):04x}", text)


def restored(text: str) -> str:
    """The text that `holdable` was given."""
    return _WRITTEN.sub(lambda found: chr(int(found[1], 16)), text)


def json_of(meta: Mapping[str, object]) -> bytes:
    """A meta as `jsonb` takes it."""
    said = json.dumps(meta, ensure_ascii=False, separators=(",", ":"))
    if "\\u0000" in said or "\u2400" in said or not _is_plain(said):
        said = json.dumps(_holdable_all(meta), ensure_ascii=False, separators=(",", ":"))
    return said.encode()


def _is_plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _holdable_all(value: object) -> object:
    if isinstance(value, str):
        return holdable(value)
    if isinstance(value, Mapping):
        return {holdable(str(name)): _holdable_all(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_holdable_all, value))
    return value


def check_alike(records: Sequence[Stored]) -> None:
    """Raise ExportError if not all vectors have as many numbers, of one type."""
    first = records[0]
    for record in records:
        if len(record.data) != len(first.data) or record.dtype != first.dtype:
            raise ExportError(
                f"id {record.id!r} has {record.dimensions} numbers of {record.dtype} and those "
                f"before it {first.dimensions} of {first.dtype}: export again"
            )


def with_vectors(records: Sequence[Stored]) -> Iterator[tuple[Stored, bytes]]:
    """Each record, and the field of its vector: a halfvec if its numbers are not float32."""
    for start in range(0, len(records), _BLOCK):
        some = records[start : start + _BLOCK]
        dtype, dimensions = some[0].dtype, some[0].dimensions
        rows = decode(b"".join([record.data for record in some]), dtype, len(some))
        data = rows.astype(">f4" if dtype == "float32" else ">f2").tobytes()
        size = len(data) // len(some)
        head = struct.pack("!iHH", size + 4, dimensions, 0)
        for at, record in enumerate(some):
            yield record, head + data[at * size : (at + 1) * size]


def field(value: str | bytes | None) -> bytes:
    """A field of a text, or of bytes."""
    if value is None:
        return NULL
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(4, "big") + data


def bigint(value: int | None) -> bytes:
    """The field of a number."""
    return NULL if value is None else _BIGINT(8, value)


def copied(rows: Iterable[Sequence[bytes]]) -> Iterator[bytes]:
    """A binary COPY of rows of fields, some rows at a time."""
    parts = [_HEAD]
    for count, row in enumerate(rows, 1):
        parts.append(len(row).to_bytes(2, "big"))
        parts.extend(row)
        if count % _BLOCK == 0:
            yield b"".join(parts)
            parts = []
    yield b"".join([*parts, _END])
