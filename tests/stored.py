"""A collection together with the parts of its store, for tests that take its steps one by one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from uuid import uuid4

import pytest

from worker import Collection
from worker.layout import PLAIN, Layout
from worker.monitor.service import Service, is_open_under
from worker.settings import Settings
from worker.store.adder import Adder
from worker.store.backlog import Backlog, Commit
from worker.store.connection import connect
from worker.store.eviction import EVICT_SIZE, Eviction
from worker.store.keys import CollectionKeys
from worker.store.reader import Reader
from worker.store.removal import Removal
from worker.types import (
    Added,
    Committed,
    Dropped,
    Embedded,
    Job,
    Lease,
    Position,
    Refused,
    Status,
    text_digest,
)


class Commits(Backlog):
    """A backlog that stores outcomes, as a worker's portions do."""

    def commit(
        self,
        embedded: Sequence[Embedded],
        refused: Sequence[Refused] = (),
        *,
        keep_text: bool = False,
        layout: Layout = PLAIN,
    ) -> Committed:
        return Commit(self, embedded, refused, keep_text, layout).run()


class Store(Collection):
    """What programs, workers and exports do with one collection."""

    def __init__(self, name: str, *, settings: Settings) -> None:
        super().__init__(name, settings=settings)
        self.client = connect(settings)
        self.keys = CollectionKeys(settings.prefix, name)
        self.backlog = Commits(self.client, self.keys)
        self.reader = Reader(self.client, self.keys)
        self.eviction = Eviction(self.client, self.keys)
        self.removal = Removal(self.client, self.keys)
        self.settings = settings

    def drop_in_part(self) -> None:
        """A drop that is interrupted after its first piece."""
        with pytest.raises(KeyboardInterrupt):
            self.drop(_interrupt)

    def is_open(self) -> bool:
        """Whether a worker can work on it, as a producer or the pump asks."""
        service = Service(self.client, self.keys.prefix, self.settings.queue)
        return service.is_open(self.name, self.reader.info())

    def is_open_under(self, throttle: str) -> bool:
        """Whether it may be worked on under this throttle, as a worker asks."""
        return is_open_under(self.client, self.keys, self.reader.info(), [throttle])

    def adder(self, model: str | None = None, layout: Layout | None = None) -> Adder:
        """A producer's run of adds."""
        return Adder(self.client, self.keys, model or self.settings.model, layout=layout)


def _interrupt(_: Dropped) -> None:
    raise KeyboardInterrupt


def vector_of(text: str, dimensions: int = 2) -> bytes:
    """A vector that belongs to this text alone."""
    return vector_of_digest(text_digest(text), dimensions)


def vector_of_digest(digest: bytes, dimensions: int = 2) -> bytes:
    """The same, of the digest of the text."""
    number = int.from_bytes(digest[:2], "big")
    return struct.pack(f"<{dimensions}f", *[float(number + 1)] * dimensions)


def check_ledger(status: Status) -> Status:
    """The one equation that holds at every moment."""
    parts = status.embedded + status.evicted + status.dead + status.pending + status.leased
    assert status.enqueued == parts, status
    assert min(status.pending, status.leased, status.embedded, status.dead) >= 0, status
    return status


class Bench:
    """A collection whose ledger is checked after every step."""

    def __init__(self, settings: Settings, name: str = "wiki") -> None:
        self.settings = settings
        self.collection = Store(name, settings=settings)
        self.redis = connect(settings)
        self._adders: dict[str, Adder] = {}

    @property
    def status(self) -> Status:
        return check_ledger(self.collection.status())

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Embedded, dead, pending and leased."""
        status = self.status
        return status.embedded, status.dead, status.pending, status.leased

    def add(self, *pairs: tuple[str, str], run: str = "", resend: bool = False) -> Added:
        """One chunk of (id, text); adds of the same `run` are one producer's."""
        if not resend:
            adder = self._adders.setdefault(run or uuid4().hex, self.collection.adder())
            self._chunk = adder.chunk([Job(id, text) for id, text in pairs])
            self._chunk.send()
        added, _ = self._chunk.reply()
        check_ledger(self.collection.status())
        return added

    def claim(
        self,
        consumer: str = "c",
        count: int = 100,
        *,
        alive: bool = True,
        take_over: bool = True,
        living: Sequence[str] = (),
    ) -> list[Lease]:
        if alive:
            self.collection.backlog.keep_alive(consumer)
        leases = self.collection.backlog.claim(consumer, count, take_over=take_over, living=living)
        check_ledger(self.collection.status())
        return leases

    def commit(
        self, embedded: Sequence[Lease], refused: Sequence[Lease] = (), *, keep_text: bool = False
    ) -> Committed:
        committed = self.collection.backlog.commit(
            [Embedded(lease, vector_of(lease.job.text), False) for lease in embedded],
            [Refused(lease, "poison", "the API refuses it") for lease in refused],
            keep_text=keep_text,
        )
        check_ledger(self.collection.status())
        return committed

    def release(
        self, consumer: str = "c", failed: Sequence[Lease] = (), *, end_slice: bool = False
    ) -> int:
        released = self.collection.backlog.release(consumer, failed, end_slice=end_slice)
        check_ledger(self.collection.status())
        return released

    def retry(self, ids: Sequence[str] | None = None) -> int:
        put_back = self.collection.retry(ids)
        check_ledger(self.collection.status())
        return put_back

    def kill(self, consumer: str) -> None:
        """Its heartbeat has expired."""
        self.redis.delete(f"vec:{{{self.collection.name}}}:alive:{consumer}")

    def embed_all(self, *, refuse: Sequence[str] = ()) -> None:
        """Work until nothing is left; texts in `refuse` are refused."""
        while leases := self.claim("all"):
            bad = [lease for lease in leases if lease.job.text in refuse]
            self.commit([lease for lease in leases if lease not in bad], bad)
        self.release("all", end_slice=True)

    def stored(self) -> dict[str, bytes]:
        return {record.id: record.tobytes() for record in self.collection}


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.job.id for lease in leases]


def pairs(count: int, text: str = "text") -> list[tuple[str, str]]:
    return [(f"id{number}", f"{text} {number}") for number in range(count)]


def positions(bench: Bench, after: int = 0) -> list[Position]:
    return [
        Position(record.number or 0, record.id, record.digest or b"")
        for record in bench.collection.reader.finished(after, EVICT_SIZE)
    ]


def claim_quarantined(bench: Bench, consumer: str = "c") -> list[Lease]:
    bench.collection.backlog.keep_alive(consumer)
    leases = bench.collection.backlog.claim(consumer, quarantined=True)
    check_ledger(bench.collection.status())
    return leases
