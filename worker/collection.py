"""A collection: the texts of one corpus, from the backlog to their vectors. Alone in knowing its
Redis keys.

Every change of state is one Lua step (`store/*.lua`), so the ledger

    enqueued = embedded + evicted + dead + pending + leased

balances at every moment. A job is *live* while `queued` names its sequence number as the latest of
its id; whatever else is found in the stream is superseded and leaves unpaid. All keys of a
collection share a hash tag, so every step also runs on Redis Cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import redis

from .logs import logger, skip
from .monitor.fleet import rate_of
from .monitor.service import Service
from .settings import Settings, read_settings
from .store.connection import (
    CLAIM_MEMORY,
    Argument,
    Redis,
    Step,
    connect,
    memory_of,
    memory_used,
    run,
)
from .store.keys import CollectionKeys, CommonKeys
from .throttle import ThrottleStatus, read_throttles
from .throttle.holds import holding, read_holds
from .types import Job, Record, State, text_digest

BATCH_SIZE = 100
EVICT_SIZE = 500  # vectors in one step of an eviction
EXPORT_SECONDS = 15  # an exporter not heard of for so long has lost its lease
PAGE_SIZE = 250  # vectors in one answer of Redis: a megabyte
DROP_SIZE = 500  # keys in one step of a drop: a few milliseconds in which Redis serves nobody else
CHUNK_SIZE = 1000  # jobs per add; larger chunks gain nothing and hold up other commands
SOURCES = 20  # that a collection remembers
SOURCE_LENGTH = 300  # characters kept of the name of one
RECEIPT_SECONDS = 3600  # a run that adds nothing for so long begins again where it was
LEASE_SECONDS = 15  # an owner without a heartbeat for so long is dead
WAKEUP_EXPIRY = 8.0  # seconds after which an unanswered wake-up counts as lost
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}\Z")


class CollectionError(ValueError):
    """What was asked of a collection cannot be done. The message says what to do instead."""


class UnknownCollection(CollectionError):
    """There is no collection of that name in this Redis."""


class ExportedByAnother(CollectionError):
    """Two exporters cannot evict from one collection at a time."""


class DimensionsDiffer(Exception):
    """Vectors of another length than the collection's: nothing of the batch was stored."""


class Lease(NamedTuple):
    """A job in the hands of one slice of work."""

    entry: bytes
    job: Job
    attempts: int  # how often it failed alone
    lost: int  # how often its owner died


class Embedded(NamedTuple):
    """A lease that got its vector."""

    lease: Lease
    vector: bytes  # float32, little-endian
    cached: bool


class Refused(NamedTuple):
    """A lease whose text the API will never embed."""

    lease: Lease
    code: str
    reason: str


class Committed(NamedTuple):
    """What a commit did: the rest was superseded, or finished by another before."""

    stored: int
    dead: int
    superseded: int
    fenced: int


class Added(NamedTuple):
    """What the texts of an add were. `dead`: the very text is a dead letter, and stays one.
    `evicted`: so many of the unchanged have their vectors no longer here, but in files.
    `replacing`: so many of the new are under an id that had another text before the run.
    """

    new: int
    unchanged: int
    duplicates: int
    dead: int
    evicted: int = 0
    replacing: int = 0


class Place(NamedTuple):
    """Which vector it is: its number in the order of commits, its id, its text's digest."""

    number: int
    id: str
    digest: bytes


class _Hash(NamedTuple):
    """What the field `hash` of a stored vector says; `commit.lua` writes it."""

    digest: bytes  # of its text
    number: int
    cached: bool


class Dropped(NamedTuple):
    """What the drop of a collection deleted."""

    vectors: int = 0
    queued: int = 0
    dead: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """A text that could not be embedded, and why. `at` is Unix time in seconds."""

    id: str
    text: str
    meta: Mapping[str, object] | None
    code: str
    reason: str
    attempts: int
    at: float


@dataclass(frozen=True)
class Ledger:
    """A collection's books at one moment, read in one step.

    The first six are the promise: enqueued = embedded + evicted + dead + pending + leased. The
    `ever` ones only grow.
    """

    enqueued: int
    embedded: int
    evicted: int
    dead: int
    pending: int
    leased: int
    unchanged: int
    embedded_ever: int  # replaced, evicted and all
    cached_ever: int
    dead_ever: Mapping[str, int]  # by code
    oldest_age: float  # seconds since the oldest text of the backlog was enqueued; 0 if none
    model: str | None
    dimensions: int | None
    throttle: str | None  # that workers of an earlier version have for it
    halted: str | None = None  # why nothing is done for this collection alone


