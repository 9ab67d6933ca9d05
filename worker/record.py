"""A record: one stored vector, as it is read back from a collection.

The vector stays the bytes it was stored as, float32 little-endian, until somebody asks for floats:
an export of millions touches each once and never needs a Python float.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping
from typing import NamedTuple


class Record(NamedTuple):
    """One vector and what is known of it. `text` and `meta` are there only where they were kept."""

    id: str
    data: bytes  # float32, little-endian
    model: str
    cached: bool  # the API answered from its cache
    text: str | None = None
    meta: Mapping[str, object] | None = None
    number: int | None = None  # its place in the order in which vectors were stored
    digest: bytes | None = None  # of its text: see `text_digest`

    @property
    def vector(self) -> list[float]:
        """The vector as Python floats."""
        floats = array("f", self.data)
        if sys.byteorder == "big":
            floats.byteswap()
        return floats.tolist()

    @property
    def dimensions(self) -> int:
        """How many numbers the vector has."""
        return len(self.data) // 4

    def tobytes(self) -> bytes:
        """The vector as it is stored: float32, little-endian, four bytes a number."""
        return self.data
