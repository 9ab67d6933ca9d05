"""A worker process: its open slices, and what they share.

The heartbeat (`heartbeat.py`) renews the slices and updates the rest, and the slices read it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Protocol

from ..monitor.fleet import Done, Work
from ..settings import Settings
from ..throttle.holds import holding
from .fitness import Fitness
from .lock import SharedLock

# A process that missed heartbeats for MISSED_SECONDS was frozen or cut off from Redis. For
# GRACE_SECONDS it takes no other process for dead, and neither does a new one: while Redis was away
# all leases ran out, and the others need a moment to renew them.
MISSED_SECONDS = 5.0
GRACE_SECONDS = 5.0
MOST_WAYS = 1000  # collections that are remembered, for which slices have ended


class OpenSlice(Protocol):
    """What a process asks of a slice while it is open."""

    consumer: str

    @property
    def unmoved_seconds(self) -> float:
        """How long nothing has moved: no request began or ended."""
        ...

    @property
    def guests(self) -> int:
        """How many texts of other collections than its own it has in hand."""
        ...

    @property
    def in_hand(self) -> Iterable[str]:
        """The collections of which it has texts in hand."""
        ...

    def renew(self) -> Work:
        """Tell Redis that it is alive; returns what it does."""
        ...

    def give_back(self) -> None:
        """Release what it holds: its leases and its request slot."""
        ...


class Process:
    """One worker process. Any thread may call anything."""

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self.settings = settings
        self.stopping = threading.Event()
        self.lock = SharedLock()
        self.fitness = Fitness()
        self.done = Done()
        self.memory_full = False  # of Redis: claims wait
        self.holds: Mapping[str, str] = {}
        self.losses = 0  # how often Redis was lost: what it knew may be gone
        self._gave_way: dict[str, bytes] = {}  # to urgent collections, and when they were announced
        self._slices: dict[str, OpenSlice] = {}
        self._owed: dict[str, OpenSlice] = {}  # closed slices that could not give back yet
        self._steady_since = self._last_beat = time.time()
        self._counter = 0
        self._mutex = threading.Lock()

    def new_consumer(self) -> str:
        """A consumer name that no slice had before."""
        with self._mutex:
            self._counter += 1
            return f"{self.name}:{self._counter}"

    def open(self, slice: OpenSlice) -> None:
        """Renew `slice` now, and at every heartbeat until it is closed."""
        with self._mutex:
            self._slices[slice.consumer] = slice
        try:
            slice.renew()
        except BaseException:
            self._forget(slice)
            raise

    def close(self, slice: OpenSlice) -> None:
        """Stop renewing `slice`, and let it give back what it holds.

        If Redis is away, the heartbeat does that as soon as Redis is back: the texts do not wait
        until the lease runs out, and do not count as having killed their owner.
        """
        with self._mutex:
            self._owed[slice.consumer] = slice
        self._forget(slice)
        self.settle(slice)

    def settle(self, slice: OpenSlice) -> bool:
        """Let a closed slice give back what it holds; True. Raises `redis.RedisError`.

        Then it is the last one in `owed`.
        """
        try:
            slice.give_back()
        except BaseException:
            with self._mutex:
                if self._owed.pop(slice.consumer, None) is not None:
                    self._owed[slice.consumer] = slice
            raise
        with self._mutex:
            self._owed.pop(slice.consumer, None)
        return True

    def slices(self) -> list[OpenSlice]:
        """The open slices."""
        with self._mutex:
            return list(self._slices.values())

    def in_hand(self) -> set[str]:
        """The collections of which open slices have texts in hand."""
        return {name for slice in self.slices() for name in slice.in_hand}

    def owed(self) -> list[OpenSlice]:
        """The closed slices that could not give back yet."""
        with self._mutex:
            return list(self._owed.values())

    def living(self) -> list[str]:
        """The consumers that may hold leases: all others of this process's name are orphans."""
        with self._mutex:
            return [*self._slices, *self._owed]

    def count(self, collection: str, texts: int) -> None:
        """Count texts of `collection` that got their outcome."""
        now = time.monotonic()
        self.fitness.worked(collection, now)
        self.done.add(collection, texts, now)

    def is_held(self, collection: str) -> bool:
        """Whether `collection` was paused by hand when the heartbeat last looked."""
        return holding(self.holds, collection) is not None

    def may_claim(self, collection: str) -> bool:
        """Whether a slice of `collection` may claim one more batch."""
        return not (self.stopping.is_set() or self.memory_full or self.is_held(collection))

    def gives_way(self, collection: str, announced: bytes) -> bool:
        """Whether a slice of another collection shall end for an urgent one.

        Once for each announcement: the text may wait for something else than a thread.
        """
        if not self.may_claim(collection):
            return False
        with self._mutex:
            if len(self._gave_way) > MOST_WAYS:
                self._gave_way.clear()
            before, self._gave_way[collection] = self._gave_way.get(collection), announced
        return before != announced

    def beat(self) -> None:
        """Note that a heartbeat has reached Redis."""
        now = time.time()
        if abs(now - self._last_beat) >= MISSED_SECONDS:
            self._steady_since = now
        self._last_beat = now

    @property
    def judges(self) -> bool:
        """Whether this process may consider a consumer without a heartbeat dead."""
        now = time.time()
        steady = abs(now - self._last_beat) < MISSED_SECONDS
        return steady and now - self._steady_since >= GRACE_SECONDS

    def _forget(self, slice: OpenSlice) -> None:
        with self._mutex:
            self._slices.pop(slice.consumer, None)