@dataclass(frozen=True)
class Status:
    """A collection's ledger at one moment, and what the work on it is doing."""

    collection: str
    model: str | None
    dimensions: int | None
    enqueued: int
    embedded: int
    evicted: int
    cached: int
    dead: int
    pending: int
    leased: int
    unchanged: int
    state: str  # idle, running, paused or halted
    reason: str | None
    paused_until: float | None  # Unix time in seconds
    workers: int  # worker processes alive in the fleet, and consuming our queue
    rate: float | None = None  # texts/s done lately; None where no worker says
    throttle: ThrottleStatus | None = None  # of a worker's key that is best able to serve it
    held: bool = False  # paused by hand
    able: int | None = None  # workers that are neither halted nor unfit for this collection

    @property
    def seconds_left(self) -> float | None:
        """How long the backlog takes at the rate of late; None where that is not known, and while
        nothing goes on.
        """
        return self.backlog / self.rate if self.rate and self.state == "running" else None

    @property
    def backlog(self) -> int:
        """Texts still to be done: pending and leased."""
        return self.pending + self.leased


class Collection:
    """One collection in one Redis. Cheap to make; nothing is sent until a method is called.

    Raises CollectionError for a name that is not 1 to 100 letters, digits, `.`, `_` or `-`. Every
    method raises `redis.RedisError` where Redis does not answer.
    """

    def __init__(self, name: str, *, settings: Settings | None = None) -> None:
        if not _NAME.match(name):
            raise CollectionError(
                f"collection name {name[:120]!r} must be 1 to 100 letters, digits, '.', '_' or '-'"
            )
        self.name = name
        self._settings = settings or read_settings()
        self._keys = CollectionKeys(self._settings.prefix, name)
        self.epoch = ""  # under which it is announced: see idle.lua

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    @property
    def _redis(self) -> Redis:
        return connect(self._settings)

    # The producer's side

    def adder(self, model: str | None = None) -> Adder:
        """One producer's run of adds."""
        return Adder(self, model or self._settings.model)

    def announce(self, epoch: bytes | None = None) -> str:
        """Let the workers know of this collection before anything is added to its backlog, which is
        done under the epoch that is returned: `epoch`, where a step said that it is this one now.
        """
        now = self.epoch if epoch is None else epoch.decode()
        common = CommonKeys(self._settings.prefix)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.sadd(common.collections, self.name)
        pipeline.sadd(common.busy, f"{self.name} {now}")
        pipeline.execute()
        self.epoch = now
        return now

    def sources(self) -> list[str]:
        """What fed it, the latest last: the names that `note_source` was told."""
        said = self._redis.hget(self._keys.info, "sources")
        return cast("list[str]", json.loads(said)) if said else []

    def note_source(self, name: str) -> None:
        """Remember that `name` fed it. The last few are remembered; of a long name its end."""
        name = name[-SOURCE_LENGTH:]
        names = [one for one in self.sources() if one != name][1 - SOURCES :] + [name]
        self._redis.hset(self._keys.info, "sources", json.dumps(names))

    # The worker's side

    def keep_alive(self, consumer: str) -> None:
        """Say that `consumer` is alive; to be said again well within LEASE_SECONDS."""
        key = self._keys.alive(consumer)
        # SET is refused where Redis is full; then of all times a lease must not run out.
        if not self._redis.pexpire(key, LEASE_SECONDS * 1000):
            self._redis.set(key, "1", ex=LEASE_SECONDS)

    def claim(
        self,
        consumer: str,
        count: int = BATCH_SIZE,
        *,
        suspects: bool = False,
        take_over: bool = True,
        living: Iterable[str] = (),
    ) -> list[Lease]:
        """Up to `count` live jobs, leased to `consumer`; an empty list when there are none, and for
        a consumer that is not kept alive.

        `suspects`: a few of the texts, or one, that may have killed their owners, and no others; to
        be asked for by a process that holds nothing else. `take_over`: also what dead consumers of
        other processes hold. `living`: the consumers of the same process that are not dead,
        whatever Redis says; what its others hold is always taken over. An answer that is lost is
        given again to the same consumer's next claim.
        """
        args: list[Argument] = [consumer, count, self._keys.doc_prefix, self._keys.alive_prefix]
        args += ["1" if suspects else "", "1" if take_over else "", LEASE_SECONDS * 1000, *living]
        flat = self._run(
            "claim",
            (
                self._keys.jobs,
                self._keys.queued,
                self._keys.info,
                self._keys.done,
                self._keys.attempts,
            ),
            args,
        )
        return [
            Lease(
                entry,
                Job(job_id.decode(), text.decode(), _load_meta(meta)),
                attempts,
                lost,
            )
            for entry, job_id, text, meta, attempts, lost in zip(*[iter(flat)] * 6)
        ]

    def holds_back(self) -> bool:
        """Whether texts are left that a claim without `suspects` would not lease."""
        if not self._redis.exists(self._keys.jobs):
            return False
        return bool(self._redis.xpending_range(self._keys.jobs, "workers", "-", "+", 1, "released"))

    def commit(
        self,
        embedded: Sequence[Embedded],
        refused: Sequence[Refused] = (),
        *,
        keep_text: bool = False,
    ) -> Committed:
        """Store vectors and dead letters in one atomic step; safe to send again.

        Raises DimensionsDiffer when the vectors are not as long as the collection's.
        """
        dimensions = len(embedded[0].vector) // 4 if embedded else ""
        args: list[Argument] = [self._keys.doc_prefix, dimensions, len(embedded)]
        for lease, vector, cached in embedded:
            job = lease.job
            args += (lease.entry, job.id, text_digest(job.text), "1" if cached else "", vector)
            args += (job.text if keep_text else "", _dump_meta(job.meta))
        for lease, code, reason in refused:
            args += (lease.entry, lease.job.id, _dump_letter(lease, code, reason))
        keys = (
            self._keys.jobs,
            self._keys.queued,
            self._keys.info,
            self._keys.done,
            self._keys.dead,
            self._keys.attempts,
        )
        # What is in hand has been paid for: a Redis that is back within seconds still gets it.
        answer = self._run("commit", keys, args, resends=5)
        if answer[0] == b"dimensions":
            raise DimensionsDiffer(
                f"the API answered with {dimensions} dimensions, collection {self.name} has "
                f"{answer[1].decode()}"
            )
        return Committed(*answer)

    def release(
        self, consumer: str, failed: Iterable[Lease] = (), *, end_slice: bool = False
    ) -> int:
        """Give back all that `consumer` holds; `failed` are the ones that failed alone, and
        counted.
        """
        args: list[Argument] = [consumer, "1" if end_slice else ""]
        for lease in failed:
            args += (lease.entry, lease.attempts)
        keys = (self._keys.jobs, self._keys.attempts, self._keys.alive(consumer))
        released: int = self._run("release", keys, args, resends=2)
        return released

    def answer(self, token: str) -> bool:
        """Take note of a wake-up; False if it came too late, or twice: another has its place."""
        return self._redis.zrem(self._keys.wakeups, token) == 1

    def wake(self, slots: int) -> list[str]:
        """Tokens of the wake-ups worth sending now, with `slots` places in the fleet."""
        tokens = self._run(
            "wake",
            (self._keys.jobs, self._keys.wakeups, self._keys.info),
            [
                slots,
                BATCH_SIZE,
                int(WAKEUP_EXPIRY * 1000),
                self._keys.alive_prefix,
                LEASE_SECONDS * 1000,
            ],
        )
        return [token.decode() for token in tokens]

    def halt(self, reason: str) -> None:
        """Stop the work on this collection alone, until somebody resumes it."""
        self._redis.hset(self._keys.info, "halted", reason)

    def resume(self) -> bool:
        """End a halt of this collection alone; whether there was one."""
        return bool(self._redis.hdel(self._keys.info, "halted"))

    def keep_text(self, keep: bool | None = None) -> bool:
        """Whether texts are stored beside their vectors; set it with an argument."""
        if keep is not None:
            self._redis.hset(self._keys.info, "keep_text", "1" if keep else "")
            return keep
        return self._redis.hget(self._keys.info, "keep_text") == b"1"

    @property
    def model(self) -> str | None:
        """The model of all its vectors; None before the first add."""
        model = self._redis.hget(self._keys.info, "model")
        return model.decode() if model is not None else None

    @property
    def dimensions(self) -> int | None:
        """The length of all its vectors; None before the first one is stored."""
        dimensions = self._redis.hget(self._keys.info, "dimensions")
        return int(dimensions) if dimensions is not None else None

    # The reader's side

    def exists(self) -> bool:
        """Whether anything was ever enqueued here."""
        return self.model is not None

    def backlog(self) -> int:
        """Texts still to be done."""
        return int(self._redis.xlen(self._keys.jobs))

    def ledger(self) -> Ledger:
        """What is enqueued, embedded, dead and waiting, read at one moment."""
        flat, backlog, leased, embedded, dead, age = self._run(
            "status",
            (self._keys.jobs, self._keys.info, self._keys.done, self._keys.dead),
            [],
        )
        info = {_text(key): _text(value) for key, value in zip(flat[::2], flat[1::2])}

        def whole(field: str) -> int:
            try:
                return int(info.get(field, 0))
            except ValueError:
                skip(f"{field} of collection {self.name}", info[field])
                return 0

        return Ledger(
            enqueued=whole("enqueued"),
            embedded=embedded,
            evicted=whole("evicted"),
            dead=dead,
            pending=backlog - leased,
            leased=leased,
            unchanged=whole("unchanged"),
            embedded_ever=whole("commits"),
            cached_ever=whole("cached"),
            dead_ever={key[len("dead:") :]: whole(key) for key in info if key.startswith("dead:")},
            oldest_age=age / 1000,
            model=info.get("model"),
            dimensions=whole("dimensions") or None,
            throttle=info.get("throttle"),
            halted=info.get("halted"),
        )

    def status(self) -> Status:
        """The ledger and the state of the work."""
        ledger = self.ledger()
        backlog = ledger.pending + ledger.leased
        service = self._service()
        standing = service.standing(self.name, ledger.model, ledger.throttle)
        state, reason = standing.state, standing.reason
        until = standing.paused_until
        if ledger.halted is not None and state != "halted":
            state, reason, until = "halted", ledger.halted, None
        elif state == "running" and not backlog:
            state = "idle"
        if state == "running" and (used := memory_used(self._redis)) >= CLAIM_MEMORY:
            state, reason = (
                "paused",
                f"Redis is {used:.0%} full: make room or raise maxmemory",
            )
        return Status(
            collection=self.name,
            model=ledger.model,
            dimensions=ledger.dimensions,
            enqueued=ledger.enqueued,
            embedded=ledger.embedded,
            evicted=ledger.evicted,
            cached=ledger.cached_ever,
            dead=ledger.dead,
            pending=ledger.pending,
            leased=ledger.leased,
            unchanged=ledger.unchanged,
            state=state,
            reason=reason,
            paused_until=until,
            workers=standing.workers,
            held=standing.held,
            able=standing.able,
            rate=rate_of(service.fleet, self.name),
            throttle=standing.throttle,
        )

    def is_open(self, service: Service | None = None) -> bool:
        """Whether, as far as is known, a worker can work on it now. `service`: as it was read a
        moment ago.
        """
        model, older, halted = self._read_info("model", "throttle", "halted")
        if halted is not None:
            return False
        service = service or self._service()
        return service.standing(self.name, model, older).state == "running"

    def is_open_under(self, throttle: str) -> bool:
        """Whether it may be worked on now under the key of this throttle."""
        prefix = self._settings.prefix
        if holding(read_holds(self._redis, prefix), self.name) is not None:
            return False
        model, older, halted = self._read_info("model", "throttle", "halted")
        if halted is not None:
            return False
        names = [throttle] if older is None else [throttle, older]
        known = read_throttles(self._redis, prefix, names, model)
        return known[throttle].state == "running" and not known[names[-1]].is_held

    def _read_info(self, *fields: str) -> list[str | None]:
        said = self._redis.hmget(self._keys.info, fields)
        return [None if value is None else value.decode() for value in said]

    def _service(self) -> Service:
        return Service(self._redis, self._settings.prefix, self._settings.queue)

    @property
    def older_throttle(self) -> str | None:
        """The throttle that workers of an earlier version have for it, where one saw it."""
        name = self._redis.hget(self._keys.info, "throttle")
        return name.decode() if name is not None else None

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

    def get(self, id: str) -> Record | None:
        """The stored vector of an id, or None."""
        return self.get_many([id])[0]

    def get_many(self, ids: Sequence[str]) -> list[Record | None]:
        """The stored vectors of `ids`, in their order; None where there is none."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hget(self._keys.info, "model")
        for id in ids:
            pipeline.hmget(self._keys.doc(id), ["vector", "hash", "text", "meta"])
        model, *rows = pipeline.execute()
        name = model.decode() if model is not None else ""
        return [
            None if row[0] is None else _load_record(name, id, *row) for id, row in zip(ids, rows)
        ]

    def __iter__(self) -> Iterator[Record]:
        """Every stored vector, in the order in which they were stored; memory stays flat.

        One that is replaced meanwhile comes in its new place: again, if it had come before. Raises
        CollectionError if the collection is dropped, or Redis loses it, before all were read.
        """
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[list[Record]]:
        """What iterating gives, some at a time: Redis gathers the next while these are in use."""
        pid, last, is_fresh, born = os.getpid(), 0, False, b""
        ahead = self._send_for_page(last)
        try:
            while True:
                try:
                    now, commits, model, *rows = ahead.answers()[0]
                except (redis.ConnectionError, redis.TimeoutError):  # sent too long ago
                    now, commits, model, *rows = ahead.answers()[0]
                born = born or now
                if now != born or int(commits) < last:
                    raise self.gone()
                if not rows and is_fresh:
                    return
                # Asked for while the last ones were in use, the end may be out of date.
                is_fresh = not rows
                last = _load_hash(rows[-3]).number if rows else last
                ahead = self._send_for_page(last)
                if rows:
                    yield _load_page(model, rows)
                if os.getpid() != pid:  # the answer is for the process that this was forked from
                    pid = os.getpid()
                    ahead.close()
                    ahead = self._send_for_page(last)
        finally:
            ahead.close()

    def born(self) -> bytes:
        """A token of its life: another one once it is dropped, even in part, or Redis has lost it.
        Empty where there is no collection of this name.
        """
        return self._redis.hget(self._keys.info, "born") or b""

    def gone(self) -> CollectionError:
        """The error for one that is another now than when it was begun to be read."""
        return CollectionError(
            f"collection {self.name} was dropped, or lost by Redis, while it was read: "
            f"what was read is not all: see vec status {self.name}"
        )

    def _send_for_page(self, after: int) -> Step:
        keys = [self._keys.done, self._keys.info]
        step = Step(self._redis, "store/finished", keys, [self._keys.doc_prefix, after, PAGE_SIZE])
        step.send()
        return step

    def finished(self, after: int, count: int) -> list[Record]:
        """The next `count` stored vectors, in the order of their numbers, from above `after`."""
        args: list[Argument] = [self._keys.doc_prefix, after, count]
        _, _, model, *rows = self._run("finished", (self._keys.done, self._keys.info), args)
        return _load_page(model, rows)

    def dead(self, code: str | None = None) -> Iterator[DeadLetter]:
        """The dead letters (all, or those of `code`), in no particular order."""
        for _, letter in self._letters(None, code):
            yield letter

    def retry(self, ids: Iterable[str] | None = None, *, code: str | None = None) -> int:
        """Put dead letters (all, or those of `ids`, or of `code`) back into the backlog; how many
        there were.

        Each leaves the dead and is queued in one atomic step: where it breaks off, the rest is
        still dead, and to be retried.
        """
        put_back = 0
        args: list[Argument] = []
        for raw, letter in self._letters(ids, code):
            args += [letter.id, raw, _dump_meta(letter.meta), letter.text]
            if len(args) >= 4 * CHUNK_SIZE:
                put_back += self._retry_chunk(args)
                args = []
        return put_back + (self._retry_chunk(args) if args else 0)

    def _letters(
        self, ids: Iterable[str] | None, code: str | None
    ) -> Iterator[tuple[bytes, DeadLetter]]:
        """Dead letters, each also as it is kept."""
        for id, raw in self._raw_letters(ids):
            try:
                letter = _load_letter(id, raw)
            except (ValueError, TypeError, RecursionError):
                skip(f"dead letter of collection {self.name}", id)
                continue
            if code is None or letter.code == code:
                yield raw, letter

    def _raw_letters(self, ids: Iterable[str] | None) -> Iterator[tuple[str, bytes]]:
        if ids is None:
            for key, raw in self._redis.hscan_iter(self._keys.dead, count=500):
                yield _text(key), raw
            return
        for id in ids:
            letter = self._redis.hget(self._keys.dead, id)
            if letter is not None:
                yield id, letter

    def _retry_chunk(self, args: Sequence[Argument]) -> int:
        epoch = self.announce()
        while True:
            answer = self._run(
                "retry",
                (
                    self._keys.jobs,
                    self._keys.queued,
                    self._keys.info,
                    self._keys.dead,
                    self._keys.epoch,
                ),
                [epoch, *args],
            )
            if isinstance(answer, int):
                return answer
            epoch = self.announce(answer[1])

    def states(self, ids: Sequence[str]) -> list[State]:
        """For each id, which text is stored, queued and dead under it: for proving a corpus
        complete.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(self._keys.queued, ids)
        pipeline.hmget(self._keys.dead, ids)
        for id in ids:
            pipeline.hget(self._keys.doc(id), "hash")
        queued, dead, *stored = pipeline.execute()
        return [
            State(
                stored=None if packed is None else _load_hash(packed).digest,
                queued=None if latest is None else latest[:8],
                dead=None if letter is None else letter[:16],
            )
            for packed, latest, letter in zip(stored, queued, dead)
        ]

    def evict(
        self, token: str, vectors: Sequence[Place] = (), *, born: bytes = b"", end: bool = False
    ) -> int:
        """Delete `vectors`, which are safe in a file; how many still were as they were written, and
        none in another life than `born`, where it is given.

        At most EVICT_SIZE at a time. Whoever calls is the exporter for EXPORT_SECONDS from now,
        unless this is the `end`. Raises ExportedByAnother.
        """
        lease = 0 if end else EXPORT_SECONDS * 1000
        args: list[Argument] = [
            self._keys.doc_prefix,
            self._keys.evicted_prefix,
            token,
            lease,
            born,
        ]
        for number, id, digest in vectors:
            args += (number, id, digest, _id_digest(id))
        evicted: int = self._run(
            "evict", (self._keys.info, self._keys.done, self._keys.exporter), args, resends=5
        )
        if evicted < 0:
            raise ExportedByAnother(
                f"another export evicts from {self.name}, or was killed less than "
                f"{EXPORT_SECONDS} s ago: only one at a time can"
            )
        return evicted

    def renumber(self, vectors: Sequence[Place], above: int, *, born: bytes = b"") -> None:
        """Give `vectors` new numbers, and all that come numbers `above` this one; not in another
        life than `born`, where it is given.
        """
        args: list[Argument] = [self._keys.doc_prefix, above, born]
        for number, id, _ in vectors:
            args += (number, id)
        self._run("renumber", (self._keys.info, self._keys.done), args, resends=5)

    def exported(self, folder: str) -> int:
        """Up to which number the folder with this token holds the vectors, as Redis knows it."""
        return int(self._redis.hget(self._keys.info, f"exported:{folder}") or 0)

    def note_exported(self, folder: str, number: int, born: bytes) -> None:
        """Note that a folder holds the vectors up to `number`; not in another life than `born`."""
        self._run("exported", (self._keys.info,), [folder, number, born], resends=5)

    def drop(self) -> Iterator[Dropped]:
        """Delete the collection, piece by piece; tells after each how much is gone.

        Broken off it leaves a smaller collection whose ledger balances; a further drop goes on.
        """
        keys = (
            self._keys.jobs,
            self._keys.queued,
            self._keys.info,
            self._keys.done,
            self._keys.dead,
            self._keys.attempts,
            self._keys.wakeups,
        )
        args: list[Argument] = [self._keys.doc_prefix, self._keys.evicted_prefix, DROP_SIZE]
        gone, left, born = Dropped(), 1, self.born()
        while left:
            following = uuid.uuid4().hex.encode()
            *piece, left = self._run("drop", keys, [*args, born, following], resends=2)
            born = following
            gone = Dropped(*map(sum, zip(gone, piece)))
            yield gone
        names = CommonKeys(self._settings.prefix).collections
        self._redis.srem(names, self.name)
        if self.exists():  # a producer has begun anew meanwhile
            self._redis.sadd(names, self.name)

    def _run(
        self, name: str, keys: Iterable[str], args: Sequence[Argument], *, resends: int = 0
    ) -> Any:
        return run(self._redis, f"store/{name}", list(keys), args, resends=resends)


