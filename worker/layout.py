"""The layout of a collection: how long its stored vectors are, and of which type their numbers.

A collection without a layout keeps each vector as the API answered: float32, all of its numbers. A
layout keeps less: the first numbers alone, smaller numbers, or both. It keeps the direction of a
vector; the length of what is read back is 1.

A model that was trained for it (Matryoshka) puts most of a text's meaning into the first numbers.
To cut, nomic-embed-text-v1.5 wants a layer norm of the whole vector first, as its model card says:
https://huggingface.co/nomic-ai/nomic-embed-text-v1.5

    float32  four bytes a number
    float16  two bytes; 11 bits of precision
    int8     one byte: times 127, divided by the greatest absolute number, which is not kept
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import index
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Rows = NDArray[numpy.float32]

SIZES = {"float32": 4, "float16": 2, "int8": 1}  # bytes of a number
DTYPES = tuple(SIZES)
BESIDE = 330  # bytes of memory beside a vector's numbers
KINDS = {"float32": "<f4", "float16": "<f2", "int8": "|i1"}  # for numpy

# The lengths that a model was trained for, its own first.
_NOMIC = (768, 512, 256, 128, 64)
_LENGTHS = {
    "nomic-v1.5": _NOMIC,
    "nomic-embed-text-v1.5": _NOMIC,
    "wordllama-256": (256, 128, 64),
}


class LayoutError(ValueError):
    """A layout that a collection cannot have. `may_force`: if its user insists, it can."""

    def __init__(self, what: str, *, may_force: bool = False) -> None:
        self.what, self.may_force = what, may_force
        how = "; pass force=True if you know that it does not" if may_force else ""
        super().__init__(what + how)


class Layout(NamedTuple):
    """What a stored vector of a collection is.

    `dimensions`: at most this many numbers; None: as many as the API answers with.
    """

    model: str
    dimensions: int | None = None
    dtype: str = "float32"

    @classmethod
    def read(cls, model: str, said: str | None) -> Layout:
        """The layout from the field `layout` of a collection's info."""
        dtype, _, dimensions = (said or "float32").partition(" ")
        if dtype not in SIZES:
            raise LayoutError(f"layout {said!r} is of a later version: upgrade this program")
        return cls(model, int(dimensions) if dimensions else None, dtype)

    def __str__(self) -> str:
        """As it is kept in the info of a collection; empty for a plain layout."""
        if self.is_plain:
            return ""
        return self.dtype if self.dimensions is None else f"{self.dtype} {self.dimensions}"

    @property
    def name(self) -> str:
        """For a person: `float16 with 256 dimensions`."""
        return f"{self.dtype} with {self.dimensions or 'all'} dimensions"

    @property
    def options(self) -> str:
        """The options of `vec-enqueue` that ask for it."""
        if self.dimensions is None:
            return f"--dtype {self.dtype}"
        return f"--dimensions {self.dimensions} --dtype {self.dtype}"

    @property
    def is_plain(self) -> bool:
        """Whether vectors are stored as the API answered."""
        return self.dimensions is None and self.dtype == "float32"

    @property
    def field(self) -> str:
        """The field of a stored vector that has its numbers."""
        return "vector" if self.is_plain else self.dtype

    def length(self, answered: int) -> int:
        """How long stored vectors are if the API answers with vectors this long."""
        return min(self.dimensions or answered, answered)

    def size(self, answered: int) -> int:
        """How many bytes that are."""
        return self.length(answered) * SIZES[self.dtype]

    def cut(self, rows: Rows) -> Rows:
        """Vectors of length 1, as long as the layout's.

        `rows` are vectors of the API, or of a larger layout.
        """
        import numpy as np

        kept = self._kept(rows)
        kept /= np.linalg.norm(kept, axis=1, keepdims=True)
        return kept.astype(np.float32)

    def can_keep(self, rows: Rows) -> bool:
        """Whether more than a millionth of the length of each vector is left when it is cut."""
        import numpy as np

        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        return bool((np.linalg.norm(self._kept(rows), axis=1) > 1e-6 * lengths).all())

    def _kept(self, rows: Rows) -> NDArray[numpy.float64]:
        """What is kept of each vector, before it gets the length 1."""
        import numpy as np

        answered = rows.shape[1]
        wide = rows.astype(np.float64)
        if self.length(answered) < answered == self._normed:
            # A layer norm also divides by the deviation, which the length 1 undoes.
            wide -= wide.mean(axis=1, keepdims=True)
        return wide[:, : self.dimensions]

    @property
    def _normed(self) -> int | None:
        """The length of vectors that need a layer norm before they are cut."""
        return _NOMIC[0] if _LENGTHS.get(_name(self.model)) is _NOMIC else None

    def encode(self, rows: Rows) -> list[bytes]:
        """Each vector of the API, or of a larger layout, as it is stored."""
        import numpy as np

        if not self.is_plain:
            rows = self.cut(rows)
        if self.dtype == "int8":
            rows = np.rint(rows * (127 / np.abs(rows).max(axis=1, keepdims=True)))
        return [row.tobytes() for row in rows.astype(KINDS[self.dtype])]


