"""A spill: rows that may not fit into memory, in 1,024 parts by the hash of their key.

All rows of a key are in one part, and one part is held at once. Above 4 MB the rows are written to
temporary files; TMPDIR says where.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

_PARTS = 1024
_HELD_BYTES = 4_000_000  # in memory before they are written to the files; a run has several spills


class Spill:
    """Rows of bytes, in parts. Raises OSError when the disk is full."""

    def __init__(self, held_bytes: int = _HELD_BYTES) -> None:
        self._most = held_bytes
        self._held = 0
        self._parts = [bytearray() for _ in range(_PARTS)]
        self._directory: TemporaryDirectory[str] | None = None

    def add(self, hash: int, row: bytes) -> None:
        """Add a row whose key has this hash."""
        self._parts[hash % _PARTS] += row
        self._held += len(row)
        if self._held >= self._most:
            self._write()

    def read(self) -> Iterator[bytes]:
        """The rows of each part, in the order in which they were added. Call it once."""
        for number, part in enumerate(self._parts):
            path = None if self._directory is None else Path(self._directory.name, str(number))
            yield (path.read_bytes() if path and path.exists() else b"") + part
            part.clear()
        if self._directory is not None:
            self._directory.cleanup()

    def _write(self) -> None:
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="vec-")
        for number, part in enumerate(self._parts):
            if part:
                with open(Path(self._directory.name, str(number)), "ab") as file:
                    file.write(part)
                part.clear()
        self._held = 0


class Distinct:
    """Counts different values by 8-byte hashes. Two hashes are equal by chance once in millions."""

    def __init__(self, held_bytes: int = _HELD_BYTES) -> None:
        self._hashes = Spill(held_bytes)

    def add(self, value: object) -> None:
        """Count a value."""
        digest = hash(value)
        self._hashes.add(digest, digest.to_bytes(8, "little", signed=True))

    def count(self) -> int:
        """How many different values there were. Call it once."""
        return sum(len(set(array("q", part))) for part in self._hashes.read())


class Latest:
    """The last number of each key, in bounded memory. Keys are compared as in Distinct."""

    def __init__(self, held_bytes: int = _HELD_BYTES) -> None:
        self._rows = Spill(held_bytes)

    def set(self, key: object, number: int) -> None:
        """Note a number of 32 bits."""
        digest = hash(key)
        self._rows.add(digest, struct.pack("<qI", digest, number))

    def read(self) -> Iterator[int]:
        """The last number of each key, in no particular order. Call it once."""
        for part in self._rows.read():
            yield from dict(struct.iter_unpack("<qI", part)).values()
