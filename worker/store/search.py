"""A search: the stored texts whose vectors are nearest to a query, by their cosines.

The exact scan compares the query with every vector; memory stays flat. An index proposes ids
instead. Either way the texts that were found are read again at the end, each with its vector: what
was deleted or replaced meanwhile is not answered, and a score is that of the text beside it.

numpy does the arithmetic if it is installed; without it, a search is slower.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import TYPE_CHECKING, Callable, Union

from ..types import Hit, Record, Stored, parent_of
from .codec import load_meta
from .connection import Redis
from .keys import CollectionKeys
from .reader import PAGE_SIZE, Reader
from .scan import Vectors, scan

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Vector = Union[Sequence[float], NDArray[numpy.floating]]

SPARE = 20  # texts found beyond those asked for: some may be deleted before they are read

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
        self._filter = {
            name: {_plain(one) for one in (value if isinstance(value, (list, tuple)) else [value])}
            for name, value in (filter or {}).items()
        }

    def nearest(
        self,
        query: Vector,
        count: int,
        progress: Callable[[int], object] = lambda vectors: None,
    ) -> list[Hit]:
        """The `count` texts nearest to `query`, best first; of equals the earlier.

        Of the pieces of a document, the nearest alone. `progress` hears how many vectors were
        compared. Raises UnknownCollection, and CollectionGone as `scan` does.
        """
        scores = _scorer(query)
        pages = scan(self._redis, self._keys, metas=bool(self._filter))
        found = self._scanned(pages, scores, count + SPARE, progress)
        return self._read(found, scores)[:count]

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

    def _read(self, ids: Sequence[str], scores: Scores) -> list[Hit]:
        """What is stored under these ids now, best first; the best of each document alone."""
        reader, found = Reader(self._redis, self._keys), list[Stored]()
        for first in range(0, max(1, len(ids)), PAGE_SIZE):
            there = reader.get_many(ids[first : first + PAGE_SIZE])
            found += [stored for stored in there if stored and self._fits(stored.meta)]
        found.sort(key=lambda stored: stored.number or 0)
        hits = list(map(Hit, scores([stored.data for stored in found]), map(Record, found)))
        best: dict[str, Hit] = {}
        for hit in sorted(hits, key=lambda hit: -hit.score):
            best.setdefault(hit.document, hit)
        return list(best.values())

    def _fits(self, meta: Mapping[str, object] | None) -> bool:
        return all(
            name in (meta or {}) and _plain((meta or {})[name]) in values
            for name, values in self._filter.items()
        )


def _plain(value: object) -> object:
    """A value that equals another one if both are the same JSON."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value  # 1 is 1.0, but not true
    return json.dumps(value, sort_keys=True)


def _scorer(query: Vector) -> Scores:
    """A function that gives the cosines of vectors to `query`. Raises ValueError."""
    numbers = [float(number) for number in query]
    length = math.hypot(*numbers)
    if not 0 < length < math.inf:
        raise ValueError("the query's vector must have finite numbers, not all of them zero")
    unit = [number / length for number in numbers]
    try:
        import numpy as np
    except ImportError:
        return lambda vectors: [_cosine(vector, unit) for vector in vectors]
    row = np.array(unit, dtype=np.float32)

    def cosines(vectors: Sequence[bytes]) -> Sequence[float]:
        matrix = np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), len(row))
        lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix))
        scores: list[float] = (matrix @ row / lengths).tolist()
        return scores

    return cosines


def _cosine(data: bytes, unit: Sequence[float]) -> float:
    vector = Stored("", data, "", False).vector
    score: float = sum(map(mul, vector, unit)) / math.sqrt(sum(map(mul, vector, vector)))
    return score
