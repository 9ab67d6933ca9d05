"""Eviction: vectors that are safe in files leave Redis, and a collection is dropped."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from ..types import Dropped, Position
from .codec import id_digest
from .connection import Argument, Redis, run
from .errors import ExportedByAnother
from .keys import CollectionKeys
from .registry import forget

EVICT_SIZE = 500  # vectors in one step of an eviction
EXPORT_SECONDS = 15  # an export that was silent for this long has lost its lock
DROP_SIZE = 500  # keys in one step of a drop: a few milliseconds in which Redis serves no one else


class Eviction:
    """What an export deletes from one collection, and what it notes there."""

    def __init__(self, client: Redis, keys: CollectionKeys) -> None:
        self._redis = client
        self._keys = keys

    def evict(
        self, token: str, vectors: Sequence[Position] = (), *, born: bytes = b"", end: bool = False
    ) -> int:
        """Delete `vectors` that are safe in a file; returns how many were still as written there.

        At most EVICT_SIZE at a time; none where the collection is in another life than `born`. The
        caller is the one that evicts, for EXPORT_SECONDS from now, unless this is the `end`. Raises
        ExportedByAnother.
        """
        keys = self._keys
        lasts = 0 if end else EXPORT_SECONDS * 1000
        args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix, token, lasts, born]
        for number, id, digest in vectors:
            args += (number, id, digest, id_digest(id))
        names = [keys.info, keys.done, keys.evicting]
        evicted: int = run(self._redis, "store/evict", names, args, resends=5)
        if evicted < 0:
            raise ExportedByAnother(
                f"another export evicts from {keys.name}, or was killed less than "
                f"{EXPORT_SECONDS} s ago: only one at a time can"
            )
        return evicted

    def renumber(self, vectors: Sequence[Position], above: int, *, born: bytes = b"") -> None:
        """Give `vectors` new numbers, and every later commit a number `above` this one.

        Does nothing where the collection is in another life than `born`.
        """
        keys = self._keys
        args: list[Argument] = [keys.doc_prefix, above, born]
        for number, id, _ in vectors:
            args += (number, id)
        run(self._redis, "store/renumber", [keys.info, keys.done], args, resends=5)

    def exported(self, folder: str) -> int:
        """The number up to which the folder with this token holds the vectors."""
        return int(self._redis.hget(self._keys.info, f"exported:{folder}") or 0)

    def note_exported(self, folder: str, number: int, born: bytes) -> None:
        """Note that a folder holds the vectors up to `number`; not in another life than `born`."""
        run(self._redis, "store/exported", [self._keys.info], [folder, number, born], resends=5)

    def followed(self, folder: str) -> tuple[int | None, int]:
        """The number up to which the folder with this token holds the tombstones, None if it never
        followed; and the number up to which Redis has them no more.
        """
        fields = [f"tombstones:{folder}", "trimmed"]
        number, trimmed = self._redis.hmget(self._keys.info, fields)
        return None if number is None else int(number), int(trimmed or 0)

    def note_followed(self, folder: str, number: int, born: bytes) -> None:
        """Note that a folder holds the tombstones up to `number`; not in another life."""
        names = [self._keys.info, self._keys.tombstones]
        run(self._redis, "store/followed", names, [folder, number, born], resends=5)

    def drop(self, progress: Callable[[Dropped], object] = lambda gone: None) -> Dropped:
        """Delete the collection piece by piece; `progress` hears after each piece what is gone.

        A drop that is interrupted leaves a smaller collection whose ledger balances. Another drop
        deletes the rest.
        """
        keys = self._keys
        names = [keys.jobs, keys.queued, keys.info, keys.done]
        names += [keys.dead, keys.attempts, keys.wakeups, keys.tombstones, keys.bookmark]
        names += [keys.index, keys.ahead]
        args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix, DROP_SIZE]
        gone, left = Dropped(), 1
        born = self._redis.hget(keys.info, "born") or b""
        while left:
            following = uuid.uuid4().hex.encode()
            piece_args = [*args, born, following]
            *piece, left = run(self._redis, "store/drop", names, piece_args, resends=2)
            born = following
            gone = Dropped(*map(sum, zip(gone, piece)))
            progress(gone)
        forget(self._redis, keys)
        return gone
