"""The answers of the API: frozen values, and vectors as float32 rows in one block of memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True)
class EmbedResponse:
    """The vector of one text: `dimensions` floats. `cached`: it came from the cache, at no cost."""

    vector: list[float]
    cached: bool
    dimensions: int

    def __repr__(self) -> str:
        cached = ", cached" if self.cached else ""
        return f"EmbedResponse({_short(self.vector)}{cached})"


class EmbeddingArray:
    """A batch of vectors: `len(array)` rows of `dimensions` float32. No Python float is made.

    cached: for each row, whether it came from the cache, at no cost.
    """

    __slots__ = ("_data", "cached", "dimensions")

    def __init__(self, data: bytes, dimensions: int, cached: list[bool]) -> None:
        if len(data) != 4 * dimensions * len(cached):
            raise ValueError(
                f"{len(data)} bytes are not {len(cached)} rows of {dimensions} float32 values"
            )
        self._data = data
        self.dimensions = dimensions
        self.cached = cached

    def __len__(self) -> int:
        return len(self.cached)

    def __repr__(self) -> str:
        return f"EmbeddingArray({len(self)} x {self.dimensions} float32)"

    def row(self, index: int) -> "memoryview[float]":
        """The vector of text `index`: a read-only view of `dimensions` float32 values, not a copy.

        Its elements are floats; `bytes(row)` is 4 x dimensions bytes, little-endian. Raises
        IndexError.
        """
        size = 4 * self.dimensions
        start = range(len(self))[index] * size
        return memoryview(self._data)[start : start + size].cast("f")

    def tobytes(self) -> bytes:
        """All rows: 4 x dimensions x len bytes, little-endian float32."""
        return self._data

    def to_numpy(self) -> "NDArray[numpy.float32]":
        """A read-only array of shape (len, dimensions) over the same memory. Needs numpy."""
        import numpy

        rows = numpy.frombuffer(self._data, dtype="<f4")
        return rows.reshape(len(self), self.dimensions)


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
        vector = "" if self.vector is None else f", {_short(self.vector)}"
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


def _short(vector: Sequence[float]) -> str:
    """A vector in one short line, for a `repr`: `768 dimensions: [0.0123, -0.4, 0.7, ...]`."""
    first = ", ".join(f"{number:.4g}" for number in vector[:3])
    return f"{len(vector)} dimensions: [{first}{', ...' if len(vector) > 3 else ''}]"
