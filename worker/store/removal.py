"""Removal: ids leave a collection, whether stored, queued, in flight, dead or evicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice, repeat, takewhile

from ..types import Job, document_of, piece_id
from .codec import id_digest
from .connection import Argument, Redis, run
from .keys import CollectionKeys
from .reader import Reader

REMOVE_SIZE = 250  # ids in one step: some 15 ms in which Redis serves no one else
TOMBSTONES = 100_000  # kept for folders that are not followed now: some 10 MB


class Removal:
    """Deletes ids of one collection. For each folder that follows it, at most so many tombstones
    are kept; a folder that has missed some is compared with the collection.
    """

    def __init__(
        self, client: Redis, keys: CollectionKeys, *, tombstones: int = TOMBSTONES
    ) -> None:
        self._tombstones = tombstones
        self._redis = client
        self._keys = keys
        self._reader = Reader(client, keys)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete ids; returns how many of them there were.

        If it is interrupted, the rest is still there: delete again.
        """
        return sum(1 for _ in self._deleted(ids, in_folders=True))

    def delete_outgrown(self, documents: Mapping[str, int]) -> int:
        """Delete what documents were before, and are no more; returns how many ids that were.

        `documents`: how many pieces each has now; 0 if it is not split, and has its own id.
        """
        split = (id for id, pieces in documents.items() if pieces)
        last, tails = dict(documents), []
        while last:  # the pieces that follow, until none is there
            ids = {piece_id(id, number + 1): id for id, number in last.items()}
            tails.append(list(self._present(ids)))
            last = {ids[one]: last[ids[one]] + 1 for one in tails[-1]}
        # The last pieces go first: if it is interrupted, there is no gap in what is left.
        doomed = chain(split, chain.from_iterable(reversed(tails)))
        return sum(1 for _ in self._deleted(doomed))

    def pieces(self, document: str) -> list[str]:
        """The ids of a document's pieces, as far as one follows the other."""
        found: list[str] = []
        for size in chain([1], repeat(REMOVE_SIZE)):  # most have none
            ids = [piece_id(document, len(found) + number + 1) for number in range(size)]
            there = set(self._present(ids))
            found += takewhile(there.__contains__, ids)
            if len(there) < size:
                break
        return found

    def _present(self, ids: Iterable[str]) -> Iterator[str]:
        """Those of the ids that are there."""
        remaining = iter(ids)
        while some := list(islice(remaining, REMOVE_SIZE)):
            known = self._reader.known(some)
            for id, state, gone in zip(some, known.states, known.evicted):
                if any(state) or gone:
                    yield id

    def _deleted(self, ids: Iterable[str], *, in_folders: bool = False) -> Iterator[str]:
        """Delete ids; yields those that were there.

        `in_folders`: those that only a folder may have get a tombstone too.
        """
        remaining = iter(ids)
        while some := list(dict.fromkeys(islice(remaining, REMOVE_SIZE))):
            known = self._reader.known(some)
            proofs = [state.dead or gone for state, gone in zip(known.states, known.evicted)]
            pairs = list(zip(some, proofs))
            there = [pair for pair, state in zip(pairs, known.states) if any(state) or pair[1]]
            if doomed := pairs if in_folders else there:
                self.remove(doomed, known.born, known.seq)
            yield from (id for id, _ in there)

    def remove(self, ids: Iterable[tuple[str, bytes]], born: bytes, since: int) -> int:
        """Delete at most REMOVE_SIZE ids, each as it was; returns how many there were.

        It stays as it is if a text was enqueued under it after the job numbered `since`, or if the
        text that is dead or evicted under it has not the digest beside it; all do in another life.
        """
        keys = self._keys
        args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix, born, since]
        args.append(self._tombstones)
        for id, digest in ids:
            args += (id, id_digest(id), digest)
        names = [keys.jobs, keys.queued, keys.info, keys.done, keys.dead, keys.attempts]
        names.append(keys.tombstones)
        removed: int = run(self._redis, "store/remove", names, args, resends=5)
        return removed


class Documents:
    """The documents of a run: what they were before, and are no more, is deleted.

    That is done when at least `lag` more documents were read: by then the texts that an earlier
    line of the same document had are in Redis.
    """

    def __init__(
        self, removal: Removal, lag: int, insist: Callable[[Callable[[], int]], int]
    ) -> None:
        self._removal = removal
        self._insist = insist  # until Redis answers
        self._lag = lag
        self._before: dict[str, int] = {}
        self._last: dict[str, int] = {}  # the number of the last piece of each

    def watch(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs of the run. After their end, call `end`."""
        for job in jobs:
            document, number = document_of(job.id)
            if number < 2 and len(self._last) >= self._lag:
                self._delete()
            self._last[document] = number
            yield job  # the last step: once it is added, its id must not be deleted

    def end(self) -> None:
        """Delete what is left to be deleted, after the last text was added."""
        self._delete()
        self._delete()

    def _delete(self) -> None:
        before = {id: number for id, number in self._before.items() if id not in self._last}
        self._insist(partial(self._removal.delete_outgrown, before))
        self._before, self._last = self._last, {}
