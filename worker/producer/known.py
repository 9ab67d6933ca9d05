"""What a receipt knows of its texts, and what it can learn of them.

The ids and digests of up to MOST_TEXTS are in memory, those of more in a temporary file. Without
room for it, or in another process, the number of its last job alone is known: once no job up to
that one is left, none of its texts waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from ..store.adder import Adder
from ..store.connection import Redis
from ..store.keys import CollectionKeys
from ..store.states import ASKED_AT_ONCE, read_front, read_states
from .noted import DIGEST, Noted, Text, Walk

MOST_TEXTS = 100_000  # whose ids are in memory: some 10 MB

Place = Callable[[], tuple[Redis, CollectionKeys]]  # where the texts are: asked for at each look


@dataclass(frozen=True)
class ReceiptStatus:
    """What has become of the texts of a receipt; every one is in exactly one of the counts.

    `embedded`: the vector is stored. `evicted`: it is in exported files. `superseded`: another text
    has taken its place, of the same enqueue or a later one. `waiting`: it is queued, or in the
    hands of a worker. `missing`: nothing is left of the id: it was deleted, the collection was
    dropped, or Redis has lost it. `settled`: no longer waiting, and no more is known; `waiting` is
    an upper limit then, without texts that were put back since. That is so of more than 100,000
    texts, if a wait for them ran out of time, the receipt was pickled, or there was no room for a
    temporary file.

    `states` has one of these words for each id, of its last text. Of more than 100,000 texts it has
    those that are dead, superseded or missing, the first 100,000 of them. `state` and `reason` are
    those of the collection, as in `Status`; the state is idle if nothing is waiting.
    """

    collection: str
    embedded: int = 0
    evicted: int = 0
    dead: int = 0
    superseded: int = 0
    waiting: int = 0
    missing: int = 0
    settled: int = 0
    state: str = "idle"
    reason: str | None = None
    states: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ids(self, state: str) -> list[str]:
        """The ids in one state, such as `dead`."""
        return [id for id, its in self.states.items() if its == state]


def counted(collection: str, states: Mapping[str, str], replaced: int = 0) -> ReceiptStatus:
    """From the state of each id; `replaced`: texts whose ids came again."""
    return _status(collection, Counter(states.values()), states, replaced)


def _status(
    collection: str, counts: Counter[str], states: Mapping[str, str], replaced: int
) -> ReceiptStatus:
    return ReceiptStatus(
        collection,
        embedded=counts["embedded"],
        evicted=counts["evicted"],
        dead=counts["dead"],
        superseded=counts["superseded"] + replaced,
        waiting=counts["waiting"],
        missing=counts["missing"],
        states=states,
    )


class Known(Protocol):
    """The texts of one enqueue."""

    def status(self, place: Place) -> ReceiptStatus:
        """What has become of them."""

    def glance(self, place: Place, most: int) -> ReceiptStatus:
        """What of it can be told at once. `most`: so many were waiting, as `watch` has said."""

    def watch(self, place: Place) -> Callable[[], int]:
        """At most how many are waiting, to be asked again and again at little cost."""


class Named:
    """Texts by their ids; of an id that came again, the last one.

    `digests`: in one string; of each text 16 bytes, and there may be others behind. `replaced`: how
    many texts there were whose ids came again.
    """

    __slots__ = ("ids", "digests", "replaced")  # a tuple would take twice the time to be made

    def __init__(self, ids: Sequence[str], digests: bytes, replaced: int) -> None:
        self.ids = ids
        self.digests = digests
        self.replaced = replaced

    def status(self, place: Place) -> ReceiptStatus:
        """As Known says."""
        client, keys = place()
        states = dict(zip(self.ids, read_states(client, keys, self.ids, self._digests())))
        return counted(keys.name, states, self.replaced)

    def glance(self, place: Place, most: int) -> ReceiptStatus:
        """As Known says."""
        return self.status(place)

    def watch(self, place: Place) -> Callable[[], int]:
        """As Known says."""
        return _walk(zip(self.ids, self._digests()), len(self.ids), place)

    def _digests(self) -> list[bytes]:
        width = len(self.digests) // max(1, len(self.ids))
        starts = range(0, len(self.digests), width or 1)
        return [self.digests[at : at + DIGEST] for at in starts]


class Numbered(NamedTuple):
    """Texts of which no more is known than the numbers of their jobs."""

    texts: int
    born: bytes  # the life of the collection
    seq: int  # the number of the last job, or a higher one

    def status(self, place: Place) -> ReceiptStatus:
        """As Known says."""
        client, keys = place()
        front = read_front(client, keys)
        if front.born != self.born or front.seq < self.seq:
            return ReceiptStatus(keys.name, missing=self.texts)
        return self.with_waiting(keys.name, front.left(self.seq))

    def glance(self, place: Place, most: int) -> ReceiptStatus:
        """As Known says."""
        return self.status(place)

    def watch(self, place: Place) -> Callable[[], int]:
        """As Known says."""

        def left() -> int:
            front = read_front(*place())
            return front.left(self.seq) if front.born == self.born else 0

        return left

    def with_waiting(self, collection: str, most: int) -> ReceiptStatus:
        """The status where at most so many are waiting."""
        waiting = min(self.texts, most)
        return ReceiptStatus(collection, waiting=waiting, settled=self.texts - waiting)


class Filed:
    """Texts in a temporary file. A pickled one has their numbers alone."""

    def __init__(self, numbered: Numbered, noted: Noted) -> None:
        self._numbered = numbered
        self._noted = noted
        self._settled = 0  # of the first texts, as waits have seen them

    def __reduce__(self) -> tuple[type[Numbered], tuple[object, ...]]:
        return Numbered, tuple(self._numbered)

    def status(self, place: Place) -> ReceiptStatus:
        """As Known says."""
        counts: Counter[str] = Counter()
        told: dict[str, str] = {}
        try:
            texts = self._noted.latest()
        except OSError:  # no room for its temporary files
            return self._numbered.status(place)
        client, keys = place()
        while some := list(islice(texts, ASKED_AT_ONCE)):
            ids, digests = zip(*some)
            states = list(read_states(client, keys, ids, digests))
            counts.update(states)
            for id, state in zip(ids, states):
                if state in ("dead", "superseded", "missing") and len(told) < MOST_TEXTS:
                    told[id] = state
        self._settled = 0 if counts["waiting"] else self._noted.count
        return _status(keys.name, counts, told, self._numbered.texts - sum(counts.values()))

    def glance(self, place: Place, most: int) -> ReceiptStatus:
        """As Known says."""
        seen = self._numbered.status(place)
        if seen.missing or 0 < seen.waiting <= most:
            return seen
        # What was put back since, by a retry or another enqueue, has a later number.
        return self._numbered.with_waiting(seen.collection, most)

    def watch(self, place: Place) -> Callable[[], int]:
        """As Known says. It begins where an earlier one ended: short waits get to the end, too."""
        begin, count = self._settled, self._noted.count
        walk = _walk(islice(self._noted, begin, None), count - begin, place)

        def left() -> int:
            found = walk()
            self._settled = count - found
            return found

        return left


def _walk(texts: Iterable[Text], count: int, place: Place) -> Callable[[], int]:
    """It asks for the first that it has not seen settled."""
    walk = Walk(texts, count, lambda ids, digests: list(read_states(*place(), ids, digests)))
    return walk.left


def known_of(noted: Noted, adder: Adder, count: int) -> Known:
    """What is known of a run that has ended; `count`: its texts, and those that they replaced."""
    numbered = Numbered(count, adder.born, adder.seq)
    if noted.full:
        return numbered
    if noted.count > MOST_TEXTS:
        return Filed(numbered, noted)
    latest = dict(noted)
    noted.close()
    return Named(list(latest), b"".join(latest.values()), max(0, count - len(latest)))
