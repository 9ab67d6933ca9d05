"""The values that pass between the rooms, and what each word means.

A vector stays the bytes it was stored as, float32 little-endian, until a program asks for floats:
an export of millions touches each one once and never needs a Python float.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Mapping
from typing import NamedTuple


class Job(NamedTuple):
    """One text to embed. `meta` is any JSON object to keep beside the vector."""

    id: str
    text: str
    meta: Mapping[str, object] | None = None


class Rejection(NamedTuple):
    """One record of a corpus that cannot become a job, and why. Nothing was paid for it."""

    line: int  # of the file, counted from 1, where the record begins; the row for parquet
    id: str | None
    reason: str
    raw: str  # the line as read, cut to a sensible length


class State(NamedTuple):
    """What is known of an id. The digests are those of `text_digest`."""

    stored: bytes | None  # of the text whose vector is stored
    queued: bytes | None  # of the latest text queued or leased, its first eight bytes
    dead: bytes | None  # of the text among the dead letters


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


def default_id(text: str) -> str:
    """The id of a text that came without one: the sha256 of its UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def text_digest(text: str) -> bytes:
    """The first 16 bytes of the text's sha256: what is stored to say which text a vector is of."""
    return hashlib.sha256(text.encode()).digest()[:16]
