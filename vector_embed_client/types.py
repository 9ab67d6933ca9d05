"""What the API answers, as frozen values."""

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class EmbedResponse:
    """One text's vector: `dimensions` floats. `cached`: it was stored before and cost nothing."""

    vector: list[float]
    cached: bool
    dimensions: int


@dataclass(frozen=True)
class SearchResult:
    """One stored text near the query. `score` is (cosine + 1) / 2, from 0 to 1."""

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
    """The account's counts, in texts."""

    cache_hits: int
    cache_misses: int
    total_cached: int


@dataclass(frozen=True)
class HealthResponse:
    """What the server says of itself."""

    status: str
    version: str
