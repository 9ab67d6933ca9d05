"""The texts of one run of `vec-enqueue`, so that its end speaks of them and of no others.

They are written to a temporary file as they are added, so memory stays flat. While the run waits
and no job of others can be before its last one, the number of that job is enough: once no job up to
it is left, none of its texts waits. Otherwise it asks for the first of its texts that it has not
seen settled, and then for the next ones, each once. At the end each is looked at; if nothing else
has happened in the collection, those alone whose ids are dead.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_FIRST_LOOK = 20  # texts in one look of a wait, at first
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
        self._noted = 0  # texts in the file
        self._walk: _Walk | None = None  # along the file
        self._settled: Counter[str] = Counter()  # by state
        self._seq = 0  # of the last job that is waited for

    def _note(self, ids: Iterable[str], digests: Sequence[bytes]) -> None:
        if self._file is not None:
            try:
                pickle.dump((list(ids), b"".join(digests)), self._file)
                self._noted += len(digests)
            except OSError:
                self._file = None

    def end(self) -> None:
        """The run has ended: what is enqueued from now on is not waited for."""
        self._seq = self._adder.seq

    def close(self) -> None:
        """Forget the texts."""
        if self._file is not None:
            self._file.close()
        self._file = self._walk = None

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
        if not left or is_alone or self._file is None:
            return left
        try:
            self._walk = self._walk or _Walk(_read(self._file), self._noted)
            return min(left, self._walk.left(self._ask))
        except OSError:
            self._file = None
            return left

    def count(self, new: int) -> Counts | None:
        """What has become of the texts, of which so many were new; None if they are not known.

        If some are waiting, `left` is of those from now on, and they are counted again next time.
        Waits up to a minute for a Redis that is away.
        """
        file, front = self._file, self._front()
        if file is None:
            return None
        self._file, self._noted, self._walk = _file(), 0, None
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
            states = self._ask(ids, digests)
            self._settled.update(states)
            waiting = [one for one, state in zip(some, states) if state == "waiting"]
            if waiting:
                self._note([id for id, _ in waiting], [digest for _, digest in waiting])

    def _ask(self, ids: Sequence[str], digests: Sequence[bytes]) -> list[str]:
        adder = self._adder
        return outlast(lambda: list(read_states(adder.client, adder.keys, ids, digests)))

    def _front(self) -> Front:
        return outlast(partial(read_front, self._adder.client, self._adder.keys))


class _Walk:
    """A walk along texts, as far as they are settled. They are worked on in about their order."""

    def __init__(self, texts: Iterator[tuple[str, bytes]], count: int) -> None:
        self._texts = texts
        self._left = count
        self._page: list[tuple[str, bytes]] = []  # the first of those that may be waiting

    def left(self, ask: Callable[[Sequence[str], Sequence[bytes]], list[str]]) -> int:
        """How many texts there are from the first that is waiting on; 0 if none is."""
        count = _FIRST_LOOK
        while self._page or self._read():
            some = self._page[:count]
            ids, digests = zip(*some)
            states = ask(ids, digests)
            settled = states.index("waiting") if "waiting" in states else len(states)
            del self._page[:settled]
            self._left -= settled
            if settled < len(states):
                return self._left
            count = ASKED_AT_ONCE
        return 0

    def _read(self) -> bool:
        self._page = list(islice(self._texts, ASKED_AT_ONCE))
        return bool(self._page)


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
