"""A search: the stored vectors that are nearest to a query, by an exact scan.

Only the best vectors so far are kept, so memory stays flat. numpy does the arithmetic if it is
installed; without it, the search is slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import Callable, NamedTuple

from ..types import Stored, parent_of


class Hit(NamedTuple):
    """A stored vector, and the cosine of its angle to the query."""

    score: float
    record: Stored

    @property
    def document(self) -> str:
        """The id of the document that the record is a piece of, or its own."""
        return parent_of(self.record.id, self.record.meta) or self.record.id


def nearest(pages: Iterable[Sequence[Stored]], query: Sequence[float], count: int) -> list[Hit]:
    """The `count` records with the highest cosine to `query`, best first; of equals the earlier.

    Of the pieces of a document, the nearest alone.
    """
    cosines = _scorer(query)
    best: dict[str, Hit] = {}  # by document
    least = -math.inf
    for page in pages:
        for score, record in zip(cosines(page), page):
            if score > least:
                hit = Hit(score, record)
                if hit.document not in best or score > best[hit.document].score:
                    best[hit.document] = hit
        if len(best) > count:
            best = {hit.document: hit for hit in _ranked(best)[:count]}
            least = min(hit.score for hit in best.values())
    return _ranked(best)


def _ranked(hits: Mapping[str, Hit]) -> list[Hit]:
    return sorted(hits.values(), key=lambda hit: -hit.score)  # of equals the earlier comes first


def _scorer(query: Sequence[float]) -> Callable[[Sequence[Stored]], list[float]]:
    """A function that gives the cosines of a page of records."""
    length = math.sqrt(sum(map(mul, query, query)))
    unit = [number / length for number in query]
    try:
        import numpy as np
    except ImportError:
        return lambda page: [_cosine(record, unit) for record in page]
    row = np.array(unit, dtype=np.float32)

    def cosines(page: Sequence[Stored]) -> list[float]:
        data = b"".join([record.data for record in page])
        matrix = np.frombuffer(data, dtype="<f4").reshape(len(page), len(row))
        scores: list[float] = (matrix @ row / np.linalg.norm(matrix, axis=1)).tolist()
        return scores

    return cosines


def _cosine(record: Stored, unit: Sequence[float]) -> float:
    vector = record.vector
    score: float = sum(map(mul, vector, unit)) / math.sqrt(sum(map(mul, vector, vector)))
    return score