class Load(NamedTuple):
    """How much there is to do, and how full Redis is."""

    backlog: int
    memory: float  # of its limit


class Chunk(Step):
    """At most CHUNK_SIZE jobs on their way into the backlog. Sent again, they are counted once: the
    step remembers the number of the last chunk.
    """

    def __init__(self, adder: Adder, args: Sequence[Argument], jobs: int, replaced: int) -> None:
        key = adder.collection._keys
        self._keys = [key.jobs, key.queued, key.info, key.dead, key.done, adder.receipt, key.epoch]
        along = (("XLEN", key.jobs), ("INFO", "memory"))
        super().__init__(adder.collection._redis, "store/add", self._keys, args, along)
        self._number = adder.chunks
        self._adder = adder
        self._jobs = jobs
        self._replaced = replaced  # jobs left out, as a later one has their id

    def answer(self) -> tuple[Added, Load]:
        """What the jobs were, and what there is with them. Raises CollectionError when the
        collection's vectors are of another model.
        """
        collection = self._adder.collection
        answer, backlog, info = self.answers()
        while answer[0] in (b"epoch", b"receipt"):
            if answer[0] == b"epoch":
                self.args = [collection.announce(answer[1]), *self.args[1:]]
            else:
                if self._keys[_RECEIPT] == self._adder.receipt:
                    self._adder.begin_again(self._number - 1)
                self._keys[_RECEIPT] = self._adder.receipt
            answer, backlog, info = self.answers()
        added = self._adder.read(answer)
        if backlog <= self._jobs:  # it may have begun the collection, in a Redis emptied in mid-run
            collection.announce()
        added = added._replace(duplicates=added.duplicates + self._replaced)
        return added, Load(backlog, memory_of(info).share)