PLAIN = Layout("")


def decode(data: bytes, dtype: str, count: int = 1) -> Rows:
    """`count` stored vectors of one layout as float32, a row each; of int8, with length 1."""
    import numpy as np

    rows = np.frombuffer(data, KINDS[dtype]).reshape(count, -1).astype(np.float32, copy=False)
    if dtype == "int8":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def decode_field(field: str, data: bytes, count: int = 1) -> Rows:
    """`count` stored vectors of one layout, from the field that their numbers are in."""
    return decode(data, "float32" if field == "vector" else field, count)


def lengths_of(model: str) -> tuple[int, ...]:
    """The lengths that a model was trained for, its own first; empty if they are not known."""
    return _LENGTHS.get(_name(model), ())


def asked(
    model: str, dimensions: int | None = None, dtype: str | None = None, *, force: bool = False
) -> Layout | None:
    """The layout that a person asks for; None if neither is said.

    `force`: also for a length that the model is not known for. Raises LayoutError.
    """
    if dimensions is None and dtype is None:
        return None
    if dtype is not None and not (isinstance(dtype, str) and dtype in SIZES):
        raise LayoutError(f"dtype {dtype!r} must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    lengths = lengths_of(model)
    if dimensions is not None:
        dimensions = whole("dimensions", dimensions)
        if dimensions < 1:
            raise LayoutError(f"dimensions must be at least 1, not {dimensions}")
        if lengths and dimensions > lengths[0]:
            raise LayoutError(f"vectors of {model} have {lengths[0]} dimensions, not {dimensions}")
        if dimensions not in lengths and not force:
            known = f"{model} was trained for " + ", ".join(map(str, lengths))
            reason = known if lengths else f"the lengths {model} was trained for are not known"
            what = f"{dimensions} dimensions: {reason}: another length may lose much"
            raise LayoutError(what, may_force=True)
    own = bool(lengths) and dimensions == lengths[0]
    return Layout(model, None if own else dimensions, dtype or "float32")


def whole(name: str, value: object) -> int:
    """An argument that a program gives as a whole number. Raises TypeError."""
    try:
        return index(value)  # type: ignore[arg-type]  # that is what is looked at
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r:.80}") from None


def memory(length: int, dtype: str) -> int:
    """The bytes of Redis' memory that a vector takes, with an id of some 8 characters.

    Measured for 7 layouts on Redis 7.0: its numbers, and 330 bytes.
    """
    return allocated(length * SIZES[dtype]) + BESIDE


def allocated(size: int, allocator: str = "jemalloc") -> int:
    """The memory of a string of Redis with this many bytes.

    An allocator rounds up: jemalloc to a step that is up to a quarter of it, others to 16 bytes.
    """
    total = size + (4 if size < 256 else 6)  # with its length, and a zero at its end
    step = 16
    if allocator == "jemalloc":
        step = max(step, 1 << (total - 1).bit_length() - 3)
    else:
        total += 8
    return -(-total // step) * step


def alternatives(layout: Layout) -> Iterator[Layout]:
    """Layouts that are worth a look beside this one: of each dtype, whole and cut."""
    lengths = lengths_of(layout.model)
    shorter = lengths[len(lengths) // 2] if lengths else None
    for dimensions in dict.fromkeys((None, shorter)):
        for dtype in DTYPES:
            other = Layout(layout.model, dimensions, dtype)
            if other != layout:
                yield other


def _name(model: str) -> str:
    return model.rpartition("/")[2].lower()
