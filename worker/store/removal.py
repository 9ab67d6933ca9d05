"""Removal: ids leave a collection, whether stored, queued, in flight, dead or evicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from ..types import Job, document_of, piece_id
from .bookmark import Bookmark
from .codec import id_digest
from .connection import Argument, Redis, run
from .keys import CollectionKeys
from .reader import Reader

REMOVE_SIZE = 250  # ids in one step: some 15 ms in which Redis serves no one else
TOMBSTONES = 100_000  # kept for folders that are not followed now: some 10 MB
_GROWTH = 4  # of what is looked at next of a tail: most documents have none, some a thousand pieces

_T = TypeVar("_T")
_Proven = tuple[str, bytes]  # an id, and the digest of its text if that is dead or was evicted


class Removal:
    """Deletes ids of one collection. For each folder that follows it, at most so many tombstones
    are kept; a folder that has missed some is compared with the collection. `bookmark`: of the run
    that deletes.
    """

    def __init__(
        self,
        client: Redis,
        keys: CollectionKeys,
        *,
        tombstones: int = TOMBSTONES,
        bookmark: Bookmark | None = None,
    ) -> None:
        self._tombstones = tombstones
        self._run = "" if bookmark is None else bookmark.token
        self._redis = client
        self._keys = keys
        self._reader = Reader(client, keys)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete ids, those of documents with their pieces; returns how many ids that were.

        If it is interrupted, the rest is still there: delete again.
        """
        return sum(map(self._delete, _parts(ids)))

    def _delete(self, ids: Sequence[str]) -> int:
        known = self._reader.known(ids)
        pieces = self._pieces({id: 0 for id in ids if not document_of(id)[1]})
        there = {id for id, _ in pieces}
        proven: list[_Proven] = []
        for id, state, gone in zip(ids, known.states, known.evicted):
            proven.append((id, state.dead or gone))  # a folder may have it: it gets a tombstone
            if any(state) or gone:
                there.add(id)
        self._remove_all([*pieces, *proven], known.born, known.seq)
        return len(there)

    def delete_outgrown(self, documents: Mapping[str, int], born: bytes, since: int) -> None:
        """Delete what documents were before, and are no more.

        `documents`: how many pieces each has now; 0 if it is not split, and has its own id. What
        was enqueued after the job numbered `since`, or in another life than `born`, stays.
        """
        split = [id for id, pieces in documents.items() if pieces]
        whole = [(id, proof) for id, _, proof in self._look(split)]
        self._remove_all([*whole, *self._pieces(documents)], born, since)

    def pieces(self, document: str) -> list[str]:
        """The ids of a document's pieces, the last one first."""
        return [id for id, _ in self._pieces({document: 0})]

    def _pieces(self, documents: Mapping[str, int]) -> list[_Proven]:
        """The pieces that documents have beyond so many, as far as one id follows the other.

        The last ones come first: if their removal is interrupted, there is no gap in what is left.
        A text that only has the id of a piece is none: its meta does not say so.
        """
        found: list[_Proven] = []
        last, size = dict(documents), 1
        while last:
            numbers = range(1, size + 1)
            ids = (piece_id(id, before + n) for id, before in last.items() for n in numbers)
            there = set()
            for id, is_piece, proof in self._look(ids):
                there.add(id)
                if is_piece:
                    found.append((id, proof))
            last = {id: before + size for id, before in last.items()}
            last = {id: number for id, number in last.items() if piece_id(id, number) in there}
            size = min(size * _GROWTH, REMOVE_SIZE)
        return found[::-1]

    def _look(self, ids: Iterable[str]) -> Iterator[tuple[str, bool, bytes]]:
        """Those of the ids that are there: whether it is a piece, and a digest as in _Proven."""
        keys = self._keys
        names = [keys.jobs, keys.queued, keys.info, keys.dead]
        for some in _parts(ids):
            digests = b"".join(map(id_digest, some))
            args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix, digests, *some]
            reply = run(self._redis, "store/pieces", names, args)
            for number, is_piece, proof in zip(*[iter(reply)] * 3):
                yield some[number], bool(is_piece), proof

    def _remove_all(self, ids: Iterable[_Proven], born: bytes, since: int) -> None:
        for some in _parts(ids):
            self.remove(some, born, since)

    def remove(self, ids: Iterable[tuple[str, bytes]], born: bytes, since: int) -> int:
        """Delete at most REMOVE_SIZE ids, each as it was; returns how many there were.

        It stays as it is if a text was enqueued under it after the job numbered `since`, or if the
        text that is dead or evicted under it has not the digest beside it; all do in another life.
        """
        keys = self._keys
        args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix, born, since]
        args += (self._tombstones, self._run)
        for id, digest in ids:
            args += (id, id_digest(id), digest)
        names = [keys.jobs, keys.queued, keys.info, keys.done, keys.dead, keys.attempts]
        names += (keys.tombstones, keys.bookmark)
        removed: int = run(self._redis, "store/remove", names, args, resends=5)
        return removed


class Documents:
    """The documents of a run: what they were before, and are no more, is deleted.

    That is done when all of a document is in Redis, and before anything is added that follows.
    """

    def __init__(self, removal: Removal, insist: Callable[[Callable[[], None]], None]) -> None:
        self._removal = removal
        self._insist = insist  # until Redis answers
        self._pieces: dict[str, int] = {}  # of each document that is added, so far

    def settle(self, added: Iterable[Job], following: Iterable[Job], born: bytes, seq: int) -> None:
        """Note jobs that were `added`, up to the one numbered `seq`, and what is `following`."""
        self._pieces.update(document_of(job.id) for job in added)
        coming = {document_of(job.id)[0] for job in following}
        whole = {id: last for id, last in self._pieces.items() if id not in coming}
        self._pieces = {id: last for id, last in self._pieces.items() if id in coming}
        self._insist(partial(self._removal.delete_outgrown, whole, born, seq))


def _parts(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Each item once, in lists of what one step takes."""
    remaining = iter(items)
    while some := list(dict.fromkeys(islice(remaining, REMOVE_SIZE))):
        yield some
