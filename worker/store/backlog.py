"""The backlog: the jobs of a collection that are still to be done.

A producer adds jobs (see adder.py). A slice of work claims some, which gives it a lease on each,
and commits their vectors or dead letters, or releases them. Every change is one Lua step, so the
ledger

    enqueued = embedded + evicted + dead + pending + leased

balances at every moment. A job is *live* while `queued` names its number as the latest of its id.
Any other job in the stream is superseded, and leaves it without being sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from ..layout import Layout, LayoutError, decode
from ..logs import logger
from ..types import (
    NORMAL,
    Committed,
    DeadLetter,
    Embedded,
    Job,
    Lease,
    Refused,
    text_digest,
)
from .codec import dump_letter, dump_meta, load_halts, load_meta
from .connection import Argument, Invocation, Redis, run
from .errors import DimensionsDiffer
from .faults import passes
from .keys import CollectionKeys
from .nodes import ask_all, run_all
from .registry import announce

BATCH_SIZE = 100
CHUNK_SIZE = 1000  # jobs of an add or a retry; more would gain nothing and delay other commands
LEASE_SECONDS = 15  # an owner without a heartbeat for so long is dead
RESENDS = 5  # of a commit whose reply is lost
WAKEUP_EXPIRY = 8.0  # seconds after which an unanswered wake-up counts as lost


class Pending(NamedTuple):
    """Texts that wait, and whether someone waits for one of them: it is interactive."""

    texts: int
    urgent: bool


class Backlog:
    """The backlog of one collection, as the workers use it."""

    def __init__(self, client: Redis, keys: CollectionKeys) -> None:
        self.name = keys.name
        self._redis = client
        self._keys = keys

    def size(self) -> int:
        """Texts still to be done, pending and leased."""
        return int(self._redis.xlen(self._keys.jobs))

    def is_gone(self) -> bool:
        """Whether Redis knows nothing of the collection any more."""
        return not self._redis.exists(self._keys.info)

    def pending(self) -> Pending:
        """Texts still to be done that no slice has leased."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xlen(self._keys.jobs)
        pipeline.zcount(self._keys.ahead, "-inf", f"({NORMAL}")
        pipeline.xpending(self._keys.jobs, "workers")
        size, urgent, leased = pipeline.execute(raise_on_error=False)
        if isinstance(leased, RedisError) and passes(leased):  # its node of a cluster is away
            raise leased
        if isinstance(leased, ResponseError):  # without a job there is no group of consumers
            return Pending(0, False)
        return Pending(int(size) - int(leased["pending"]), urgent > 0)

    def keep_alive(self, consumer: str) -> None:
        """Say that `consumer` is alive; to be repeated well within LEASE_SECONDS."""
        key = self._keys.alive(consumer)
        try:
            self._redis.set(key, "1", ex=LEASE_SECONDS)
        except OutOfMemoryError:  # just then a lease must not run out
            self._redis.pexpire(key, LEASE_SECONDS * 1000)

    def claim(
        self,
        consumer: str,
        count: int = BATCH_SIZE,
        *,
        quarantined: bool = False,
        take_over: bool = True,
        living: Iterable[str] = (),
    ) -> list[Lease]:
        """Lease up to `count` live jobs to `consumer`; empty if there are none.

        Leases nothing to a consumer that is not kept alive. `quarantined`: lease only texts that
        may have killed their owners, a few together or one alone; the process must hold nothing
        else.
        `take_over`: also take what dead consumers of other processes hold. `living`: the consumers
        of this process that are not dead, whatever Redis says; what its other consumers hold is
        always taken over. If a reply is lost, the next claim of the same consumer gets it again.
        """
        kind = "1" if quarantined else ""
        call = self._claim(consumer, count, living, kind=kind, take_over=take_over)
        return self._leases(run(self._redis, "store/claim", *call))

    def _claim(
        self,
        consumer: str,
        count: int,
        living: Iterable[str] = (),
        *,
        kind: str = "",
        take_over: bool = False,
    ) -> Invocation:
        keys = self._keys
        args: list[Argument] = [consumer, count, keys.doc_prefix, keys.alive_prefix]
        args += [
            kind,
            "1" if take_over else "",
            LEASE_SECONDS * 1000,
            *living,
        ]
        names = [keys.jobs, keys.queued, keys.info, keys.attempts, keys.done, keys.ahead]
        return names, args

    def _leases(self, flat: Sequence[Any]) -> list[Lease]:
        return [
            Lease(
                entry,
                Job(id.decode(), text.decode(), load_meta(meta)),
                attempts,
                lost,
                self.name,
                score,
            )
            for entry, id, text, meta, attempts, lost, score in zip(*[iter(flat)] * 7)
        ]

    def has_quarantined(self) -> bool:
        """Whether there are texts that only a claim of what is `quarantined` would lease."""
        # Deaths are counted in `attempts`. Without it, what is released was only given back.
        if self._redis.exists(self._keys.jobs, self._keys.attempts) < 2:
            return False
        return bool(self._redis.xpending_range(self._keys.jobs, "workers", "-", "+", 1, "released"))

    def release(
        self,
        consumer: str,
        failed: Sequence[Lease] = (),
        held: Iterable[Lease] = (),
        *,
        end_slice: bool = False,
    ) -> int:
        """Give back all that `consumer` holds; returns how many jobs that were.

        `failed`: the leases that failed alone; each failure is counted. `held`: those that it may
        hold; of these, what has overtaken others does so again.
        """
        call = self._release(consumer, failed, held, end_slice=end_slice)
        released: int = run(self._redis, "store/release", *call, resends=2)
        return released

    def _release(
        self, consumer: str, failed: Sequence[Lease], held: Iterable[Lease], *, end_slice: bool
    ) -> Invocation:
        keys = self._keys
        args: list[Argument] = [consumer, "1" if end_slice else "", len(failed)]
        for lease in failed:
            args += (lease.entry, lease.attempts)
        for lease in held:
            if lease.score:
                args += (lease.entry, lease.score)
        return [keys.jobs, keys.attempts, keys.alive(consumer), keys.ahead], args

    def acknowledge(self, token: str) -> bool:
        """Answer a wake-up; False if it came too late or twice, and another one replaces it."""
        return self._redis.zrem(self._keys.wakeups, token) == 1

    def wake(self, threads: int) -> list[str]:
        """Tokens of the wake-ups that are worth sending now to a fleet with this many `threads`."""
        keys = self._keys
        args: list[Argument] = [threads, BATCH_SIZE, int(WAKEUP_EXPIRY * 1000), keys.alive_prefix]
        args.append(LEASE_SECONDS * 1000)
        tokens = run(self._redis, "store/wake", [keys.jobs, keys.wakeups, keys.info], args)
        return [token.decode() for token in tokens]

    def halt(self, throttle: str, reason: str) -> None:
        """Stop the work on this collection by the workers under `throttle`, until it is resumed."""
        said = self._redis.hget(self._keys.info, "halted")
        halts = load_halts(self.name, None if said is None else said.decode(errors="replace"))
        # If two workers halt it at the same moment, one reason is lost, and found again.
        self._redis.hset(self._keys.info, "halted", json.dumps({**halts, throttle: reason}))

    def resume(self) -> bool:
        """End the halts of this collection alone; returns whether there were any."""
        return bool(self._redis.hdel(self._keys.info, "halted"))

    def keep_text(self, keep: bool) -> None:
        """Set whether texts are stored beside their vectors from now on."""
        self._redis.hset(self._keys.info, "keep_text", "1" if keep else "")

    def retry(self, letters: Iterable[tuple[bytes, DeadLetter]]) -> int:
        """Put dead letters back into the backlog; returns how many there were.

        Each one leaves the dead and is queued in one atomic step: if this is interrupted, the rest
        is still dead and can be retried. `letters` come from `Reader.letters`.
        """
        put_back = 0
        args: list[Argument] = []
        for raw, letter in letters:
            args += [letter.id, raw, dump_meta(letter.meta), letter.text]
            if len(args) >= 4 * CHUNK_SIZE:
                put_back += self._retry_chunk(args)
                args = []
        return put_back + (self._retry_chunk(args) if args else 0)

    def _retry_chunk(self, args: Sequence[Argument]) -> int:
        keys = self._keys
        names = [keys.jobs, keys.queued, keys.info, keys.dead, keys.epoch]
        epoch = ""
        while True:
            announce(self._redis, keys, epoch)
            reply = run(self._redis, "store/retry", names, [epoch, *args])
            if isinstance(reply, int):
                return reply
            epoch = reply[1].decode()


