"""The texts of one run of `vec-enqueue`, so that its end speaks of them and of no others.

They are spilt to disk as they are added, so memory stays flat. While the run waits, the number of
its last job is enough: once no job up to that one is left, none of its texts is waiting. Then each
is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

from ..corpus.spill import Spill
from ..store.backlog import Adder
from ..store.faults import outlast
from ..store.states import ASKED_AT_ONCE, Front, read_front, read_states
from ..types import Status

if TYPE_CHECKING:
    from ..producer import Progress

_DIGEST = 16  # bytes
_LENGTH = 4


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
        adder.noted = self._note
        self._adder = adder
        self._texts: Spill | None = Spill()
        self._settled: Counter[str] = Counter()  # by state
        self._seq = 0  # of the last job that is waited for

    def _note(self, ids: Iterable[str], digests: Sequence[bytes]) -> None:
        if self._texts is None:
            return
        try:
            for id, digest in zip(ids, digests):
                _add(self._texts, id, digest)
        except OSError:
            self._texts = None

    def end(self) -> None:
        """The run has ended: what is enqueued from now on is not waited for."""
        self._seq = self._adder.seq

    def left(self) -> int:
        """At most so many jobs, of the run and of others before it, are not done; 0 if all are."""
        return self._front().left(self._seq)

    def count(self) -> Counts | None:
        """What has become of the texts; None if they are not known.

        If some are waiting, `left` is of those from now on, and they are counted again next time.
        Waits up to a minute for a Redis that is away.
        """
        if self._texts is None:
            return None
        self._seq = self._front().seq
        texts, self._texts = self._texts, Spill()
        rows = chain.from_iterable(map(_latest, texts.read()))
        while some := list(islice(rows, ASKED_AT_ONCE)):
            ids, digests = zip(*some)
            states: list[str] = outlast(partial(self._states, ids, digests))
            self._settled.update(states)
            for id, digest, state in zip(ids, digests, states):
                if state == "waiting":
                    _add(self._texts, id, digest)
        waiting = self._settled.pop("waiting", 0)
        known = self._settled
        return Counts(waiting, known["dead"], known["missing"], known["superseded"])

    def _states(self, ids: Sequence[str], digests: Sequence[bytes]) -> list[str]:
        return list(read_states(self._adder.client, self._adder.keys, ids, digests))

    def _front(self) -> Front:
        return outlast(partial(read_front, self._adder.client, self._adder.keys))


def _add(texts: Spill, id: str, digest: bytes) -> None:
    name = id.encode()
    texts.add(hash(id), digest + len(name).to_bytes(_LENGTH, "little") + name)


def _latest(part: bytes) -> Iterator[tuple[str, bytes]]:
    """Each id once, with the digest of its last text."""
    latest: dict[str, bytes] = {}
    at = 0
    while at < len(part):
        begin = at + _DIGEST + _LENGTH
        end = begin + int.from_bytes(part[at + _DIGEST : begin], "little")
        latest[part[begin:end].decode()] = part[at : at + _DIGEST]
        at = end
    return iter(latest.items())
