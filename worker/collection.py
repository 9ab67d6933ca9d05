"""A collection: the texts of one corpus, and their vectors.

This is what a program may ask of a collection. How it is stored is `worker.store`'s concern.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from .monitor.service import read_status
from .settings import Settings, read_settings
from .store.backlog import Backlog
from .store.connection import Redis, connect
from .store.eviction import Eviction
from .store.keys import CollectionKeys
from .store.reader import Reader
from .types import DeadLetter, Dropped, Record, Status


class Collection:
    """One collection in one Redis. Cheap to make; nothing is sent until a method is called.

    Raises CollectionError for a name that is not 1 to 100 letters, digits, `.`, `_` or `-`. Every
    method raises `redis.RedisError` where Redis does not answer.
    """

    def __init__(self, name: str, *, settings: Settings | None = None) -> None:
        self.name = name
        self._settings = settings or read_settings()
        self._keys = CollectionKeys(self._settings.prefix, name)

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    # Made at each call: a process that was forked needs connections of its own.

    @property
    def _redis(self) -> Redis:
        return connect(self._settings)

    @property
    def _reader(self) -> Reader:
        return Reader(self._redis, self._keys)

    # How it stands

    def exists(self) -> bool:
        """Whether anything was ever enqueued here."""
        return self.model() is not None

    def model(self) -> str | None:
        """The model of all vectors; None before the first enqueue."""
        return self._reader.info().model

    def dimensions(self) -> int | None:
        """The length of all vectors; None before the first one is stored."""
        return self._reader.info().dimensions

    def status(self) -> Status:
        """The ledger, and the state of the work."""
        return read_status(self._redis, self._keys, self._settings.queue)

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until nothing is left to do, the queue is halted, or `timeout` seconds are over."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            status = self.status()
            if not status.backlog or status.state == "halted":
                return status
            if end is not None and time.monotonic() >= end:
                return status
            time.sleep(0.2)

    # Its vectors

    def get(self, id: str) -> Record | None:
        """The stored vector of an id, or None."""
        return self.get_many([id])[0]

    def get_many(self, ids: Sequence[str]) -> list[Record | None]:
        """The stored vectors of `ids`, in their order; None where there is none."""
        return self._reader.get_many(ids)

    def __iter__(self) -> Iterator[Record]:
        """Every stored vector, in the order in which they were stored; memory stays flat.

        A vector that is replaced meanwhile is read again in its new position. Raises
        CollectionError if the collection is dropped, or Redis loses it, before all were read.
        """
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[list[Record]]:
        """What iterating gives, a list of vectors at a time."""
        return self._reader.pages()

    # Its dead letters

    def dead(self, code: str | None = None) -> Iterator[DeadLetter]:
        """The dead letters (all, or those of `code`), in no particular order."""
        return (letter for _, letter in self._reader.letters(code=code))

    def retry(self, ids: Iterable[str] | None = None, *, code: str | None = None) -> int:
        """Put dead letters (all, or those of `ids`, or of `code`) back into the backlog.

        Returns how many there were. If it is interrupted, the rest is still dead: retry again.
        """
        return Backlog(self._redis, self._keys).retry(self._reader.letters(ids, code))

    # Its end

    def drop(self, progress: Callable[[Dropped], object] = lambda gone: None) -> Dropped:
        """Delete the collection; returns what is gone. `progress` hears it after each piece.

        If it is interrupted, a smaller collection is left: drop it again.
        """
        return Eviction(self._redis, self._keys).drop(progress)
