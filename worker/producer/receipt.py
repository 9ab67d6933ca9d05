"""The receipt of an enqueue: what its texts were, and what has become of them since.

A receipt knows the ids of its texts and their digests (see `known.py`), and asks Redis what there
is of them now (see `worker.store.states`). Redis keeps nothing for it.
"""

from __future__ import annotations

import os
import time
from dataclasses import InitVar, dataclass, replace
from functools import lru_cache
from typing import Protocol

import redis

from ..monitor.service import read_status
from ..settings import Settings, settings_now
from ..store.connection import Redis, connect, given
from ..store.keys import CollectionKeys
from ..store.waiter import await_until, in_thread, wait_until
from ..types import Rejection, Status
from .known import Known, ReceiptStatus

_HALT_SECONDS = 0.5  # of a wait, before it looks whether the work is halted
_MOST_HALT_SECONDS = 10.0  # between two such looks
_MOST_SHARED = 200  # collections whose statuses are remembered, for a second


class Enquiry(Protocol):
    """Asks what has become of the texts of one receipt."""

    def status(self) -> ReceiptStatus:
        """It now."""

    def watch(self) -> Watch:
        """Begin a wait for them."""


class Watch(Protocol):
    """A wait for the texts of one receipt."""

    def look(self) -> ReceiptStatus | None:
        """A cheap look, to be taken again and again: the status once the wait is over, or None."""

    def last(self) -> ReceiptStatus:
        """The status when the time is over."""


@dataclass(frozen=True)
class Receipt:
    """What became of the texts of one enqueue; every one is in exactly one of the counts.

    `dead`: the very text is a dead letter already and stays one. `rejections` holds the first
    1,000. `evicted` of the unchanged have their vectors no longer in Redis, but in exported files.
    `lost`: Redis lost texts of it while it ran, and all of them should be enqueued again.

    It can be asked what has become of them since, as long as it is kept: Redis keeps nothing for
    it. The ids of more than 100,000 texts are in a temporary file. A pickled one has neither that
    nor settings nor connection: it asks the Redis of the environment that it is opened in.
    `enquiry`, which `enqueue` gives, is how it asks.
    """

    collection: str
    new: int
    unchanged: int
    duplicates: int
    dead: int
    rejected: int
    rejections: tuple[Rejection, ...]
    evicted: int = 0
    lost: bool = False
    enquiry: InitVar[Enquiry | None] = None

    def __post_init__(self, enquiry: Enquiry | None) -> None:
        object.__setattr__(self, "enquiry", enquiry)

    def status(self) -> ReceiptStatus:
        """What has become of its texts. Rejected ones are not among them."""
        return self._asked().status()

    def wait(self, timeout: float | None = None) -> ReceiptStatus:
        """Wait until none of its texts is waiting, the work is halted, or `timeout` seconds are
        over. What else the collection has to do is not waited for.

        A Redis that goes away is waited for as long as there is time, without a timeout for a
        minute; then `redis.RedisError` is raised.
        """
        watch = self._asked().watch()
        seen: ReceiptStatus | None = wait_until(watch.look, _is_there, timeout)
        return watch.last() if seen is None else seen

    async def astatus(self) -> ReceiptStatus:
        """`status` for asyncio."""
        return await in_thread(self.status)

    async def await_done(self, timeout: float | None = None) -> ReceiptStatus:
        """`wait` for asyncio."""
        watch = self._asked().watch()
        seen: ReceiptStatus | None = await await_until(watch.look, _is_there, timeout)
        return await in_thread(watch.last) if seen is None else seen

    def _asked(self) -> Enquiry:
        enquiry: Enquiry | None = vars(self)["enquiry"]  # no field: asdict has none of it
        if enquiry is None:
            raise ValueError("only a receipt that enqueue or aenqueue returned can be asked")
        return enquiry


def _is_there(status: ReceiptStatus | None) -> bool:
    return status is not None


class InRedis:
    """Asks the Redis that has the texts. `settings`: None for those of the environment."""

    __slots__ = ("_collection", "_known", "_settings", "_connection")

    def __init__(
        self,
        collection: str,
        known: Known,
        settings: Settings | None = None,
        connection: redis.Redis | None = None,
    ) -> None:
        self._collection = collection
        self._known = known
        self._settings = settings
        self._connection = connection

    def __reduce__(self) -> tuple[type[InRedis], tuple[str, Known]]:
        return InRedis, (self._collection, self._known)  # settings have passwords

    def __deepcopy__(self, memo: object) -> InRedis:
        return self

    def status(self) -> ReceiptStatus:
        """As Enquiry says."""
        return self.with_state(self._known.status(self.place))

    def glance(self, most: int) -> ReceiptStatus:
        """What of the status can be told at once. `most`: so many were waiting when it was seen."""
        return self.with_state(self._known.glance(self.place, most), shared=True)

    def with_state(self, status: ReceiptStatus, *, shared: bool = False) -> ReceiptStatus:
        """The status with the state of the collection, if a text is waiting."""
        if not status.waiting:
            return status
        now = self.of_collection(shared=shared)
        return replace(status, state=now.state, reason=now.reason)

    def watch(self) -> Watch:
        """As Enquiry says."""
        return _Watch(self, self._known)

    def of_collection(self, *, shared: bool) -> Status:
        """How the collection stands. `shared`: as another wait of the process may have seen it in
        the last second, so that a thousand waits do not ask for the same a thousand times.
        """
        settings = self._settings or settings_now()
        where = self._collection, settings, self._connection
        return _seen(*where, int(time.monotonic()), os.getpid()) if shared else _status_of(*where)

    def place(self) -> tuple[Redis, CollectionKeys]:
        """Where the collection is."""
        # Looked for at each call: a process that was forked needs connections of its own.
        settings, connection = self._settings or settings_now(), self._connection
        client = connect(settings) if connection is None else given(connection)
        return client, CollectionKeys(settings.prefix, self._collection)


def _status_of(collection: str, settings: Settings, connection: redis.Redis | None) -> Status:
    client = connect(settings) if connection is None else given(connection)
    return read_status(client, CollectionKeys(settings.prefix, collection), settings.queue)


@lru_cache(_MOST_SHARED)
def _seen(
    collection: str, settings: Settings, connection: redis.Redis | None, second: int, pid: int
) -> Status:
    return _status_of(collection, settings, connection)


class _Watch:
    """One wait for the texts of a receipt. A look costs little, however many they are."""

    def __init__(self, enquiry: InRedis, known: Known) -> None:
        self._enquiry = enquiry
        self._known = known
        self._left = known.watch(enquiry.place)
        self._most = 0  # texts that were waiting at the last look
        self._begun = self._looked = time.monotonic()

    def look(self) -> ReceiptStatus | None:
        """The status, if nothing is left to wait for."""
        self._most = self._left()
        if self._most and not self._is_halted():
            return None
        status = self._enquiry.status()
        if status.waiting and status.state != "halted":  # put back since, as `vec retry` does
            self._left, self._most = self._known.watch(self._enquiry.place), status.waiting
            return None
        return status

    def last(self) -> ReceiptStatus:
        """The status when the time is over."""
        return self._enquiry.glance(self._most)

    def _is_halted(self) -> bool:
        """Whether the work is halted; looks less and less often."""
        now = time.monotonic()
        pause = max(_HALT_SECONDS, min((now - self._begun) / 5, _MOST_HALT_SECONDS))
        if now - self._looked < pause:
            return False
        self._looked = now
        return self._enquiry.of_collection(shared=True).state == "halted"
