"""Calls: small enqueues of one process, and which of them go into Redis together.

A call waits in its caller's thread, or in an asyncio loop. It is told twice at most: that its
caller shall lead (see lane.py), and that its outcome is there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple, Union

import redis

from ..store.backlog import CHUNK_SIZE
from ..store.calls import Full, Jobs, Kind, Refused, Run
from ..store.connection import Redis
from ..types import Added
from .wakeups import Wakeups

CHUNK_CHARACTERS = 1_000_000  # of its texts: a thousand long ones took 60 MB more

Outcome = Union[Added, Full, Refused]


class ThreadWaiter:
    """A caller that waits in its thread."""

    can_lead = True

    def __init__(self) -> None:
        self._signal: SimpleQueue[None] = SimpleQueue()

    def tell(self) -> None:
        """Wake the caller."""
        self._signal.put(None)

    def wait(self, seconds: float | None) -> bool:
        """Wait to be told; False if it took longer."""
        with suppress(Empty):
            self._signal.get(timeout=seconds)
            return True
        return False


class LoopWaiter:
    """A caller that waits in an asyncio loop. To be made in the loop."""

    can_lead = False

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._told: asyncio.Future[bool] = self.loop.create_future()

    def settle(self, told: bool = True) -> None:
        """Wake the caller; in the loop."""
        if not self._told.done():
            self._told.set_result(told)

    async def wait(self, seconds: float | None) -> bool:
        """Wait to be told; False if it took longer."""
        timer = None if seconds is None else self.loop.call_later(seconds, self.settle, False)
        try:
            return await self._told
        finally:
            if timer is not None:
                timer.cancel()


@dataclass(eq=False)
class Call:
    """The jobs of one call on their way.

    `deadline`: of Redis' answer, on the monotonic clock; None without a timeout.
    """

    kind: Kind
    jobs: Jobs
    client: Redis
    pool: redis.ConnectionPool
    deadline: float | None
    waiter: ThreadWaiter | LoopWaiter
    outcome: Outcome | None = None
    group: Group | None = None  # that it goes with
    leads: bool = False  # its caller leads

    @property
    def left(self) -> float | None:
        """Seconds until its deadline; None if it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def tell(calls: Iterable[Call]) -> None:
    """Wake the callers of calls; each loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[LoopWaiter]] = {}
    for call in calls:
        if isinstance(call.waiter, LoopWaiter):
            loops.setdefault(call.waiter.loop, []).append(call.waiter)
        else:
            call.waiter.tell()
    for loop, waiters in loops.items():
        with suppress(RuntimeError):  # the loop was closed: its callers wait no longer
            loop.call_soon_threadsafe(_settle, waiters)


def _settle(waiters: Iterable[LoopWaiter]) -> None:
    for waiter in waiters:
        waiter.settle()


class Track(NamedTuple):
    """What a process keeps of a kind between two groups."""

    run: Run
    wakeups: Wakeups


class Group:
    """Calls of one kind that go into Redis in one step.

    `sent`: Redis may have got the step; from then on the same calls belong to it until its reply.
    """

    def __init__(self, call: Call) -> None:
        self.kind = call.kind
        self.client = call.client
        self.calls: list[Call] = []
        self.sent = 0  # how often
        self.fault: redis.RedisError | None = None  # of the last attempt
        self.added: Sequence[Added] = ()  # what became of each call, once it is known
        self.began = False  # the collection, which is to be announced before anyone is told
        self.track: Track | None = None
        self._ids: set[str] = set()

    def takes(self, call: Call) -> bool:
        """Take a call, unless an id of it is there: of two calls the later one must win."""
        if not self._ids.isdisjoint(call.jobs.by_id):
            return False
        self._ids.update(call.jobs.by_id)
        self.calls.append(call)
        return True

    @property
    def open(self) -> list[Call]:
        """Its calls without an outcome."""
        return [call for call in self.calls if call.outcome is None]

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do for it."""
        return not self.began and not self.open


def board(
    waiting: deque[Call], most: int = CHUNK_SIZE, room: int = CHUNK_CHARACTERS
) -> list[Group]:
    """Take the calls that go next, in the order in which they came; a group for each kind.

    `most`: jobs of all groups; `room`: characters of their texts. The first call is always taken. A
    call that cannot go with its group stays, and so does each later one of its kind.
    """
    groups: dict[Kind, Group] = {}
    staying: list[Call] = []
    late: set[Kind] = set()
    while waiting and most > 0 and room > 0:
        call = waiting.popleft()
        group = groups.get(call.kind) or groups.setdefault(call.kind, Group(call))
        fits = len(call.jobs.by_id) <= most and call.jobs.size <= room
        if call.kind not in late and (fits or not group.calls) and group.takes(call):
            call.group = group
            most -= len(call.jobs.by_id)
            room -= call.jobs.size
        else:
            staying.append(call)
            late.add(call.kind)
    waiting.extendleft(reversed(staying))
    return [group for group in groups.values() if group.calls]