class Commit(NamedTuple):
    """Outcomes to be stored: vectors and dead letters, in one atomic step that may be sent again.

    `layout`: that of the collection. If it has another one since, that one is used.
    """

    backlog: Backlog
    embedded: Sequence[Embedded]
    refused: Sequence[Refused]
    keep_text: bool
    layout: Layout

    def run(self) -> Committed:
        """Store them. Raises DimensionsDiffer when the vectors are not as long as the others."""
        # These vectors are paid for: a Redis that is back within seconds still gets them.
        reply = run(self.backlog._redis, "store/commit", *self.call(), resends=RESENDS)
        return self.read(reply)

    def call(self) -> Invocation:
        """The keys and the arguments of the step."""
        keys = self.backlog._keys
        names = [keys.jobs, keys.queued, keys.info, keys.done, keys.dead, keys.attempts]
        args: list[Argument] = [keys.doc_prefix, self._dimensions, len(self.embedded)]
        args.append(str(self.layout))
        for (lease, _, cached), vector in zip(self.embedded, _encoded(self.embedded, self.layout)):
            job = lease.job
            args += (lease.entry, job.id, text_digest(job.text), "1" if cached else "", vector)
            args += (job.text if self.keep_text else "", dump_meta(job.meta))
        for one in self.refused:
            args += (one.lease.entry, one.lease.job.id, dump_letter(one))
        return names, args

    def read(self, reply: Sequence[Any]) -> Committed:
        """What the step did; if the collection has another layout since, it is run again."""
        if reply[0] == b"layout":
            layout = Layout.read(reply[2].decode(), reply[1].decode())
            return self._replace(layout=layout).run()
        if reply[0] == b"dimensions":
            raise DimensionsDiffer(
                f"the API answered with {self._dimensions} dimensions, collection "
                f"{self.backlog.name} has {reply[1].decode()}"
            )
        return Committed(*reply)

    @property
    def _dimensions(self) -> int | str:
        return len(self.embedded[0].vector) // 4 if self.embedded else ""


