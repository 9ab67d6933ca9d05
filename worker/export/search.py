"""A search: the stored vectors that are nearest to a query, by an exact scan.

Only the best vectors so far are kept, so memory stays flat. numpy does the arithmetic if it is
installed; without it, the search is slower.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from operator import mul
from typing import Callable, NamedTuple

from ..types import Stored


class Hit(NamedTuple):
    """A stored vector, and the cosine of its angle to the query."""

    score: float
    record: Stored


def nearest(pages: Iterable[Sequence[Stored]], query: Sequence[float], count: int) -> list[Hit]:
    """The `count` records with the highest cosine to `query`, best first; of equals the earlier."""
    cosines = _scorer(query)
    best: list[tuple[float, int, Stored]] = []
    number = 0
    for page in pages:
        for score, record in zip(cosines(page), page):
            number -= 1  # no two are equal, so records need no order
            if len(best) < count:
                heapq.heappush(best, (score, number, record))
            elif score > best[0][0]:
                heapq.heapreplace(best, (score, number, record))
    return [Hit(score, record) for score, _, record in sorted(best, reverse=True)]


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
