"""The texts of one run of `vec-enqueue`, so that its end speaks of them and of no others.

They are written to a temporary file as they are added, so memory stays flat. While the run waits,
the number of its last job is enough: once no job up to that one is left, none of its texts waits.
Then each is looked at; if nothing else has happened in the collection, those alone whose ids are
dead.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, NamedTuple

from ..corpus.spill import Spill
from ..store.adder import Adder
from ..store.faults import outlast
from ..store.ledgers import read_ledger
from ..store.states import ASKED_AT_ONCE, Front, read_front, read_states
from ..types import Status

if TYPE_CHECKING:
    from ..producer import Progress

_DIGEST = 16  # bytes
_LENGTH = 4
_HELD_BYTES = 4_000_000  # in memory, before the file is one
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
        adder.noted = self._note
        self._adder = adder
        # At the beginning, no one waits for a Redis that is away.
        self._begun = read_front(adder.client, adder.keys)
        self._removed = read_ledger(adder.client, adder.keys).removed_ever
        self._file: SpooledTemporaryFile[bytes] | None = _file()
        self._settled: Counter[str] = Counter()  # by state
        self._seq = 0  # of the last job that is waited for

    def _note(self, ids: Iterable[str], digests: Sequence[bytes]) -> None:
        if self._file is not None:
            try:
                pickle.dump((list(ids), b"".join(digests)), self._file)
            except OSError:
                self._file = None

    def end(self) -> None:
        """The run has ended: what is enqueued from now on is not waited for."""
        self._seq = self._adder.seq

    def left(self) -> int:
        """At most so many jobs, of the run and of others before it, are not done; 0 if all are."""
        return self._front().left(self._seq)

    def count(self, new: int) -> Counts | None:
        """What has become of the texts, of which so many were new; None if they are not known.

        If some are waiting, `left` is of those from now on, and they are counted again next time.
        Waits up to a minute for a Redis that is away.
        """
        file, front = self._file, self._front()
        if file is None:
            return None
        self._file = _file()
        try:
            with file:
                dead = self._dead(front, new)
                self._look(_latest(file) if dead is None else _among(file, dead))
        except OSError:
            self._file = None
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

    def _look(self, texts: Iterator[tuple[str, bytes]]) -> None:
        """Count texts by their states, and keep those that are waiting."""
        while some := list(islice(texts, ASKED_AT_ONCE)):
            ids, digests = zip(*some)
            states: list[str] = outlast(partial(self._states, ids, digests))
            self._settled.update(states)
            waiting = [one for one, state in zip(some, states) if state == "waiting"]
            if waiting:
                self._note([id for id, _ in waiting], [digest for _, digest in waiting])

    def _states(self, ids: Sequence[str], digests: Sequence[bytes]) -> list[str]:
        return list(read_states(self._adder.client, self._adder.keys, ids, digests))

    def _front(self) -> Front:
        return outlast(partial(read_front, self._adder.client, self._adder.keys))


def _file() -> SpooledTemporaryFile[bytes]:
    return SpooledTemporaryFile(_HELD_BYTES)  # noqa: SIM115


def _read(file: SpooledTemporaryFile[bytes]) -> Iterator[tuple[str, bytes]]:
    """The texts in the order in which they were added, each an id and a digest."""
    file.seek(0)
    while True:
        try:
            ids, digests = pickle.load(file)
        except EOFError:
            return
        for n, id in enumerate(ids):
            yield id, digests[n * _DIGEST : (n + 1) * _DIGEST]


def _among(file: SpooledTemporaryFile[bytes], names: set[bytes]) -> Iterator[tuple[str, bytes]]:
    """Those of some ids, each with the digest of its last text."""
    found = {id: digest for id, digest in _read(file) if id.encode() in names} if names else {}
    return iter(found.items())


def _latest(file: SpooledTemporaryFile[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each id once, with the digest of its last text."""
    texts = Spill()
    for id, digest in _read(file):
        name = id.encode()
        texts.add(hash(id), digest + len(name).to_bytes(_LENGTH, "little") + name)
    return chain.from_iterable(map(_last_of, texts.read()))


def _last_of(part: bytes) -> Iterator[tuple[str, bytes]]:
    latest: dict[str, bytes] = {}
    at = 0
    while at < len(part):
        begin = at + _DIGEST + _LENGTH
        end = begin + int.from_bytes(part[at + _DIGEST : begin], "little")
        latest[part[begin:end].decode()] = part[at : at + _DIGEST]
        at = end
    return iter(latest.items())
