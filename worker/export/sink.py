"""A sink: where an export puts the vectors of one collection, and keeps them true to it.

A sink holds the vectors up to a number, its *watermark*: vectors have numbers in the order in which
they were stored. What is written at once, a *part*, becomes durable together with its watermark: a
file of a folder under its final name, a transaction of a database. So an export that is killed at
any point continues from what the sink says of itself. Redis notes too, under the token of the sink,
how far it is: if the two differ, Redis lost its last moments.

A folder keeps each part as it was written. A database keeps the last vector of each id, and what
was deleted is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..layout import Layout
from ..types import Position, Stored
from .rows import ExportError

TOMBSTONES = 10_000  # that a sink remembers at least


class SinkAway(ExportError):
    """A sink does not answer, or broke off: nothing of the part is there, or all of it."""


@dataclass(frozen=True)
class Rotation:
    """When a part is full: at whichever comes first."""

    vectors: int = 100_000
    bytes: int = 256 * 1024 * 1024
    seconds: float = 60.0  # after its first vector


class Part(NamedTuple):
    """What became durable at once."""

    name: str  # for a line: the path of a file, or the sink's
    first: int  # the number of its first vector or tombstone
    last: int


class Watermarks(NamedTuple):
    """How far a sink is."""

    vectors: int  # it holds all up to this number
    tombstones: int  # it heeds all up to this number
    presumed: int = 0  # up to this one, an earlier version wrote all, and noted nothing in Redis


class Sink(Protocol):
    """Where the vectors of one collection go. `str()` names it in messages, without a password.

    Every method may raise ExportError, and SinkAway if it may be tried again; then `watermarks()`
    comes first, which connects again.
    """

    collection: str
    rotation: Rotation

    @property
    def size(self) -> int:
        """The bytes written so far of the part that is being written; 0 if they are not known."""

    def locked(self) -> AbstractContextManager[str]:
        """Make the sink if it does not exist, and keep other exports away from it.

        Yields its own token.
        """

    @property
    def life(self) -> bytes | None:
        """The life of the collection that it holds; None if none was noted."""

    def accept(self, born: bytes, layout: Layout) -> None:
        """Raise ExportError if what it holds cannot stand beside vectors of this life and layout.

        A folder takes another life, and no other layout.
        """

    def note_life(self, born: bytes) -> None:
        """Note which life of the collection is written from now on."""

    def watermarks(self) -> Watermarks:
        """How far it is."""

    def write(self, records: Iterable[Stored]) -> Part | None:
        """Write numbered `records`, which may take as long as a part; None if there were none.

        Their numbers are above the watermark. If `records` raises, nothing of the part is there.
        """

    def write_tombstones(self, tombstones: Iterable[Position]) -> Part | None:
        """Heed tombstones: of each id, what has a lower number is deleted. None without any."""

    def holds(self, positions: Sequence[Position]) -> list[bool]:
        """Which of these it holds, with the same number and digest. They are in the order of their
        numbers, and later calls go on from there.
        """

    def positions(self, above: int = 0) -> Iterator[Position]:
        """What it holds with numbers above this one, in their order; memory stays flat.

        What a later one replaced may be among them. `write_tombstones` may be fed from it.
        """

    def tombstones(self, above: int) -> Iterator[Position]:
        """The last tombstones, at least TOMBSTONES, as far as they have numbers above this one."""

    def finish(self) -> None:
        """All that there is was written."""
