"""Distinct values: counted exactly, in bounded memory: as hashes of eight bytes, which from a few
million on lie in temporary files.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

_PARTS = 1024
_HELD = 2_000_000  # hashes in memory before they are written out: 16 MB


class Distinct:
    """Counts different values, exactly up to a chance of one in millions that two hashes of eight
    bytes are alike.
    """

    def __init__(self, held: int = _HELD) -> None:
        self._most = held
        self._held = 0
        self._parts = [array("Q") for _ in range(_PARTS)]
        self._directory: TemporaryDirectory[str] | None = None

    def add(self, value: object) -> None:
        """Count a value."""
        digest = hash(value) & 0xFFFF_FFFF_FFFF_FFFF
        self._parts[digest % _PARTS].append(digest)
        self._held += 1
        if self._held >= self._most:
            self._write()

    def count(self) -> int:
        """How many different ones there were."""
        total = 0
        for number, part in enumerate(self._parts):
            if self._directory is not None:
                with open(self._path(number), "rb") as file:
                    part.frombytes(file.read())
            total += len(set(part))
            del part[:]
        if self._directory is not None:
            self._directory.cleanup()
        return total

    def _write(self) -> None:
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="vec-")
        for number, part in enumerate(self._parts):
            with open(self._path(number), "ab") as file:
                part.tofile(file)
            del part[:]
        self._held = 0

    def _path(self, number: int) -> Path:
        assert self._directory is not None
        return Path(self._directory.name, str(number))
