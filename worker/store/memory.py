"""The memory that stored vectors take: measured of those that are there, computed of others.

What a vector would take in another layout differs by its numbers alone.
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
    others: float  # of these, without its numbers
    allocator: str

    @property
    def all(self) -> float:
        """All vectors."""
        return self.vectors * self.bytes

    def of(self, layout: Layout, answered: int) -> float:
        """A vector in a layout, if the API answers with vectors this long."""
        return self.others + allocated(layout.size(answered), self.allocator)


def read_footprint(client: Redis, keys: CollectionKeys) -> Footprint:
    """Measure some vectors, evenly over the collection."""
    args: list[Argument] = [keys.doc_prefix, _LOOKS]
    name, vectors, order, *found = run(client, "store/memory", [keys.done], args)
    allocator, usage, sizes = name.decode(), found[::2], found[1::2]
    if not usage:
        return Footprint(vectors, 0, 0, allocator)
    bytes = sum(usage) / len(usage) + order / vectors + _KEY
    numbers = sum(allocated(size, allocator) for size in sizes) / len(sizes)
    return Footprint(vectors, bytes, bytes - numbers, allocator)