_RECEIPT = 5  # its place among the keys of add.lua


class Adder:
    """One producer's run of adds into a collection: chunk after chunk, each counted once.

    `lost`: Redis has lost what the run added: it went back in time, or the collection was dropped.
    """

    def __init__(self, collection: Collection, model: str) -> None:
        self.collection = collection
        self._model = model
        self.lost = False
        self.chunks = 0
        self.receipt = ""  # the key of it; none yet
        self._since = b"0"
        self._seq = 0  # how far the collection was seen to grow
        self._born = b""  # and in which of its lives; empty before the first
        self._any_evicted = False

    def chunk(self, jobs: Sequence[Job]) -> Chunk:
        """At most CHUNK_SIZE jobs, to be sent once the chunk before is in; a later one of the same
        id wins.
        """
        keys = self.collection._keys
        if not self.receipt:
            self.collection.announce()
            seq, buckets, self._born = self._begin(0)
            self._since, self._any_evicted = seq, buckets is not None
        self.chunks += 1
        latest = {job.id: job for job in jobs}
        kept = latest.values()
        digests = [text_digest(job.text) for job in kept]
        if self._any_evicted:
            digests = [digest + _id_digest(id) for digest, id in zip(digests, latest)]
        args: list[Argument] = [self.collection.epoch, keys.doc_prefix, self.chunks, self._since]
        args += (self._model, keys.evicted_prefix, len(latest), b"".join(digests))
        args += (*latest, *[job.text for job in kept])
        if any(job.meta for job in kept):
            args += [_dump_meta(job.meta) for job in kept]
        return Chunk(self, args, len(latest), len(jobs) - len(latest))

    def add(self, jobs: Sequence[Job]) -> Added:
        """One chunk, from its jobs to what they were."""
        chunk = self.chunk(jobs)
        chunk.send()
        return chunk.answer()[0]

    def read(self, answer: Sequence[Any]) -> Added:
        """The answer to a chunk."""
        if answer[0] == b"model":
            name = self.collection.name
            raise CollectionError(
                f"collection {name} has vectors of model {answer[1].decode()}, not "
                f"{self._model}: name another collection with --collection, or remove this one "
                f"with vec drop {name}"
            )
        new, unchanged, duplicates, dead, evicted, buckets, replacing, seq, born = answer
        self._any_evicted = buckets > 0
        self._see(seq, born)
        return Added(new, unchanged, duplicates, dead, evicted, replacing)

    def begin_again(self, chunk: int) -> None:
        """Go on after `chunk`, whose receipt is not in Redis: it expired, or is lost."""
        seq, _, born = self._begin(chunk)
        if chunk:
            self._see(int(seq), born)

    def intact(self) -> bool:
        """Look whether Redis still has all that was added, as far as can be told."""
        if self.chunks:
            info = self.collection._keys.info
            seq, born = self.collection._redis.hmget(info, ["seq", "born"])
            self._see(int(seq or 0), born or b"")
        return not self.lost

    def _begin(self, chunk: int) -> tuple[bytes, bytes | None, bytes]:
        """Lay down a receipt for all up to `chunk`; seq, buckets and life of the collection.

        Under a name of its own each time: what was sent under another one and arrives late finds
        no receipt that it could follow.
        """
        keys = self.collection._keys
        receipt = keys.receipt(uuid.uuid4().hex[:12])
        pipeline = self.collection._redis.pipeline(transaction=False)
        pipeline.set(receipt, str(chunk), ex=RECEIPT_SECONDS, nx=True)
        pipeline.hmget(keys.info, ["seq", "buckets", "born"])
        _, (seq, buckets, born) = pipeline.execute()
        self.receipt = receipt
        return seq or b"0", buckets, born or b""

    def _see(self, seq: int, born: bytes) -> None:
        if not self.lost and (seq < self._seq or self._born not in (b"", born)):
            self.lost = True
            logger.warning(
                "%s was dropped, or Redis went back in time: it has lost texts of this run: "
                "enqueue them again",
                self.collection.name,
            )
        self._seq, self._born = max(seq, self._seq), self._born or born


