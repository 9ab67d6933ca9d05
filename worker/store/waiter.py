"""The waiter: looks at Redis again and again, until what it waits for is there.

An asyncio loop lets a thread look, so that the loop never blocks. All looks of a process share a
few threads. So a thousand at once need no more connections than these threads have, and a Redis
that was away is found again as it is without asyncio.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import redis

from ..logs import ONCE, logger
from .faults import passes

T = TypeVar("T")

THREADS = 4
LEAST_SECONDS, MOST_SECONDS = 0.02, 1.0  # between two looks
AWAY_SECONDS = 60.0  # for which a wait without a timeout waits for Redis
_SHARE = 0.1  # of the time since the first look


def wait_until(look: Callable[[], T], is_over: Callable[[T], bool], timeout: float | None) -> T:
    """What the last look saw: what `is_over`, or what there is when `timeout` seconds are over.

    The longer it takes, the longer are the pauses between two looks: a tenth of the time so far, a
    second at most. So a thousand who wait cost Redis a thousand looks a second, after ten seconds.

    A Redis that goes away is waited for as long as there is time; without a timeout, for a minute,
    if it has answered before. Then its error is raised.
    """
    patience = Patience(timeout)
    while True:
        try:
            seen = look()
            pause = None if is_over(seen) else patience.pause()
            if pause is None:
                return seen
        except redis.RedisError as error:
            pause = patience.failed(error)
        time.sleep(pause)


async def await_until(
    look: Callable[[], T], is_over: Callable[[T], bool], timeout: float | None
) -> T:
    """`wait_until` for asyncio."""
    patience = Patience(timeout)
    while True:
        try:
            seen = await in_thread(look)
            pause = None if is_over(seen) else patience.pause()
            if pause is None:
                return seen
        except redis.RedisError as error:
            pause = patience.failed(error)
        await asyncio.sleep(pause)


class Patience:
    """When the looks of one wait come; the last one comes when its time is over."""

    def __init__(self, timeout: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._begun = clock()
        self._answered: float | None = None  # when Redis last did

    def pause(self) -> float | None:
        """Seconds until the next look, after one that Redis has answered; None if there is none."""
        self._answered = self._clock()
        return self._pause()

    def failed(self, error: redis.RedisError) -> float:
        """Seconds until the next look, after one that Redis has not answered. Raises the error."""
        pause, now = self._pause(), self._clock()
        is_refused = isinstance(error, redis.AuthenticationError)
        away = math.inf if self._answered is None else now - self._answered
        is_over = self._timeout is None and away >= AWAY_SECONDS
        if pause is None or is_over or is_refused or not passes(error):
            raise error
        logger.warning("Redis does not answer (%s): asking again", error, extra=ONCE)
        return pause

    def _pause(self) -> float | None:
        so_far = self._clock() - self._begun
        left = math.inf if self._timeout is None else self._timeout - so_far
        if left <= 0:
            return None
        return min(max(LEAST_SECONDS, min(_SHARE * so_far, MOST_SECONDS)), left)


async def in_thread(call: Callable[[], T], kind: str = "") -> T:
    """The result of a blocking `call`. If it is cancelled, the call still runs to its end.

    `kind`: of calls that may last for hours, so that no others wait for their threads.
    """
    return await asyncio.get_running_loop().run_in_executor(_pool(os.getpid(), kind), call)


@cache
def _pool(pid: int, kind: str) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads: the pid is part of the key.
    return ThreadPoolExecutor(THREADS, thread_name_prefix=f"vec-redis{kind and '-'}{kind}")
