"""The map: vectors of a collection as points of a plane, with what is odd among them.

Vectors are read evenly over the collection. The plane is that of their two principal components, so
what is far apart there is far apart in truth, and what is near may not be. Near-duplicates and
outliers are found by the cosines of the whole vectors. Everything is the same at each run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..layout import decode
from ..types import Stored
from .connection import Redis
from .errors import CollectionError, LayoutChanged
from .evenly import Evenly
from .keys import CollectionKeys
from .reader import Reader

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Rows = NDArray[numpy.float32]

MOST = 20_000  # vectors on a map: all are compared with all
LEAST = 3
PASSAGE = 240  # characters of a text that are kept
LISTED = 12  # near-duplicates, and outliers
NEAR = 0.95  # cosine from which two texts are called near-duplicates
GROUPS = 8  # clusters, or values of a field; what has another value is one more
OTHERS = "others"
_SHOWN_ID = 40  # characters of the id that stands for a cluster
_BLOCK = 500  # vectors compared with all at once
_DENSE = 3000  # points
_AXES = 16  # principal components that clusters are made of
_ROUNDS = 30
_ROUNDING = 1e-9  # of the squares of float32 numbers: what differs by less is equal


class Point(NamedTuple):
    """A stored vector on a map: its place, from 0 to 1 both ways, and its group."""

    id: str
    x: float
    y: float
    group: int  # which name of the map's groups
    passage: str  # the beginning of its text; empty where texts are not kept


class Pair(NamedTuple):
    """Two points of a map that are near to each other, by their numbers."""

    cosine: float
    one: int
    other: int


class Around(NamedTuple):
    """A point of a map, and the one that is nearest to it, by their numbers."""

    cosine: float
    one: int
    nearest: int


class Map(NamedTuple):
    """Vectors of a collection as points of a plane."""

    collection: str
    model: str
    vectors: int  # in the collection
    points: Sequence[Point]
    groups: Sequence[str]  # names of the groups, the largest first
    coloured: str  # by which the groups are made: the name of a kept field, or `cluster`
    kept: float  # share of the variance that the plane keeps
    pairs: Sequence[Pair]  # near-duplicates, the nearest first
    outliers: Sequence[Around]  # the farthest from all others first

    @property
    def is_dense(self) -> bool:
        """Whether it has so many points that each is better drawn small."""
        return len(self.points) > _DENSE


def read_map(
    client: Redis,
    keys: CollectionKeys,
    sample: int,
    field: str | None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Map:
    """The map of at most `sample` vectors, coloured by a kept field, or else by clusters.

    `progress` hears how many were read and compared, of how many. Raises UnknownCollection,
    CollectionError if there are too few or no such field, CollectionGone if the collection is
    dropped meanwhile, and LayoutChanged if it is shrunk.
    """
    reader = Reader(client, keys)
    size, info = reader.size(), reader.info()
    total = min(sample, size, MOST)
    read = _read(Evenly(reader, size), total, keys.name, field, progress)
    if len(read.ids) < LEAST:
        few = f"collection {keys.name} has {len(read.ids):,} vectors"
        raise CollectionError(f"{few}: a map needs at least {LEAST}")
    unit = _unit(read.rows)
    axes, kept = principal(unit, _AXES)
    number = max(1, min(GROUPS, len(axes) // 25))
    if field is None:
        labels, names = clusters(axes, number)
        names = [
            f"{name}: like {read.ids[one][:_SHOWN_ID]}"
            for name, one in zip(names, typical(axes, labels, len(names)))
        ]
    else:
        labels, names = _values(read.values, field)
    places = _scaled(axes[:, :2])
    points = [
        Point(id, float(x), float(y), int(label), passage)
        for id, (x, y), label, passage in zip(read.ids, places, labels, read.passages)
    ]
    pairs, lonely = _compared(unit, lambda done: progress(total + done, 2 * total))
    coloured = "cluster" if field is None else field
    return Map(keys.name, info.model or "", size, points, names, coloured, kept, pairs, lonely)


class _Read(NamedTuple):
    ids: list[str]
    passages: list[str]
    values: list[str]  # of the field
    rows: Rows


def _read(
    evenly: Evenly,
    total: int,
    name: str,
    field: str | None,
    progress: Callable[[int, int], object],
) -> _Read:
    """Read vectors; of each no more of its text than a passage."""
    import numpy as np

    read = _Read([], [], [], np.empty((0, 0), dtype=np.float32))
    rows: list[Rows] = []
    like: Stored | None = None
    for some in evenly.read(total):
        for one in some:
            like = like or one
            if (one.dtype, len(one.data)) != (like.dtype, len(like.data)):
                raise LayoutChanged(name)
            read.ids.append(one.id)
            read.passages.append(" ".join((one.text or "")[: 2 * PASSAGE].split())[:PASSAGE])
            read.values.append(_value(one.meta, field))
        if some:
            rows.append(decode(b"".join(one.data for one in some), some[0].dtype, len(some)))
        progress(len(read.ids), 2 * total)
    return read._replace(rows=np.concatenate(rows)) if rows else read


def _value(meta: Mapping[str, object] | None, field: str | None) -> str:
    value = None if meta is None or field is None else meta.get(field)
    return "" if value is None else str(value)[:60]


def _values(values: Sequence[str], field: str) -> tuple[Sequence[int], list[str]]:
    """The group of each, and the names of the groups: the most frequent values, and all others."""
    common = [value for value, _ in Counter(filter(None, values)).most_common(GROUPS)]
    if not common:
        raise CollectionError(f"no vector that was read has a kept field {field!r}")
    place = {value: number for number, value in enumerate(common)}
    labels = [place.get(value, len(common)) for value in values]
    return labels, [*common, *([OTHERS] if len(common) in labels else [])]


def principal(rows: Rows, most: int) -> tuple[Rows, float]:
    """The rows along their first `most` principal components, at least two of them.

    And the share of the variance that the first two keep.
    """
    import numpy as np

    centred = rows - rows.mean(axis=0)
    if float((centred**2).sum()) <= _ROUNDING * float((rows**2).sum()):
        return np.zeros((len(rows), 2), dtype=np.float32), 1.0  # all are equal
    variances, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1][:, : max(2, most)]
    # A direction may as well be its opposite: the same one every time.
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, range(directions.shape[1])])
    axes = centred @ directions
    if axes.shape[1] < 2:  # vectors of a single number
        axes = np.hstack([axes, np.zeros_like(axes)])
    whole = float(variances.sum())
    return axes.astype(np.float32), float(variances[-2:].sum()) / whole if whole > 0 else 1.0


def clusters(rows: Rows, number: int) -> tuple[Sequence[int], list[str]]:
    """The cluster of each row, the largest first, by k-means; and their names."""
    import numpy as np

    chosen = np.random.default_rng(0)
    centres = rows[[int(chosen.integers(len(rows)))]]
    for _ in range(number - 1):  # far from those before: k-means++
        distances = _distances(rows, centres).min(axis=1)
        total = float(distances.sum())
        if total <= 0:
            break  # fewer different rows than clusters
        next_one = int(chosen.choice(len(rows), p=distances / total))
        centres = np.vstack([centres, rows[next_one]])
    labels = _distances(rows, centres).argmin(axis=1)
    for _ in range(_ROUNDS):
        means = [rows[labels == n].mean(axis=0) for n in range(len(centres)) if (labels == n).any()]
        centres = np.array(means)
        before, labels = labels, _distances(rows, centres).argmin(axis=1)
        if (before == labels).all():
            break
    sizes = np.bincount(labels, minlength=len(centres))
    place = np.argsort(np.argsort(-sizes, kind="stable"))  # one that became empty is the last
    return place[labels].tolist(), [f"cluster {n}" for n in range(1, np.count_nonzero(sizes) + 1)]


def typical(rows: Rows, labels: Sequence[int], number: int) -> list[int]:
    """The row nearest to the middle of each cluster."""
    import numpy as np

    found = []
    for label in range(number):
        members = np.flatnonzero(np.asarray(labels) == label)
        middle = rows[members].mean(axis=0)[None]
        found.append(int(members[_distances(rows[members], middle).argmin()]))
    return found


def _distances(rows: Rows, centres: Rows) -> NDArray[numpy.float64]:
    """The squared distance of each row to each centre."""
    import numpy as np

    wide, few = rows.astype(np.float64), centres.astype(np.float64)
    squares = (wide**2).sum(axis=1)[:, None] + (few**2).sum(axis=1) - 2 * wide @ few.T
    distances: NDArray[numpy.float64] = np.maximum(squares, 0)
    return distances


def _scaled(places: Rows) -> Rows:
    """Places between 0 and 1, both axes at one scale."""
    least = places.min(axis=0)
    span = float((places.max(axis=0) - least).max()) or 1.0
    margin = (1 - (places.max(axis=0) - least) / span) / 2
    scaled: Rows = (places - least) / span + margin
    return scaled


def _compared(unit: Rows, progress: Callable[[int], object]) -> tuple[list[Pair], list[Around]]:
    """The nearest pairs, and those whose nearest is farthest, by all cosines."""
    import numpy as np

    nearest = np.empty(len(unit), dtype=np.intp)
    cosines = np.empty(len(unit), dtype=np.float32)
    for first in range(0, len(unit), _BLOCK):
        block = unit[first : first + _BLOCK] @ unit.T
        rows = np.arange(len(block))
        block[rows, first + rows] = -np.inf
        nearest[first : first + len(block)] = block.argmax(axis=1)
        cosines[first : first + len(block)] = block.max(axis=1)
        progress(first + len(block))
    found = {
        (min(one, other), max(one, other)): float(cosine)
        for one, (other, cosine) in enumerate(zip(nearest.tolist(), cosines.tolist()))
        if cosine >= NEAR
    }
    pairs = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:LISTED]
    alone = [one for one in np.argsort(cosines, kind="stable")[:LISTED] if cosines[one] < NEAR]
    return (
        [Pair(min(1.0, cosine), *both) for both, cosine in pairs],
        [Around(float(cosines[one]), int(one), int(nearest[one])) for one in alone],
    )


def _unit(rows: Rows) -> Rows:
    import numpy as np

    unit: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
