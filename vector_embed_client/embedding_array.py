"""Vectors as float32 rows in one block of memory: no Python float is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


class EmbeddingArray:
    """One batch of vectors: `len(array)` rows of `dimensions` float32, row after row.

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

    def row(self, index: int) -> memoryview[float]:
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

    def to_numpy(self) -> NDArray[numpy.float32]:
        """A read-only array of shape (len, dimensions) over the same memory. Needs numpy."""
        import numpy

        rows = numpy.frombuffer(self._data, dtype="<f4")
        return rows.reshape(len(self), self.dimensions)