def commit_all(commits: Sequence[Commit]) -> list[Committed | Exception]:
    """Run several commits, in one round trip to each node; in place of what one did, its fault.

    Raises `redis.RedisError` if no node answers.
    """
    if not commits:
        return []
    calls = [one.call() for one in commits]
    done: list[Committed | Exception] = []
    replies = run_all(commits[0].backlog._redis, "store/commit", calls, resends=RESENDS)
    for one, reply in zip(commits, replies):
        try:
            done.append(reply if isinstance(reply, Exception) else one.read(reply))
        except (DimensionsDiffer, LayoutError, RedisError) as fault:
            done.append(fault)
    return done


def claim_all(
    backlogs: Sequence[Backlog], consumer: str, counts: Sequence[int], *, urgent: bool = False
) -> list[list[Lease]]:
    """Lease up to so many jobs of each of some backlogs, for one request of another.

    `urgent`: interactive ones alone, beside what the consumer holds already.
    `consumer` is kept alive there from now on. What dead consumers hold is left to others, and so
    is what failed alone or may have killed its owner. A backlog whose step is refused, whose node
    is away, or whose jobs cannot be read, gives nothing: its own workers say why.
    """
    if not backlogs:
        return []
    client = backlogs[0]._redis
    keep_all_alive(backlogs, consumer)
    kind = "urgent" if urgent else "guest"
    calls = [one._claim(consumer, count, kind=kind) for one, count in zip(backlogs, counts)]
    claimed: list[list[Lease]] = []
    for one, reply in zip(backlogs, run_all(client, "store/claim", calls)):
        claimed.append([])
        if not isinstance(reply, Exception):
            with suppress(ValueError):
                claimed[-1] = one._leases(reply)
    return claimed


def keep_all_alive(backlogs: Sequence[Backlog], consumer: str) -> list[RedisError | None]:
    """`Backlog.keep_alive` for several, in one round trip to each node; what each one failed for.

    Raises it if no node answers.
    """
    keys = [one._keys.alive(consumer) for one in backlogs]
    replies = ask_all(backlogs[0]._redis, [("SET", key, "1", "EX", LEASE_SECONDS) for key in keys])
    for n, reply in enumerate(replies):
        if isinstance(reply, OutOfMemoryError):
            backlogs[n].keep_alive(consumer)
            replies[n] = None
    return [reply if isinstance(reply, RedisError) else None for reply in replies]


def release_all(
    backlogs: Sequence[Backlog],
    consumer: str,
    failed: Sequence[Sequence[Lease]],
    held: Sequence[Iterable[Lease]],
) -> None:
    """`Backlog.release` at the end of a slice, for several. A refusal is logged.

    Raises `redis.RedisError` for a fault that passes, as that a node is away, when the other nodes
    have released theirs.
    """
    if not backlogs:
        return
    calls = [
        one._release(consumer, some, its, end_slice=True)
        for one, some, its in zip(backlogs, failed, held)
    ]
    replies = run_all(backlogs[0]._redis, "store/release", calls, resends=2)
    away: RedisError | None = None
    for one, reply in zip(backlogs, replies):
        if isinstance(reply, RedisError) and passes(reply):
            away = reply
        elif isinstance(reply, Exception):  # the lease runs out by itself
            logger.warning("%s: what was leased of it is not given back (%s)", one.name, reply)
    if away is not None:
        raise away


def _encoded(embedded: Sequence[Embedded], layout: Layout) -> Iterable[bytes]:
    """The vectors as they are stored in a collection with this layout."""
    vectors = [one.vector for one in embedded]
    if layout.is_plain or not vectors:
        return vectors
    return layout.encode(decode(b"".join(vectors), "float32", len(vectors)))
