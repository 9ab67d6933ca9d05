"""A comparison: how much of what is near stays near, if vectors are stored in smaller layouts.

Vectors are read evenly over the collection, and some of them are queries. For each query the ten
nearest of the others are found twice: by the vectors as they are, and by the same vectors in a
layout. What is kept is the share of the second ten that belongs to the first; of vectors that are
equally near, any does. Only the best ten of each query are held, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from ..layout import DTYPES, SIZES, Layout, decode, lengths_of, whole
from ..types import Comparison, Info, Kept, Stored
from .connection import Redis
from .errors import CollectionError, LayoutChanged
from .evenly import Evenly
from .keys import CollectionKeys
from .memory import read_footprint
from .reader import Reader
from .shrinking import smaller

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Rows = NDArray[numpy.float32]

NEAREST = 10
QUERIES = 1000
LEAST = 100  # vectors: of fewer, ten are too large a part
_BLOCK = 2000  # vectors compared at once with all queries
_TIE = 1e-6  # cosines that differ by less are equal: those of float32 are no finer


def compare(
    client: Redis,
    keys: CollectionKeys,
    dimensions: int | None,
    dtype: str | None,
    sample: int,
    *,
    force: bool,
    progress: Callable[[int, int], object],
) -> Comparison:
    """Compare `sample` vectors, or all, in the layouts that `candidates` gives.

    `progress` hears how many vectors of how many were compared. Raises UnknownCollection,
    CollectionError if there are too few, CollectionGone if the collection is dropped meanwhile, and
    LayoutChanged if it is shrunk.
    """
    sample = whole("sample", sample)
    reader = Reader(client, keys)
    size, info = reader.size(), reader.info()
    length = info.dimensions or 0
    _check_enough(size if length else 0, keys.name)
    if sample < LEAST:
        raise CollectionError(f"a comparison needs a sample of at least {LEAST}, not of {sample:,}")
    layouts = candidates(info, dimensions, dtype, force=force)
    footprint = read_footprint(client, keys)
    evenly = Evenly(reader, size)
    queries = list(chain.from_iterable(evenly.read(min(QUERIES, sample))))
    _check_enough(len(queries), keys.name)  # some may be gone since
    contest = _Contest(queries, layouts, keys.name)
    total, compared = min(sample, size), 0
    records = chain.from_iterable(evenly.read(total))
    while block := list(islice(records, _BLOCK)):
        contest.take(block)
        compared += len(block)
        progress(compared, total)
    _check_enough(compared, keys.name)
    own = Kept(info.layout.length(length), info.layout.dtype, 1.0, footprint.bytes)
    others = [
        Kept(
            layout.length(length),
            layout.dtype,
            kept,
            footprint.of(layout, length),
        )
        for layout, kept in zip(layouts, contest.kept())
    ]
    return Comparison(size, compared, len(queries), [own, *others])


def _check_enough(vectors: int, name: str) -> None:
    if vectors < LEAST:
        raise CollectionError(
            f"collection {name} has {vectors:,} vectors: a comparison needs at least {LEAST}"
        )


def candidates(
    info: Info, dimensions: int | None = None, dtype: str | None = None, *, force: bool = False
) -> list[Layout]:
    """The layouts to compare, smaller than the collection's; what is None is all that there is.

    Raises LayoutError as `smaller` does.
    """
    length, model = info.length or 0, info.layout.model
    lengths = [length, *(one for one in lengths_of(model) if one < length)]
    dtypes = [one for one in DTYPES if SIZES[one] <= SIZES[info.layout.dtype]]
    found = [
        smaller(info, one, its, force=force)
        for one in (lengths if dimensions is None else [dimensions])
        for its in (dtypes if dtype is None else [dtype])
    ]
    return [layout for layout in found if layout != info.layout]


class _Contest:
    """Finds the ten nearest of each query, by the vectors as they are and by each layout."""

    def __init__(self, queries: Sequence[Stored], layouts: Sequence[Layout], name: str) -> None:
        import numpy as np

        self._name = name
        self._like = queries[0]
        self._numbers = np.array([one.number for one in queries])
        self._layouts = layouts
        rows = self._rows(queries)
        self._queries = _unit(rows)
        self._small = [_unit(_stored(layout, rows)) for layout in layouts]
        self._truth = _Best(len(queries))
        self._best = [_Best(len(queries)) for _ in layouts]

    def take(self, records: Sequence[Stored]) -> None:
        """Let these vectors be among the nearest."""
        import numpy as np

        rows = self._rows(records)
        cosines = self._queries @ _unit(rows).T
        itself = self._numbers[:, None] == np.array([one.number for one in records])
        cosines[itself] = -np.inf
        self._truth.take(cosines, cosines)
        for layout, queries, best in zip(self._layouts, self._small, self._best):
            approximate = queries @ _unit(_stored(layout, rows)).T
            approximate[itself] = -np.inf
            best.take(approximate, cosines)

    def kept(self) -> list[float]:
        """The share of the ten nearest that each layout keeps."""
        least = self._truth.exact.min(axis=1, keepdims=True) - _TIE
        return [float((best.exact >= least).mean()) for best in self._best]

    def _rows(self, records: Sequence[Stored]) -> Rows:
        dtype, size = self._like.dtype, len(self._like.data)
        data = [one.data for one in records if one.dtype == dtype and len(one.data) == size]
        if len(data) < len(records):
            raise LayoutChanged(self._name)
        return decode(b"".join(data), dtype, len(data))


class _Best:
    """The nearest ten of each query so far, and their exact cosines."""

    def __init__(self, queries: int) -> None:
        import numpy as np

        self._cosines: Rows = np.full((queries, NEAREST), -np.inf, dtype=np.float32)
        self.exact = self._cosines

    def take(self, cosines: Rows, exact: Rows) -> None:
        """Take the nearest of these too."""
        import numpy as np

        all_cosines = np.hstack([self._cosines, cosines])
        nearest = np.argpartition(all_cosines, -NEAREST, axis=1)[:, -NEAREST:]
        self._cosines = np.take_along_axis(all_cosines, nearest, axis=1)
        self.exact = np.take_along_axis(np.hstack([self.exact, exact]), nearest, axis=1)


def _stored(layout: Layout, rows: Rows) -> Rows:
    """The vectors as they are read again, once they are stored in the layout."""
    return decode(b"".join(layout.encode(rows)), layout.dtype, len(rows))


def _unit(rows: Rows) -> Rows:
    import numpy as np

    unit: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
