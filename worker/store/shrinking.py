"""Shrinking: the stored vectors of a collection get a smaller layout, in place.

The layout is set first, in one step: from then on workers store vectors in it, and a reader sees
all vectors in it, also those that are still stored in a larger form. These are replaced page by
page. So a collection is right at every moment, and whoever is interrupted begins again: what is
done already is only looked at.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..layout import SIZES, Layout, LayoutError, asked, decode_field
from ..types import Info, Shrunk
from .connection import Argument, Redis, run
from .errors import CollectionGone, LayoutChanged
from .keys import CollectionKeys
from .reader import Reader

if TYPE_CHECKING:
    from ..layout import Rows

LOOK_SIZE = 1000  # vectors looked at in one step: some 2 ms in which Redis serves no one else
PAGE_SIZE = 250  # vectors replaced in one step


class Larger(NamedTuple):
    """A stored vector that is not in the layout yet."""

    id: str
    hash: bytes
    field: str
    data: bytes


class Shrinking:
    """Makes the stored vectors of one collection smaller."""

    def __init__(self, client: Redis, keys: CollectionKeys) -> None:
        self._redis = client
        self._keys = keys
        self._reader = Reader(client, keys)

    def plan(self, dimensions: int | None, dtype: str | None, *, force: bool) -> Layout:
        """The layout that is asked for, as `smaller` tells. Raises UnknownCollection."""
        info = self._reader.info()
        if info.model is None:
            raise self._reader.unknown()
        return smaller(info, dimensions, dtype, force=force)

    def set_layout(self, layout: Layout) -> bytes:
        """Set the layout of the collection; returns the collection's life.

        Raises UnknownCollection, and LayoutError for a layout that is larger than the one it has.
        """
        keys = self._keys
        while True:
            born, info = self._reader.born(), self._reader.info()
            if info.model is None:
                raise self._reader.unknown()
            check_smaller(info, layout)
            args: list[Argument] = [born, str(info.layout), str(layout)]
            if layout == info.layout or run(
                self._redis, "store/layout", [keys.info, keys.done], args, resends=5
            ):
                return born

    def shrink(self, layout: Layout, progress: Callable[[Shrunk], object]) -> Shrunk:
        """Set the layout, and replace all vectors that are stored in a larger form.

        Raises CollectionGone if the collection is dropped meanwhile, LayoutChanged if it gets a
        layout that is smaller still, and LayoutError before anything changes if nothing is left of
        a vector.
        """
        its = self._reader.info().layout
        if layout not in (its, its._replace(dtype=layout.dtype)):
            for _, page in self._pages(layout, self._reader.born()):
                _check_kept(layout, page)
        born = self.set_layout(layout)
        done = Shrunk()
        if layout.is_plain:
            return done
        for looked, page in self._pages(layout, born, layout):
            shrunk = self._replace(layout, born, page)
            done = Shrunk(done.vectors + looked, done.shrunk + shrunk)
            progress(done)
        return done

    def _pages(
        self, layout: Layout, born: bytes, its: Layout | None = None
    ) -> Iterator[tuple[int, list[Larger]]]:
        """How many vectors were looked at, and those of them that are larger, step by step.

        `its`: the layout of the collection all the while; None: whatever it is.
        """
        keys = self._keys
        dimensions = self._reader.info().dimensions
        after = b"0"
        while dimensions and after:
            args: list[Argument] = [keys.doc_prefix, after, LOOK_SIZE, PAGE_SIZE]
            args += (layout.dtype, layout.size(dimensions))
            names = [keys.done, keys.info]
            now, said, looked, after, *rows = run(
                self._redis, "store/larger", names, args, resends=5
            )
            self._check(now == born, its is None or said.decode() == str(its))
            if after:
                yield (
                    looked,
                    [
                        Larger(id.decode(), hash, field.decode(), data)
                        for id, hash, field, data in zip(*[iter(rows)] * 4)
                    ],
                )

    def _replace(self, layout: Layout, born: bytes, page: Sequence[Larger]) -> int:
        keys = self._keys
        args: list[Argument] = [keys.doc_prefix, born, str(layout), layout.dtype]
        for one, vector in zip(page, _encoded(layout, page)):
            args += (one.id, one.hash, vector)
        if not page:
            return 0
        shrunk: int = run(self._redis, "store/shrink", [keys.info, keys.done], args, resends=5)
        self._check(shrunk >= 0 or self._reader.born() == born, shrunk >= 0)
        return shrunk

    def _check(self, is_alive: bool, is_same: bool) -> None:
        if not is_alive:
            raise CollectionGone(self._keys.name)
        if not is_same:
            raise LayoutChanged(self._keys.name, shrinking=True)


def smaller(
    info: Info, dimensions: int | None = None, dtype: str | None = None, *, force: bool = False
) -> Layout:
    """The layout that is asked for; what is None stays as it is.

    `force`: also for a length that the model is not known for. Raises LayoutError for one that the
    stored vectors cannot be brought into.
    """
    its, stays = info.layout, dimensions in (None, info.length)
    dtype = its.dtype if dtype is None else dtype
    layout = asked(its.model, None if stays else dimensions, dtype, force=force)
    assert layout is not None
    layout = layout._replace(dimensions=its.dimensions) if stays else layout
    check_smaller(info, layout)
    return layout


def check_smaller(info: Info, layout: Layout) -> None:
    """Raise LayoutError if the stored vectors of a collection cannot be brought into `layout`."""
    its, longest = info.layout, info.dimensions or sys.maxsize
    if layout.length(longest) > its.length(longest) or SIZES[layout.dtype] > SIZES[its.dtype]:
        raise LayoutError(
            f"vectors that are stored as {shown(info, its)} cannot become {shown(info, layout)}: "
            "what was cut away is gone; enqueue the corpus into another collection"
        )


def shown(info: Info, layout: Layout) -> str:
    """The name of a layout, with the number of dimensions if it is known."""
    if info.dimensions is None:
        return layout.name
    return layout._replace(dimensions=layout.length(info.dimensions)).name


def _check_kept(layout: Layout, page: Sequence[Larger]) -> None:
    """Raise LayoutError if nothing would be left of a vector."""
    for indexes, rows in _alike(page):
        if not layout.can_keep(rows):
            kept = [layout.can_keep(rows[n : n + 1]) for n in range(len(rows))]
            raise LayoutError(
                f"nothing is left of the vector of id {page[indexes[kept.index(False)]].id!r} if "
                f"it is cut to {layout.dimensions} dimensions: choose more, or delete the id"
            )


def _encoded(layout: Layout, page: Sequence[Larger]) -> list[bytes]:
    """Each vector in the layout."""
    encoded = [b""] * len(page)
    for indexes, rows in _alike(page):
        for index, row in zip(indexes, layout.encode(rows)):
            encoded[index] = row
    return encoded


def _alike(page: Sequence[Larger]) -> Iterator[tuple[list[int], Rows]]:
    """The vectors of one form together: where in the page they are, and a matrix of them."""
    forms: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for index, one in enumerate(page):
        forms[one.field, len(one.data)].append(index)
    for (field, _), indexes in forms.items():
        data = b"".join([page[index].data for index in indexes])
        yield indexes, decode_field(field, data, len(indexes))
