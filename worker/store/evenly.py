"""Some vectors of a collection, evenly over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..types import Stored
from .errors import CollectionGone, UnknownCollection
from .reader import Reader

_READ = 250  # vectors in one reply of Redis


class Evenly:
    """Reads vectors that lie evenly over a collection as it is now."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader = reader
        self._size = size
        self._now = reader.known([])

    def read(self, count: int) -> Iterator[list[Stored]]:
        """`count` vectors, or all; without those that are stored meanwhile."""
        count, size = min(count, self._size), self._size
        ids = enumerate(islice(self._reader.ids(), size))
        chosen = (id for n, id in ids if (n + 1) * count // size > n * count // size)
        while some := list(islice(chosen, _READ)):
            try:
                found = self._reader.get_many(some)
            except UnknownCollection:
                raise CollectionGone(self._reader.name) from None
            if self._reader.born() != self._now.born:
                raise CollectionGone(self._reader.name)
            yield [one for one in found if one and (one.number or 0) <= self._now.commits]