def collection_names(client: Redis, prefix: str) -> list[str]:
    """The names of all collections, sorted."""
    names = map(_name, client.smembers(CommonKeys(prefix).collections))
    return sorted(name for name in names if name is not None)


def busy_collections(client: Redis, prefix: str) -> list[str]:
    """The names of the collections announced as having texts still to be done, sorted.

    What proves to have none is forgotten until it is announced again: idle collections cost
    nothing.
    """
    key = CommonKeys(prefix).busy
    announced = [entry for entry in map(_announced, client.smembers(key)) if entry is not None]
    over = set()
    for entry, backlog in zip(
        announced, _backlogs(client, prefix, [name for name, _ in announced])
    ):
        name, epoch = entry
        known = CollectionKeys(prefix, name)
        keys = [known.jobs, known.epoch]
        if backlog == 0 and run(client, "store/idle", keys, [epoch, uuid.uuid4().hex[:12]]):
            over.add(entry)
    if over:
        client.srem(key, *(f"{name} {epoch}" for name, epoch in over))
    return sorted({entry[0] for entry in announced if entry not in over})


def announce_backlogs(client: Redis, prefix: str) -> None:
    """Look at every collection, and announce the ones with texts still to be done."""
    names = collection_names(client, prefix)
    busy = [name for name, backlog in zip(names, _backlogs(client, prefix, names)) if backlog]
    if busy:
        client.sadd(CommonKeys(prefix).busy, *(f"{name} " for name in busy))


