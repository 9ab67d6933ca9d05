"""The memory that stored vectors take: measured of those that are there, computed of others.

What a vector would take in another layout differs by the field of its numbers alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ..layout import Layout, allocated
from .connection import Argument, Redis, run
from .keys import CollectionKeys

_LOOKS = 200  # at vectors
_KEY = 40  # bytes of a key that Redis does not count as its: measured, Redis 7.0


class Footprint(NamedTuple):
    """The memory of the vectors of a collection, in bytes."""

    vectors: int
    bytes: float  # a vector, with its text and meta if they are kept
    others: float  # of these, without the field of its numbers
    allocator: str

    @property
    def all(self) -> float:
        """All vectors."""
        return self.vectors * self.bytes

    def of(self, layout: Layout, answered: int) -> float:
        """A vector in a layout, if the API answers with vectors this long."""
        return self.others + _field(layout.field, layout.size(answered), self.allocator)


def read_footprint(client: Redis, keys: CollectionKeys) -> Footprint:
    """Measure some vectors, evenly over the collection."""
    args: list[Argument] = [keys.doc_prefix, _LOOKS]
    name, vectors, order, *found = run(client, "store/memory", [keys.done], args)
    allocator, usage, fields = name.decode(), found[::3], zip(found[1::3], found[2::3])
    if not usage:
        return Footprint(vectors, 0, 0, allocator)
    bytes = sum(usage) / len(usage) + order / vectors + _KEY
    numbers = sum(_field(field.decode(), size, allocator) for field, size in fields) / len(usage)
    return Footprint(vectors, bytes, bytes - numbers, allocator)


def _field(name: str, size: int, allocator: str) -> int:
    """The memory of a field: of its name, and of so many bytes of numbers.

    Valkey 9 needs 8 bytes less for a value below some 100 bytes: it keeps it in one piece with the
    name.
    """
    is_long = allocator == "jemalloc" and len(name) > 6  # others take as much for any name
    return allocated(size, allocator) + (16 if is_long else 8)
