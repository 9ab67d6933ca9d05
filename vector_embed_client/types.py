"""The answers of the API, as frozen values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class EmbedResponse:
    """The vector of one text: `dimensions` floats. `cached`: it came from the cache, at no cost."""

    vector: list[float]
    cached: bool
    dimensions: int

    def __repr__(self) -> str:
        cached = ", cached" if self.cached else ""
        return f"EmbedResponse({short_vector(self.vector)}{cached})"


@dataclass(frozen=True)
class SearchResult:
    """A stored text near the query. `score` is (cosine + 1) / 2, from 0 to 1."""

    text_hash: str
    score: float
    text: Optional[str]  # only with include_text=True
    model: str
    hit_count: int
    vector: Optional[list[float]] = None  # only with include_vectors=True

    def __repr__(self) -> str:
        vector = "" if self.vector is None else f", {short_vector(self.vector)}"
        return f"SearchResult({self.text_hash[:12]!r}, score {self.score:.4f}{vector})"


@dataclass(frozen=True)
class SearchResponse:
    """The nearest stored texts, best first."""

    results: list[SearchResult]
    total: int
    search_time_ms: float

    def __repr__(self) -> str:
        return f"SearchResponse({len(self.results)} of {self.total} results)"


@dataclass(frozen=True)
class StatsResponse:
    """The counts of the account, in texts."""

    cache_hits: int
    cache_misses: int
    total_cached: int


@dataclass(frozen=True)
class HealthResponse:
    """The status and the version of the server."""

    status: str
    version: str


def short_vector(vector: Sequence[float]) -> str:
    """A vector in one short line, for a `repr`: `768 dimensions: [0.0123, -0.4, 0.7, ...]`."""
    first = ", ".join(f"{number:.4g}" for number in vector[:3])
    return f"{len(vector)} dimensions: [{first}{', ...' if len(vector) > 3 else ''}]"
