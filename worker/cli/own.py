"""The texts of one run of `vec-enqueue`, so that its end speaks of them and of no others.

They are noted as they are added (see worker/producer/noted.py). While the run waits and no job of
others can be before its last one, the number of that job is enough: once no job up to it is left,
none of its texts waits. Otherwise it walks along its texts, as far as they are settled, and asks
for each once. At the end each is looked at; if nothing else has happened in the collection, those
alone whose ids are dead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..producer.noted import Noted, Text, Walk
from ..store.adder import Adder
from ..store.faults import outlast
from ..store.ledgers import read_ledger
from ..store.states import ASKED_AT_ONCE, Front, read_front, read_states
from ..types import Status

if TYPE_CHECKING:
    from ..producer import Progress

_MOST_DEAD = 100_000  # ids that are held at once


class Counts(NamedTuple):
    """What has become of the texts of a run; the others are embedded."""

    waiting: int = 0
    dead: int = 0
    missing: int = 0  # nothing is left of their ids
    superseded: int = 0  # by texts that came after them, from elsewhere


def counts_of(progress: Progress, status: Status) -> Counts:
    """Where the texts of a run are not known: what is true of it, if the collection has no others.

    Missing is what is neither waiting, embedded nor dead: Redis has lost it.
    """
    done = status.embedded + status.evicted + status.dead + status.removed
    lost = 0 if status.backlog else max(0, progress.new - done)
    return Counts(status.backlog, status.dead, lost)


class Own:
    """The texts that an adder adds, from now on. Without room for temporary files they are not
    known.
    """

    def __init__(self, adder: Adder) -> None:
        self._adder = adder
        self._noted = Noted()
        adder.noted = self._noted.note
        # At the beginning, no one waits for a Redis that is away.
        self._begun = read_front(adder.client, adder.keys)
        self._removed = read_ledger(adder.client, adder.keys).removed_ever
        self._walk: Walk | None = None
        self._settled: Counter[str] = Counter()  # by state
        self._seq = 0  # of the last job that is waited for

    def end(self) -> None:
        """The run has ended: what is enqueued from now on is not waited for."""
        self._seq = self._adder.seq

    def close(self) -> None:
        """Forget the texts."""
        self._noted.close()
        self._walk = None

    def jobs_left(self) -> int:
        """At most so many jobs, of the run and of others before it, are not done; 0 if all are."""
        return self._front().left(self._seq)

    def left(self, new: int) -> int:
        """At most so many texts of the run, of which so many were new, are waiting; 0 if none is.

        If they are not known, `jobs_left`.
        """
        front = self._front()
        left, begun = front.left(self._seq), self._begun.seq
        is_alone = front.oldest > begun and self._seq == begun + new
        if not left or is_alone or self._noted.full:
            return left
        self._walk = self._walk or Walk(self._noted, self._noted.count, self._ask)
        return min(left, self._walk.left())

    def count(self, new: int) -> Counts | None:
        """What has become of the texts, of which so many were new; None if they are not known.

        If some are waiting, `left` is of those from now on, and they are counted again next time.
        Waits up to a minute for a Redis that is away.
        """
        noted, front = self._noted, self._front()
        if noted.full:
            return None
        self._noted, self._walk = Noted(), None
        with closing(noted):
            dead = self._dead(front, new)
            try:
                self._look(noted.latest() if dead is None else _among(noted, dead))
            except OSError:
                self._noted.give_up()
                return None
        self._seq = front.seq
        waiting = self._settled.pop("waiting", 0)
        known = self._settled
        return Counts(waiting, known["dead"], known["missing"], known["superseded"])

    def _dead(self, front: Front, new: int) -> set[bytes] | None:
        """The dead ids, if all other texts are embedded for certain; None if they may not be.

        They are if none is waiting, and nothing but the run has changed the collection: each text
        that is added or put back raises `seq`, each id that is deleted `removed`.
        """
        is_quiet = front.born == self._adder.born and front.seq == self._begun.seq + new
        if not is_quiet or front.left(front.seq):
            return None
        ledger = outlast(partial(read_ledger, self._adder.client, self._adder.keys))
        if ledger.removed_ever != self._removed or ledger.dead > _MOST_DEAD:
            return None
        return set(outlast(partial(self._adder.client.hkeys, self._adder.keys.dead)))

    def _look(self, texts: Iterator[Text]) -> None:
        """Count texts by their states, and keep those that are waiting."""
        while some := list(islice(texts, ASKED_AT_ONCE)):
            ids, digests = zip(*some)
            states = self._ask(ids, digests)
            self._settled.update(states)
            waiting = [one for one, state in zip(some, states) if state == "waiting"]
            if waiting:
                self._noted.note([id for id, _ in waiting], [digest for _, digest in waiting])

    def _ask(self, ids: Sequence[str], digests: Sequence[bytes]) -> list[str]:
        adder = self._adder
        return outlast(lambda: list(read_states(adder.client, adder.keys, ids, digests)))

    def _front(self) -> Front:
        return outlast(partial(read_front, self._adder.client, self._adder.keys))


def _among(texts: Iterable[Text], names: set[bytes]) -> Iterator[Text]:
    """Those of some ids, each with the digest of its last text."""
    found = {id: digest for id, digest in texts if id.encode() in names} if names else {}
    return iter(found.items())
