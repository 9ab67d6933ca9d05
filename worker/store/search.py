"""A search: the stored texts whose vectors are nearest to a query, by their cosines.

The exact scan compares the query with every vector; memory stays flat. An index proposes ids
instead. Either way the texts that were found are read again at the end, each with its vector: what
was deleted or replaced meanwhile is not answered, and a score is that of the text beside it.

numpy does the arithmetic if it is installed; without it, a search is slower.
"""

from __future__ import annotations

import json
import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import TYPE_CHECKING, Callable, Union

from ..layout import decode
from ..types import Hit, Info, Record, Stored, parent_of
from .codec import load_meta
from .connection import Redis
from .errors import LayoutChanged
from .index import Index
from .keys import CollectionKeys
from .reader import PAGE_SIZE, Reader
from .scan import Vectors, scan

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Vector = Union[Sequence[float], NDArray[numpy.floating]]

SPARE = 20  # texts found beyond those asked for: some may be deleted before they are read
MOST = 2000  # ids that an index is asked for; beyond that the exact scan is as quick
_WIDER = 5  # times as many ids are asked for next, where too few fit the filter

_MANY = (list, tuple, set, frozenset)

Scores = Callable[[Sequence[bytes]], Sequence[float]]


class Search:
    """Searches one collection, and changes nothing.

    `filter`: the value of a kept field, or a list of the values that it may have, by its name.
    """

    def __init__(
        self, client: Redis, keys: CollectionKeys, filter: Mapping[str, object] | None = None
    ) -> None:
        self._redis = client
        self._keys = keys
        if not isinstance(filter, (Mapping, type(None))):
            raise TypeError(f"filter must map names of fields to values, not be {filter!r:.80}")
        self._filter = {
            name: {_plain(one) for one in (value if isinstance(value, _MANY) else [value])}
            for name, value in (filter or {}).items()
        }

    def nearest(
        self,
        query: Vector,
        count: int,
        *,
        exact: bool = False,
        progress: Callable[[int], object] = lambda vectors: None,
        tell: Callable[[str], object] = lambda why: None,
    ) -> list[Hit]:
        """The `count` texts nearest to `query`, best first; of equals the earlier.

        Of the pieces of a document, the nearest alone. By the index if there is one and it is
        whole, unless `exact`; `tell` hears why it is not. Else every vector is compared; `progress`
        hears how many were. Raises UnknownCollection, and CollectionGone as `scan` does.
        """
        asked = _Query(query, Reader(self._redis, self._keys).info())
        hits = None if exact else self._by_index(asked, count, progress, tell)
        if hits is None:
            hits = self._read(self._scan(asked, 0, count, progress), asked)
        return hits[:count]

    def _by_index(
        self,
        query: _Query,
        count: int,
        progress: Callable[[int], object],
        tell: Callable[[str], object],
    ) -> list[Hit] | None:
        """The nearest texts, as the index knows them; None where it does not find `count`."""
        index, later = Index(self._redis, self._keys), list[str]()
        wanted = count + SPARE
        while wanted <= MOST:
            found = index.ids(query.row, query.forms, str(query.layout), wanted)
            if found.state != "ready":
                if found.state != "none":
                    tell(found.why)
                return None
            if found.after is not None and not later:
                later = self._scan(query, found.after, count, progress)
            hits = self._read(list(dict.fromkeys([*found.ids, *later])), query)
            if len(hits) >= count:
                return hits
            if len(found.ids) < wanted:  # it has no more
                break
            wanted *= _WIDER
        return None

    def _scan(
        self, query: _Query, after: int, count: int, progress: Callable[[int], object]
    ) -> list[str]:
        """The ids nearest by an exact scan of the vectors with numbers above `after`."""
        metas = bool(self._filter)
        pages = scan(self._redis, self._keys, query.layout, after, metas=metas)
        return self._scanned(pages, query.scores, count + SPARE, progress)

    def _scanned(
        self,
        pages: Iterable[Vectors],
        scores: Scores,
        count: int,
        progress: Callable[[int], object],
    ) -> list[str]:
        """The ids of the `count` vectors nearest by `scores`; the best of each document alone."""
        best: dict[str, tuple[float, str]] = {}  # by document
        least, compared = -math.inf, 0
        for page in pages:
            for n, score in enumerate(scores(page.data)):
                if score > least:
                    id, meta = page.ids[n].decode(), load_meta(page.metas[n])
                    document = parent_of(id, meta) or id
                    before = best.get(document)
                    is_better = before is None or score > before[0] or id == before[1]
                    if is_better and self._fits(meta):
                        best[document] = (score, id)
            if len(best) > count:
                ranked = sorted(best.items(), key=lambda item: -item[1][0])[:count]
                best, least = dict(ranked), ranked[-1][1][0]
            compared += len(page.ids)
            progress(compared)
        return [id for _, id in best.values()]

    def _read(self, ids: Sequence[str], query: _Query) -> list[Hit]:
        """What is stored under these ids now, best first; the best of each document alone."""
        reader, found = Reader(self._redis, self._keys), list[Stored]()
        for first in range(0, max(1, len(ids)), PAGE_SIZE):
            there = reader.get_many(ids[first : first + PAGE_SIZE])
            found += [stored for stored in there if stored and self._fits(stored.meta)]
        form = (query.layout.dtype, len(query.row) // 4)
        if any((stored.dtype, stored.dimensions) != form for stored in found):
            raise LayoutChanged(self._keys.name)
        found.sort(key=lambda stored: stored.number or 0)
        hits = list(map(Hit, query.scores([stored.data for stored in found]), map(Record, found)))
        best: dict[str, Hit] = {}
        for hit in sorted(hits, key=lambda hit: -hit.score):
            best.setdefault(hit.document, hit)
        return list(best.values())

    def _fits(self, meta: Mapping[str, object] | None) -> bool:
        return all(
            name in (meta or {}) and _plain((meta or {})[name]) in values
            for name, values in self._filter.items()
        )


def as_vector(query: Vector) -> list[float]:
    """The numbers of a query. Raises TypeError for what is no vector."""
    try:
        return [float(number) for number in query]
    except (TypeError, ValueError):
        given = type(query).__name__
        raise TypeError(f"the query must be a text or one vector of numbers: {given}") from None


def _plain(value: object) -> object:
    """A value that equals another one if both are the same JSON; numpy's as Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value  # 1 is 1.0, but not true
    return json.dumps(value, sort_keys=True)


class _Query:
    """A query, for vectors in the layout of a collection. Raises ValueError."""

    def __init__(self, query: Vector, info: Info) -> None:
        numbers = as_vector(query)
        length = math.hypot(*numbers)
        if not 0 < length < math.inf:
            raise ValueError("the query's vector must have finite numbers, not all of them zero")
        self.layout = info.layout
        self._unit = [number / length for number in numbers]
        whole = _packed(self._unit)
        self.row = whole  # float32, as long as the stored vectors
        self.forms = [("vector", whole)]  # the query for each field that may hold a vector
        if not self.layout.is_plain:
            answered = info.dimensions or len(numbers)
            rows = self.layout.cut(decode(whole, "float32"))
            self._unit, self.row = rows[0].tolist(), rows.astype("<f4").tobytes()
            small = (self.layout.dtype, self.layout.encode(rows)[0])
            self.forms = [small, ("vector", self.row.ljust(4 * answered, b"\0"))]

    def scores(self, vectors: Sequence[bytes]) -> Sequence[float]:
        """The cosines of stored vectors to the query."""
        if not vectors:
            return []
        try:
            import numpy as np
        except ImportError:
            return [_cosine(vector, self._unit) for vector in vectors]
        matrix = decode(b"".join(vectors), self.layout.dtype, len(vectors))
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
        scores: list[float] = (matrix @ np.array(self._unit, np.float32) / lengths).tolist()
        return scores


def _packed(numbers: Sequence[float]) -> bytes:
    row = array("f", numbers)
    if sys.byteorder == "big":
        row.byteswap()
    return row.tobytes()


def _cosine(data: bytes, unit: Sequence[float]) -> float:
    vector = Stored("", data, "", False).vector
    score: float = sum(map(mul, vector, unit)) / math.sqrt(sum(map(mul, vector, vector)))
    return score