def _backlogs(client: Redis, prefix: str, names: Sequence[str]) -> list[int | None]:
    """Texts still to be done of each; None where the key holds something else."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.xlen(CollectionKeys(prefix, name).jobs)
    answers = pipeline.execute(raise_on_error=False)
    for name, answer in zip(names, answers):
        if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
            skip("backlog of", name)
        elif isinstance(answer, Exception):
            raise answer
    return [answer if isinstance(answer, int) else None for answer in answers]


def _name(raw: bytes) -> str | None:
    """The name of a collection; None for what cannot be one."""
    name = raw.decode(errors="replace")
    if _NAME.match(name):
        return name
    skip("member of collections", raw)
    return None


def _announced(raw: bytes) -> tuple[str, str] | None:
    """A collection and the epoch under which it is announced; None for what announces none."""
    name, blank, epoch = raw.decode(errors="replace").partition(" ")
    if blank and _NAME.match(name) and raw.isascii():
        return name, epoch
    skip("member of busy", raw)
    return None


def _text(raw: bytes) -> str:
    """What Redis holds as text, whoever wrote it."""
    return raw.decode(errors="replace")


def _load_hash(packed: bytes) -> _Hash:
    _, number = packed[16:].split(b" ")
    return _Hash(packed[:16], int(number.rstrip(b"c")), number.endswith(b"c"))


def _load_page(model: bytes, rows: Sequence[bytes]) -> list[Record]:
    """The vectors in an answer of `finished.lua`."""
    name = model.decode()
    return [_load_record(name, id.decode(), *row) for id, *row in zip(*[iter(rows)] * 5)]


def _load_record(
    model: str, id: str, vector: bytes, packed: bytes, text: bytes | None, meta: bytes | None
) -> Record:
    digest, number, cached = _load_hash(packed)
    kept = text.decode() if text else None
    return Record(id, vector, model, cached, kept, _load_meta(meta), number, digest)


def _id_digest(id: str) -> bytes:
    """What an id is remembered by once its vector is evicted."""
    return hashlib.sha256(id.encode()).digest()[:6]


def _dump_meta(meta: Mapping[str, object] | None) -> str:
    return json.dumps(meta, ensure_ascii=False, separators=(",", ":")) if meta else ""


def _load_meta(raw: bytes | None) -> Mapping[str, object] | None:
    return cast(Mapping[str, object], json.loads(raw)) if raw else None


def _dump_letter(lease: Lease, code: str, reason: str) -> bytes:
    job = lease.job
    letter = {
        "text": job.text,
        "meta": job.meta,
        "code": code,
        "reason": reason,
        "attempts": lease.attempts + 1,
        "at": time.time(),
    }
    return text_digest(job.text) + json.dumps(letter, ensure_ascii=False).encode()


def _load_letter(id: str, raw: bytes) -> DeadLetter:
    letter = DeadLetter(id=id, **json.loads(raw[16:]))
    words = (letter.text, letter.code, letter.reason)
    if not all(isinstance(word, str) for word in words):
        raise TypeError("a word that is none")
    return replace(letter, attempts=int(letter.attempts), at=float(letter.at))
