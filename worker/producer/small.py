"""Small enqueues: a few texts, in one step together with those of other callers.

`enqueue_few` and its twin for asyncio differ by `await` alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from functools import cache
from typing import cast
from weakref import WeakKeyDictionary

import redis

from ..logs import logger, seldom
from ..store.calls import Jobs, Kind, Refused
from ..store.connection import Redis, is_cluster, node_of
from ..store.errors import BacklogFull
from ..store.keys import CollectionKeys
from ..types import Added
from .calls import Call, LoopWaiter, Outcome, ThreadWaiter
from .lane import ANSWER_SECONDS, Lane

FEW = 100  # texts of one call at most; its texts have at most 1,000,000 characters
FULL_SECONDS = 0.5  # between two attempts while there is no room


def enqueue_few(client: Redis, kind: Kind, jobs: Jobs, timeout: float | None) -> Added:
    """Add jobs, in one step. Raises BacklogFull, RedisAway, and what `enqueue` says."""
    few = _Few(client, kind, jobs, timeout)
    while True:
        call = few.call(waiter := ThreadWaiter())
        few.lane.put(call)
        try:
            while call.outcome is None:
                if call.leads:
                    few.lane.lead(call)
                elif not waiter.wait(call.left):
                    few.lane.withdraw(call)
        finally:
            few.lane.withdraw(call)  # if it was interrupted
        added = few.added(call.outcome)
        if added is not None:
            return added
        time.sleep(few.pause)


async def aenqueue_few(client: Redis, kind: Kind, jobs: Jobs, timeout: float | None) -> Added:
    """`enqueue_few` in an asyncio loop. If it is cancelled, the texts may still be enqueued."""
    few = _Few(client, kind, jobs, timeout)
    while True:
        call = few.call(waiter := LoopWaiter())
        few.lane.put(call)
        try:
            while call.outcome is None:
                if not await waiter.wait(call.left):
                    few.lane.withdraw(call)
        finally:
            few.lane.withdraw(call)
        added = few.added(call.outcome)
        if added is not None:
            return added
        await asyncio.sleep(few.pause)


class _Few:
    """The jobs of one call, and until when it waits for room."""

    def __init__(self, client: Redis, kind: Kind, jobs: Jobs, timeout: float | None) -> None:
        self._client = client
        self._kind = kind
        self._jobs = jobs
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._pool = _pool(client, kind)
        self.lane = _lanes(os.getpid()).of(self._pool)
        self.pause = FULL_SECONDS

    def call(self, waiter: ThreadWaiter | LoopWaiter) -> Call:
        """One attempt."""
        deadline = self._deadline
        if deadline is not None:
            deadline = max(deadline, time.monotonic() + ANSWER_SECONDS)
        return Call(self._kind, self._jobs, self._client, self._pool, deadline, waiter)

    def added(self, outcome: Outcome | None) -> Added | None:
        """What an attempt came to; None if another one is to be made after a pause."""
        assert outcome is not None
        if isinstance(outcome, Added):
            return outcome
        if isinstance(outcome, Refused):
            raise outcome.error()
        name = self._kind.collection
        if self._deadline is not None and self._timeout is not None:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise BacklogFull(name, outcome.reason, self._timeout)
            self.pause = min(FULL_SECONDS, left)
        say_waits(name, outcome.reason)
        return None


def say_waits(collection: str, reason: str) -> None:
    """Say why an enqueue waits for room: at once, and seldom while there is none."""
    kind = seldom(f"room in {collection}")
    logger.warning("enqueue waits for room in %s: %s", collection, reason, extra=kind)


def _pool(client: Redis, kind: Kind) -> redis.ConnectionPool:
    """The connections to the server that has the collection."""
    if not is_cluster(client):
        return cast(redis.Redis, client).connection_pool
    jobs = CollectionKeys(kind.settings.prefix, kind.collection).jobs
    return node_of(client, jobs).connection_pool


class _Lanes:
    """The lanes of a process. One is forgotten with its connections."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: WeakKeyDictionary[redis.ConnectionPool, Lane] = WeakKeyDictionary()

    def of(self, pool: redis.ConnectionPool) -> Lane:
        with self._lock:
            lane = self._lanes.get(pool)
            if lane is None:
                lane = self._lanes[pool] = Lane()
            return lane


@cache
def _lanes(pid: int) -> _Lanes:
    # A forked child has none of its parent's threads, and a lock may be held: its own lanes.
    return _Lanes()
