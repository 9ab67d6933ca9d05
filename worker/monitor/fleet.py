"""The fleet: which worker processes are alive, how many threads they have, and what they do.

A worker announces itself every second: its name and threads (0 while it takes no wake-ups) in a
sorted set, scored with the time, and the rest as JSON under a key of its own, which expires. A
worker of an older version, which says less, counts too. A worker that ends takes its name out; one
that is killed, frozen or cut off leaves it there for an hour, and is shown as lost.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import redis

from ..logs import skip
from ..store.connection import Redis, run
from ..store.keys import CommonKeys
from ..store.nodes import ask_all, time_of

WORKER_SECONDS = 4.0  # a worker that was not seen for this long is not alive
LOST_SECONDS = 3600.0  # how long a lost worker is remembered
RATE_SECONDS = 60.0  # over which recent rates are counted


class Work(NamedTuple):
    """A slice under way: a thread that works on a collection."""

    collection: str
    texts: int  # in hand
    waiting: bool  # for the throttle


class Trouble(NamedTuple):
    """A warning or an error that a worker logged."""

    seconds: float  # ago
    said: str


@dataclass(frozen=True)
class Worker:
    """A worker process, as it announces itself. None: an older version does not say it."""

    name: str  # host:pid:hex
    threads: int
    up_seconds: float | None = None
    version: str | None = None
    work: Sequence[Work] | None = None  # None too where the pool's processes work unseen
    rates: Mapping[str, float] | None = None  # recent texts/s, by collection
    since_done: Mapping[str, float] = field(default_factory=dict)  # seconds, by collection
    troubles: Sequence[Trouble] = ()  # the last few, the oldest first
    throttle: str | None = None  # the name of the throttle of a key of its, the best one
    throttles: Sequence[str] = ()  # of all its keys
    key_fault: str | None = None  # why its key file cannot be read now
    queue: str | None = None  # the Celery queue that it consumes
    takes: bool = True  # wake-ups: not while it cannot work, nor from another queue
    faults: Mapping[str, str] = field(default_factory=dict)  # by collection: why slices raise
    state: str | None = None  # working, halted (its keys are refused) or unfit (its slices raise)
    reason: str | None = None  # of any other state than working, in one line
    guests: int = 0  # texts in hand of other collections than those of its slices
    seen_seconds: float = 0.0  # ago

    @property
    def host(self) -> str:
        """Where it runs."""
        return self.name.rsplit(":", 2)[0]

    @property
    def pid(self) -> str:
        """Its process there."""
        return (self.name.split(":")[-2:] + [""])[0]

    @property
    def keys(self) -> Sequence[str]:
        """The names of its keys' throttles, as far as it says them."""
        return self.throttles or ([] if self.throttle is None else [self.throttle])

    @property
    def alive(self) -> bool:
        """Whether it was seen in the last WORKER_SECONDS."""
        return self.seen_seconds <= WORKER_SECONDS


def announce_worker(client: Redis, prefix: str, worker: Worker) -> None:
    """Announce that a worker process is alive, and what it does."""
    keys = CommonKeys(prefix)
    now = _now(client, prefix)
    # The names by which workers of an earlier version say and read them.
    said = {**vars(worker), "up": worker.up_seconds, "slots": worker.threads}
    taking, resting = f"{worker.name}/{worker.threads}", f"{worker.name}/0"
    one, other = (taking, resting) if worker.takes else (resting, taking)
    run(client, "monitor/announce", [keys.workers], [one, now, now - LOST_SECONDS, other])
    with suppress(redis.exceptions.OutOfMemoryError):  # then only what it does is missing
        client.set(keys.worker(worker.name), json.dumps(said), ex=int(LOST_SECONDS))


def forget_worker(client: Redis, prefix: str, worker: Worker) -> None:
    """Take out a worker process that has ended."""
    keys = CommonKeys(prefix)
    client.zrem(keys.workers, f"{worker.name}/{worker.threads}", f"{worker.name}/0")
    client.delete(keys.worker(worker.name))


def threads_alive(client: Redis, prefix: str) -> int:
    """The number of threads of all workers that are alive and take wake-ups."""
    now = _now(client, prefix)
    key = CommonKeys(prefix).workers
    members = client.zrangebyscore(key, now - WORKER_SECONDS, now + WORKER_SECONDS)
    return sum(member[1] for member in map(_member, members) if member is not None)


def read_fleet(client: Redis, prefix: str, seconds: float = LOST_SECONDS) -> list[Worker]:
    """The workers seen in the last `seconds`: those alive, then the lost ones, latest first.

    Of one whose words are on a node that is away, only its name and its threads are known.
    """
    now = _now(client, prefix)
    # A later time than now comes from a clock that has been set back since.
    keys, last = CommonKeys(prefix), now + WORKER_SECONDS
    seen = client.zrevrangebyscore(keys.workers, last, now - seconds, withscores=True)
    names, asked = [], []
    for raw, at in seen:
        member = _member(raw)
        if member is not None:
            names.append((*member, max(0.0, now - at)))
            asked.append(("GET", keys.worker(member[0])))
    replies = ask_all(client, asked)
    for n, said in enumerate(replies):
        if isinstance(said, redis.ResponseError):
            raise said
        if isinstance(said, redis.RedisError):  # its node is away
            replies[n] = None
    return sorted(
        (_read(name, threads, ago, said) for (name, threads, ago), said in zip(names, replies)),
        key=lambda worker: (not worker.alive, worker.name if worker.alive else ""),
    )


