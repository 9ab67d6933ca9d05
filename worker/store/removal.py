"""Removal: ids leave a collection, whether stored, queued, in flight, dead or evicted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

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
        remaining, count = iter(ids), 0
        while some := list(dict.fromkeys(islice(remaining, REMOVE_SIZE))):
            known = self._reader.known(some)
            proofs = [state.dead or gone for state, gone in zip(known.states, known.evicted)]
            self.remove(zip(some, proofs), known.born, known.seq)
            there = zip(known.states, known.evicted)
            count += sum(any(state) or gone != b"" for state, gone in there)
        return count

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
