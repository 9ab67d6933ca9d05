"""The receipt of an enqueue: what its texts were, and what has become of them since.

A receipt knows the ids of its texts and their digests, and asks Redis what there is of them now
(see `worker.store.states`). Redis keeps nothing for it. The receipt of more than MOST_TEXTS texts
knows the number of its last job alone: once no job up to that one is left, none of its texts waits.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

import redis

from ..monitor.service import read_status
from ..settings import Settings, settings_now
from ..store.adder import Adder
from ..store.connection import Redis, connect, given
from ..store.keys import CollectionKeys
from ..store.states import ASKED_AT_ONCE, read_front, read_states
from ..store.waiter import await_until, in_thread, wait_until
from ..types import Rejection, Status

MOST_TEXTS = 100_000  # whose ids a receipt knows: some 10 MB
_FIRST_LOOK = 20  # texts of a receipt in one look of a wait, at first
_HALT_SECONDS = 0.5  # of a wait, before it looks whether the work is halted
_MOST_HALT_SECONDS = 10.0  # between two such looks
_MOST_SHARED = 200  # collections whose statuses are remembered, for a second
_DIGEST = 16  # bytes


@dataclass(frozen=True)
class ReceiptStatus:
    """What has become of the texts of a receipt; every one is in exactly one of the counts.

    `embedded`: the vector is stored. `evicted`: it is in exported files. `superseded`: another text
    has taken its place, of the same enqueue or a later one. `waiting`: it is queued, or in the
    hands of a worker. `missing`: nothing is left of the id: it was deleted, the collection was
    dropped, or Redis has lost it. `settled`: no longer waiting; of an enqueue of more than 100,000
    texts no more is known, and `waiting` is an upper limit.

    `states` has one of these words for each id, of its last text; it is empty where the ids are not
    known. `state` and `reason` are those of the collection, as in `Status`; the state is idle if
    nothing is waiting.
    """

    collection: str
    embedded: int = 0
    evicted: int = 0
    dead: int = 0
    superseded: int = 0
    waiting: int = 0
    missing: int = 0
    settled: int = 0
    state: str = "idle"
    reason: str | None = None
    states: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ids(self, state: str) -> list[str]:
        """The ids in one state, such as `dead`."""
        return [id for id, its in self.states.items() if its == state]


def counted(collection: str, states: Mapping[str, str], replaced: int = 0) -> ReceiptStatus:
    """From the state of each id; `replaced`: texts whose ids came again."""
    counts = Counter(states.values())
    return ReceiptStatus(
        collection,
        embedded=counts["embedded"],
        evicted=counts["evicted"],
        dead=counts["dead"],
        superseded=counts["superseded"] + replaced,
        waiting=counts["waiting"],
        missing=counts["missing"],
        states=states,
    )


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
    it. It knows the ids of up to 100,000 texts. A pickled one has neither settings nor connection:
    it asks the Redis of the environment that it is opened in. `enquiry`, which `enqueue` gives, is
    how it asks.
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


class Named:
    """The texts of an enqueue, by their ids; of an id that came again, the last one.

    `digests`: in one string; of each text 16 bytes, and there may be others behind. `replaced`: how
    many texts there were whose ids came again.
    """

    __slots__ = ("ids", "digests", "replaced")  # a tuple would take twice the time to be made

    def __init__(self, ids: Sequence[str], digests: bytes, replaced: int) -> None:
        self.ids = ids
        self.digests = digests
        self.replaced = replaced

    def part(self, first: int, count: int) -> tuple[Sequence[str], list[bytes]]:
        """Some of the ids, and the digests of their texts."""
        ids = self.ids[first : first + count]
        width = len(self.digests) // max(1, len(self.ids))
        starts = range(first * width, (first + len(ids)) * width, width or 1)
        return ids, [self.digests[at : at + _DIGEST] for at in starts]


class Numbered(NamedTuple):
    """An enqueue of more texts than a receipt knows."""

    texts: int
    born: bytes  # the life of the collection
    seq: int  # the number of its last job, or a higher one


class Notes:
    """The texts of a run, noted while it is under way; of too many, none."""

    def __init__(self, most: int = MOST_TEXTS) -> None:
        self._most = most
        self._ids: list[str] | None = []
        self._digests = bytearray()

    def note(self, ids: Iterable[str], digests: Iterable[bytes]) -> None:
        """Note texts; each id comes once."""
        if self._ids is None:
            return
        self._ids += ids
        self._digests += b"".join([digest[:_DIGEST] for digest in digests])
        if len(self._ids) > self._most:
            self._ids, self._digests = None, bytearray()

    def close(self, adder: Adder, count: int) -> Named | Numbered:
        """The texts of a run that has ended; `count`: of them, and of those that they replaced."""
        ids, digests = self._ids, bytes(self._digests)
        if ids is None:
            return Numbered(count, adder.born, adder.seq)
        last = {id: n for n, id in enumerate(ids)}
        if len(last) < len(ids):
            digests = b"".join([digests[n * _DIGEST : (n + 1) * _DIGEST] for n in last.values()])
            ids = list(last)
        return Named(ids, digests, max(0, count - len(ids)))


class InRedis:
    """Asks the Redis that has the texts. `settings`: None for those of the environment."""

    __slots__ = ("_collection", "_what", "_settings", "_connection")

    def __init__(
        self,
        collection: str,
        what: Named | Numbered,
        settings: Settings | None = None,
        connection: redis.Redis | None = None,
    ) -> None:
        self._collection = collection
        self._what = what
        self._settings = settings
        self._connection = connection

    def __reduce__(self) -> tuple[type[InRedis], tuple[str, Named | Numbered]]:
        return InRedis, (self._collection, self._what)  # settings have passwords

    def __deepcopy__(self, memo: object) -> InRedis:
        return self

    def status(self) -> ReceiptStatus:
        """As Enquiry says."""
        return self.with_state(self.counts())

    def counts(self) -> ReceiptStatus:
        """The status without the state of the collection."""
        what, name = self._what, self._collection
        if isinstance(what, Numbered):
            return self._of_run(what)
        ids, digests = what.part(0, len(what.ids))
        states = dict(zip(ids, read_states(*self.place(), ids, digests)))
        return counted(name, states, what.replaced)

    def with_state(self, status: ReceiptStatus, *, shared: bool = False) -> ReceiptStatus:
        """The status with the state of the collection, if a text is waiting."""
        if not status.waiting:
            return status
        now = self.of_collection(shared=shared)
        return replace(status, state=now.state, reason=now.reason)

    def watch(self) -> Watch:
        """As Enquiry says."""
        return _Watch(self, self._what)

    def of_collection(self, *, shared: bool) -> Status:
        """How the collection stands. `shared`: as another wait of the process may have seen it in
        the last second, so that a thousand waits do not ask for the same a thousand times.
        """
        settings = self._settings or settings_now()
        where = self._collection, settings, self._connection
        return _seen(*where, int(time.monotonic()), os.getpid()) if shared else _status_of(*where)

    def waits(self, run: Numbered) -> bool:
        """Whether a job of a run may be left."""
        front = read_front(*self.place())
        return front.born == run.born and front.left(run.seq) > 0

    def _of_run(self, run: Numbered) -> ReceiptStatus:
        front = read_front(*self.place())
        if front.born != run.born or front.seq < run.seq:
            return ReceiptStatus(self._collection, missing=run.texts)
        waiting = min(run.texts, front.left(run.seq))
        return ReceiptStatus(self._collection, waiting=waiting, settled=run.texts - waiting)

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
    """One wait for the texts of a receipt. A look costs little, however many they are.

    It asks for the first texts that it has not seen settled, as they are worked on in their order.
    """

    def __init__(self, enquiry: InRedis, what: Named | Numbered) -> None:
        self._enquiry = enquiry
        self._what = what
        self._settled = 0  # texts, as far as was seen
        self._begun = self._looked = time.monotonic()

    def look(self) -> ReceiptStatus | None:
        """The status, if nothing is left to wait for."""
        what = self._what
        waits = self._enquiry.waits(what) if isinstance(what, Numbered) else self._waits(what)
        if waits and not self._is_halted():
            return None
        status = self._enquiry.status()
        if status.waiting and status.state != "halted":
            self._settled = 0  # some were put back since, as `vec retry` does
            return None
        return status

    def last(self) -> ReceiptStatus:
        """The status when the time is over."""
        return self._enquiry.with_state(self._enquiry.counts(), shared=True)

    def _waits(self, texts: Named) -> bool:
        place, count = self._enquiry.place(), _FIRST_LOOK
        while self._settled < len(texts.ids):
            states = list(read_states(*place, *texts.part(self._settled, count)))
            if "waiting" in states:
                self._settled += states.index("waiting")
                return True
            self._settled += len(states)
            count = min(2 * count, ASKED_AT_ONCE)
        return False

    def _is_halted(self) -> bool:
        """Whether the work is halted; looks less and less often."""
        now = time.monotonic()
        pause = max(_HALT_SECONDS, min((now - self._begun) / 5, _MOST_HALT_SECONDS))
        if now - self._looked < pause:
            return False
        self._looked = now
        return self._enquiry.of_collection(shared=True).state == "halted"