class Done:
    """What one worker has done recently, for its rates. Times are of a monotonic clock."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, str, int]] = deque()

    def add(self, collection: str, texts: int, now: float) -> None:
        """Count texts that are done."""
        self._forget(now)
        self._batches.append((now, collection, texts))

    def rates(self, now: float) -> dict[str, float]:
        """Texts/s by collection over the last minute, or since work on it began in that time."""
        self._forget(now)
        first: dict[str, float] = {}
        totals: dict[str, int] = {}
        for at, collection, texts in list(self._batches):
            first.setdefault(collection, at)
            totals[collection] = totals.get(collection, 0) + texts
        # At least ten seconds: the first batch alone tells little.
        return {
            name: round(total / max(10.0, now - first[name]), 1) for name, total in totals.items()
        }

    def since_done(self, now: float) -> dict[str, float]:
        """Seconds since the last text was done, by collection; what is not recent is left out."""
        return {name: round(now - at, 1) for at, name, _ in list(self._batches)}

    def _forget(self, now: float) -> None:
        with suppress(IndexError):  # another thread may do the same
            while self._batches[0][0] < now - RATE_SECONDS:
                self._batches.popleft()


class Recent:
    """What all living workers say that they have done recently, by collection."""

    def __init__(self, fleet: Sequence[Worker]) -> None:
        told = [one for one in fleet if one.alive and one.rates is not None]
        self._is_told = bool(told)
        self._rates: dict[str, float] = {}
        self._since: dict[str, float] = {}
        for one in told:
            for name, rate in (one.rates or {}).items():
                self._rates[name] = self._rates.get(name, 0.0) + rate
        for one in fleet:
            for name, seconds in one.since_done.items() if one.alive else ():
                self._since[name] = min(seconds, self._since.get(name, seconds))

    def rate(self, collection: str) -> float | None:
        """Texts/s; None if no worker says it."""
        return self._rates.get(collection, 0.0) if self._is_told else None

    def seconds_since_done(self, collection: str) -> float | None:
        """Seconds since one last finished a text; None if none says it."""
        return self._since.get(collection)


def _member(raw: bytes) -> tuple[str, int] | None:
    """A worker's name and number of threads; None for what no worker wrote."""
    name, _, threads = raw.decode(errors="replace").rpartition("/")
    if name and threads.isdecimal() and raw.isascii():
        return name, int(threads)
    skip("member of workers", raw)
    return None


def _read(name: str, threads: int, ago: float, said: bytes | None) -> Worker:
    known = Worker(name, threads, seen_seconds=ago)
    if said is None:
        return known
    try:
        return _told(known, json.loads(said))
    except (ValueError, TypeError, AttributeError, RecursionError):
        skip("announcement of worker", name)
        return known


def _told(known: Worker, told: Mapping[str, Any]) -> Worker:
    """`known` with what it announced. Raises ValueError or TypeError for what no worker says."""

    def word(key: str) -> str | None:
        said = told.get(key)
        if said is not None and not isinstance(said, str):
            raise TypeError(f"{key} is no word")
        return said

    up, work, rates = told.get("up"), told.get("work"), told.get("rates")
    faults, since_done = told.get("faults", {}), told.get("since_done", {})
    return replace(
        known,
        threads=int(told.get("slots", known.threads)),
        up_seconds=None if up is None else float(up),
        version=word("version"),
        work=None if work is None else tuple(_work(*one) for one in work),
        rates=None if rates is None else {key: float(rate) for key, rate in rates.items()},
        since_done={
            key: float(seconds) + known.seen_seconds for key, seconds in since_done.items()
        },
        troubles=tuple(
            Trouble(float(seconds) + known.seen_seconds, str(line))
            for seconds, line in told.get("troubles", ())
        ),
        throttle=word("throttle"),
        throttles=tuple(map(str, told.get("throttles", ()))),
        key_fault=word("key_fault"),
        queue=word("queue"),
        takes=bool(told.get("takes", True)),
        faults={str(name): str(reason) for name, reason in faults.items()},
        state=word("state"),
        reason=word("reason"),
        guests=int(told.get("guests", 0)),
    )


def _work(collection: object, texts: int, waiting: object) -> Work:
    return Work(str(collection), int(texts), bool(waiting))


def _now(client: Redis, prefix: str) -> float:
    seconds, micros = time_of(client, CommonKeys(prefix).workers)
    return float(seconds) + float(micros) / 1e6
