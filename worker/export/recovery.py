"""Recovery: where an export continues, after a kill, a lost Redis, or a sink that was away.

What the sink holds is evicted, if that is asked; what Redis holds under numbers that the sink gave
to others gets new numbers, and is exported too. Two notes show it: Redis has the number up to which
the sink holds its vectors, and the sink has the life of the collection that it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from ..layout import Layout
from ..logs import logger
from ..store.eviction import EVICT_SIZE, Eviction
from ..store.reader import PAGE_SIZE, Reader
from ..store.removal import Removal
from ..types import Position, Stored
from .sink import TOMBSTONES, Sink

T = TypeVar("T")

_COMPARE = -1  # in place of a number of tombstones: the sink is being compared


class Place(NamedTuple):
    """Where an export continues."""

    born: bytes  # the life of the collection; empty before its first
    layout: Layout
    vectors: int  # the number of the last vector that the sink holds
    tombstones: int  # and of the last tombstone
    evicted: int  # vectors that an earlier export had written
    compared: int  # ids that were found to be deleted


class Recovery:
    """The recovery of one export, which has the lock of `sink` under its `token`."""

    def __init__(
        self,
        sink: Sink,
        token: str,
        reader: Reader,
        eviction: Eviction,
        removal: Removal,
        *,
        evict: bool,
    ) -> None:
        self._sink = sink
        self._token = token
        self._reader = reader
        self._eviction = eviction
        self._removal = removal
        self._evict = evict

    def run(self) -> Place:
        """Settle what Redis and the sink have in common. It may be interrupted and run again."""
        sink, evicted = self._sink, 0
        highest, held, presumed = sink.watermarks()
        born, layout = self._reader.born(), self._reader.info().layout
        if born:
            sink.accept(born, layout)
        is_same = born == sink.life
        is_whole = is_same and self._eviction.exported(self._token) >= highest
        went_back = self._reader.known([]).commits < held
        self._eviction.renumber([], max(highest, held), born=born)
        if born and sink.life not in (None, born):
            logger.warning(
                "%s holds an earlier life of %s, which was dropped or lost since: all that is "
                "stored now is written beside it; to have it alone, name a new folder",
                sink,
                sink.collection,
            )
            for page in self._pages(0, highest):
                self._renumber(page, highest, born)
        else:
            is_dug = not born or self._dig_out(highest, held, born, forget=went_back)
            noted = self._eviction.exported(self._token) if is_dug else 0
            evicted = self._settle(max(presumed, noted), highest, born)
            if born and noted < highest:
                later = sink.positions(noted)
                self._raise(later, max(highest, held), born, forget=True)
        tombstones, compared = 0, 0
        if born:
            sink.note_life(born)
            tombstones, compared = self._follow_on(highest, held, is_same, is_whole, born)
        self._eviction.note_exported(self._token, highest, born)
        return Place(born, layout, highest, tombstones, evicted, compared)

    def _settle(self, known: int, highest: int, born: bytes) -> int:
        """Evict what the sink holds, if asked, and renumber what it does not hold.

        What Redis has noted is in the sink; what is evicted has to be compared anyway. Returns how
        many were evicted.
        """
        strangers = evicted = 0
        for page in self._pages(0 if self._evict else known, highest):
            held = self._sink.holds(page)
            if self._evict:
                ours = [position for position, is_held in zip(page, held) if is_held]
                for some in chunks(ours):
                    evicted += self._eviction.evict(self._token, some, born=born)
            others = [position for position, is_held in zip(page, held) if not is_held]
            self._renumber(others, highest, born)
            strangers += len(others)
        if strangers:
            logger.warning(
                "%d vectors of %s have numbers under which %s holds others, or none: Redis went "
                "back in time, or files are gone. They are written as well",
                strangers,
                self._sink.collection,
                self._sink,
            )
        return evicted

    def _pages(self, after: int, last: int) -> Iterator[list[Position]]:
        """The vectors in Redis numbered `after` + 1 to `last`."""
        while after < last and (page := self._reader.finished(after, PAGE_SIZE)):
            some = [position for position in map(position_of, page) if position.number <= last]
            if not some:
                return
            yield some
            after = some[-1].number

    def _renumber(self, positions: Sequence[Position], above: int, born: bytes) -> None:
        if positions:
            self._eviction.renumber(positions, above, born=born)

    # Tombstones

    def _follow_on(
        self, highest: int, held: int, is_same: bool, is_whole: bool, born: bytes
    ) -> tuple[int, int]:
        """Continue where the tombstones in the sink end.

        `held`: their highest number. `is_same`: the sink holds this life of the collection.
        `is_whole`: and Redis knows of all its vectors. Returns the number from which it continues,
        and how many ids were found to be deleted.
        """
        commits = self._reader.known([]).commits
        noted, trimmed = self._eviction.followed(self._token)
        if noted is not None and max(noted, held) >= trimmed and noted >= 0:
            return max(noted, held), 0
        if not is_whole:
            self._eviction.note_followed(self._token, commits, born)
            if highest and is_same:
                logger.warning(
                    "%s may hold vectors of ids that were deleted from %s: verify it against the "
                    "corpus, or name a new folder",
                    self._sink,
                    self._sink.collection,
                )
            return commits, 0
        # From now on Redis keeps them; what was deleted before shows in what is not there.
        self._eviction.note_followed(self._token, _COMPARE, born)
        self._eviction.renumber([], commits + 1, born=born)
        absent = Counted(self._absent(commits + 1))
        self._sink.write_tombstones(absent)
        self._eviction.note_followed(self._token, commits + 1, born)
        return commits + 1, absent.count

    def _absent(self, number: int) -> Iterator[Position]:
        """A tombstone with this number for what the sink holds and the collection does not know."""
        for some in chunks(self._sink.positions()):
            known = self._reader.known([position.id for position in some])
            for position, state, evicted in zip(some, known.states, known.evicted):
                if not (any(state) or evicted):
                    yield Position(number, position.id, b"")

    def _dig_out(self, highest: int, held: int, born: bytes, *, forget: bool) -> bool:
        """Give new numbers to vectors that Redis has again, and the sink has something later of.

        `forget`: Redis went back in time, behind deletions, and what it remembers of evicted ones
        is no longer in the sink. Returns whether the sink knew all of those tombstones.
        """
        dug = 0
        above = max(highest, held)
        noted = self._eviction.followed(self._token)[0] or 0
        if noted < held:
            tombstones = Counted(self._sink.tombstones(noted))
            self._raise(tombstones, above, born, forget=forget)
            dug = tombstones.count
            for page in self._pages(highest, held):
                self._renumber(page, held, born)
        return dug < TOMBSTONES

    def _raise(self, later: Iterable[Position], above: int, born: bytes, *, forget: bool) -> None:
        for some in chunks(later):
            ids = [position.id for position in some]
            known = self._reader.known(ids)
            gone = [
                (position.id, evicted)
                for position, state, evicted in zip(some, known.states, known.evicted)
                if evicted and not any(state) and evicted != position.digest[: len(evicted)]
            ]
            if forget and gone:
                self._removal.remove(gone, born, known.seq)
            risen = [
                position_of(stored)
                for stored, position in zip(self._reader.get_many(ids), some)
                if stored is not None and (stored.number or 0) < position.number
            ]
            self._renumber(risen, above, born)


class Counted:
    """An iterator that counts what it gave."""

    def __init__(self, items: Iterable[Position]) -> None:
        self.count = 0
        self._items = items

    def __iter__(self) -> Iterator[Position]:
        for item in self._items:
            yield item
            self.count += 1


def position_of(record: Stored) -> Position:
    """Where a stored vector is in the order of the numbers."""
    assert record.number is not None and record.digest is not None
    return Position(record.number, record.id, record.digest)


def chunks(positions: Iterable[Position]) -> Iterator[list[Position]]:
    """Of at most EVICT_SIZE."""
    remaining = iter(positions)
    while some := list(islice(remaining, EVICT_SIZE)):
        yield some
