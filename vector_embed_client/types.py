"""The answers of the API, as frozen values."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class EmbedResponse:
    """The vector of one text: `dimensions` floats. `cached`: it came from the cache, at no cost."""

    vector: list[float]
    cached: bool
    dimensions: int


@dataclass(frozen=True)
class SearchResult:
    """A stored text near the query. `score` is (cosine + 1) / 2, from 0 to 1."""

    text_hash: str
    score: float
    text: Optional[str]  # only with include_text=True
    model: str
    hit_count: int
    vector: Optional[list[float]] = None  # only with include_vectors=True


@dataclass(frozen=True)
class SearchResponse:
    """The nearest stored texts, best first."""

    results: list[SearchResult]
    total: int
    search_time_ms: float


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
