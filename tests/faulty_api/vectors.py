"""Vectors from a hash: they mean nothing, but a test can say of each vector whose it is."""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from worker.local.vectors import normalise

MODEL = "nomic-v1.5"  # the real API's: the same number of dimensions, 768
_CHUNK = 4  # numbers of a vector that one byte of the digest decides


def expected_vector(text: str, dimensions: int = 768) -> list[float]:
    """The vector of `text`: `dimensions` floats, each a float32, of unit length.

    The same on every machine. Texts that normalise alike have the same vector; others share it with
    no text. Raises UnicodeEncodeError for an unpaired surrogate.
    """
    engine = Hashed(dimensions)
    return engine.numbers(engine.pack([text])[0])


class Hashed:
    """An engine: vectors are a pure function of the normalised text, at any dimension.

    One byte of the digest picks four numbers from a table of 256 directions of equal length, so
    every vector has unit length without being measured, and its JSON is joined from ready pieces:
    100 x 768 numbers take 2 to 3 ms.
    """

    model = MODEL

    def __init__(self, dimensions: int = 768) -> None:
        self.dimensions = dimensions
        self._whole, self._rest = divmod(dimensions, _CHUNK)
        self._table = _table(_CHUNK, dimensions)
        self._rest_table = _table(self._rest, dimensions)

    def load(self) -> None:
        """Nothing to do: the tables are small."""

    def pack(self, texts: Sequence[str]) -> list[bytes]:
        size = self._whole + bool(self._rest)
        return [hashlib.shake_256(normalise(text).encode()).digest(size) for text in texts]

    def numbers(self, packed: bytes) -> list[float]:
        found: list[float] = []
        for byte in packed[: self._whole]:
            found.extend(self._table.numbers[byte])
        for byte in packed[self._whole :]:
            found.extend(self._rest_table.numbers[byte])
        return found

    def row(self, packed: bytes) -> bytes:
        pieces = self._table.pieces
        parts = [pieces[byte] for byte in packed[: self._whole]]
        parts += [self._rest_table.pieces[byte] for byte in packed[self._whole :]]
        return b"[" + b",".join(parts) + b"]"


class _Table(NamedTuple):
    """256 directions: as numbers, and as the inside of a JSON array."""

    numbers: list[list[float]]
    pieces: list[bytes]


@lru_cache(maxsize=16)
def _table(size: int, dimensions: int) -> _Table:
    length = math.sqrt(size / dimensions)
    numbers = []
    for byte in range(256):
        digest = hashlib.sha256(b"%d of %d" % (byte, size)).digest()
        direction = struct.unpack(f">{size}h", digest[: 2 * size])
        norm = math.sqrt(sum(part * part for part in direction)) or 1.0
        # Rounded to float32 here, so that what a worker stores equals this to the last bit.
        numbers.append(array("f", [part / norm * length for part in direction]).tolist())
    return _Table(numbers, [b",".join(repr(x).encode() for x in chunk) for chunk in numbers])
