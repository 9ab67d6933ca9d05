"""Surplus: the ids that a collection holds and a run of `vec-enqueue` did not bring.

What the run brings is spilt to disk as it passes, so memory stays flat. At the end it is compared
with what the collection holds. Only an id that is as it was before the run is surplus: a text that
another producer enqueued meanwhile is not.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from ..corpus.spill import Spill
from ..store.connection import Redis
from ..store.faults import outlast
from ..store.keys import CollectionKeys
from ..store.reader import Reader
from ..store.removal import REMOVE_SIZE, Removal
from ..types import Job, Position, Rejection
from .files import FORMATS
from .folder import Folder
from .sinks import is_address, read_sinks


class Found(NamedTuple):
    """The surplus of a collection."""

    surplus: int
    held: int  # ids, surplus or not
    unnamed: int  # evicted ids that were not looked at: only a folder knows their names
    missed: int  # ids that were evicted while it looked, so that it cannot tell how old they are
    ids: Iterator[Position]  # of the surplus, each with the digest that proves what it was


class Surplus:
    """Looks at a collection before a run, at what the run brings, and at what else is there."""

    def __init__(self, client: Redis, keys: CollectionKeys) -> None:
        self.brought = 0  # ids, some of them several times
        self.nameless = 0  # rejected lines whose id could not be read
        self._missed = 0
        self._name = keys.name
        self._reader = Reader(client, keys)
        self._removal = Removal(client, keys)
        self._brought = Spill()
        self._dead = Spill()  # a dead letter has no number that tells how old it is
        for letter in self._reader.dead_digests():
            _add(self._dead, letter[0], hash(letter))
        self._before = self._reader.known([])

    def watch(self, lines: Iterable[Job | Rejection]) -> Iterator[Job | Rejection]:
        """The lines of a corpus; their ids are noted on the way. Raises OSError."""
        for line in lines:
            if line.id is None:
                self.nameless += 1
            else:
                self.brought += 1
                _add(self._brought, line.id, hash(line.id))
                if isinstance(line, Rejection):
                    for piece in outlast(partial(self._removal.pieces, line.id)):
                        _add(self._brought, piece, hash(piece))
            yield line

    def find(self, sinks: Sequence[str] = ()) -> Found:
        """The surplus, with the evicted ids that have their names in `sinks`. Call it once.

        Raises ExportError for a sink that cannot be read, and OSError if the disk is full.
        """
        filed, held, doomed = (Spill() for _ in range(3))
        if self._before.born:  # first: what is evicted now is in the files that are read next
            for id in self._reader.names():
                held.add(hash(id), _packed(Position(0, id, b"")))
        remembered = self._reader.ledger().remembered
        for position in self._filed(sinks, remembered):
            filed.add(hash(position.id), _packed(position))
        surplus = total = named = 0
        spills = (self._brought, self._dead, filed, held)
        for brought, dead, *parts in zip(*(spill.read() for spill in spills)):
            latest: dict[str, Position] = {}
            stored = set()
            for position in chain.from_iterable(map(_unpacked, parts)):
                if not position.number:
                    stored.add(position.id)
                if position.number and not position.digest:  # a tombstone
                    latest.pop(position.id, None)
                elif position.number or position.id not in latest:
                    latest[position.id] = position
            total += len(latest)
            named += len(latest.keys() - stored)
            if remembered:
                named += self._remembered(id for id in stored if id in latest and latest[id].number)
            ours, letters = set(array("q", brought)), set(array("q", dead))
            others = (one for id, one in latest.items() if hash(id) not in ours)
            for one in self._doomed(others, letters):
                surplus += 1
                doomed.add(hash(one.id), _packed(one))
        ids = (one for part in doomed.read() for one in _unpacked(part))
        return Found(surplus, total, max(0, remembered - named), self._missed, ids)

    def remove(self, found: Found) -> Iterator[int]:
        """Delete what was found, step by step; yields how many ids each step deleted."""
        while some := list(islice(found.ids, REMOVE_SIZE)):
            pairs = [(id, digest) for _, id, digest in some]
            yield self._removal.remove(pairs, self._before.born, self._before.seq)

    def _remembered(self, ids: Iterator[str]) -> int:
        """How many of these, which have another text since, are remembered as evicted too."""
        number = 0
        while some := list(islice(ids, REMOVE_SIZE)):
            number += sum(map(bool, self._reader.known(some).evicted))
        return number

    def _filed(self, sinks: Sequence[str], remembered: int) -> Iterable[Position]:
        """What is in the sinks. Before the first export, they need not exist."""
        known = [one for one in sinks if remembered or is_address(one) or self._has_files(one)]
        return read_sinks(known, self._reader) if known else ()

    def _has_files(self, sink: str) -> bool:
        return bool(Folder(sink, self._name, FORMATS[0]).files())

    def _doomed(self, positions: Iterator[Position], letters: set[int]) -> Iterator[Position]:
        """Those that are as they were before the run, with the digests that prove it."""
        while some := list(islice(positions, REMOVE_SIZE)):
            known = self._reader.known([one.id for one in some])
            for one, state, evicted, seq in zip(some, known.states, known.evicted, known.seqs):
                if state.queued or state.stored:
                    is_old, proof = seq <= self._before.seq, b""
                elif state.dead:
                    is_old, proof = hash((one.id, state.dead)) in letters, state.dead
                else:
                    self._missed += evicted != b"" and not one.number
                    is_old = 0 < one.number <= self._before.commits
                    is_old &= evicted in (b"", one.digest[:5])
                    proof = evicted
                if is_old:
                    yield one._replace(digest=proof)


def _add(spill: Spill, id: str, value: int) -> None:
    spill.add(hash(id), value.to_bytes(8, "little", signed=True))


def _packed(position: Position) -> bytes:
    number, id, digest = position
    name = id.encode()
    sizes = bytes([len(digest)]) + len(name).to_bytes(2, "little")
    return sizes + number.to_bytes(8, "little") + digest + name


def _unpacked(part: bytes) -> Iterator[Position]:
    at = 0
    while at < len(part):
        middle = at + 11 + part[at]
        end = middle + int.from_bytes(part[at + 1 : at + 3], "little")
        number = int.from_bytes(part[at + 3 : at + 11], "little")
        yield Position(number, part[middle:end].decode(), part[at + 11 : middle])
        at = end
