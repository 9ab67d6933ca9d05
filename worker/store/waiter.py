"""The waiter: looks at Redis again and again, until what it waits for is there.

An asyncio loop lets a thread look, so that the loop never blocks. All looks of a process share a
few threads. So a thousand at once need no more connections than these threads have, and a Redis
that was away is found again as it is without asyncio.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")

THREADS = 4
LEAST_SECONDS, MOST_SECONDS = 0.02, 1.0  # between two looks
_SHARE = 0.1  # of the time since the first look


def wait_until(look: Callable[[], T], is_over: Callable[[T], bool], timeout: float | None) -> T:
    """What the last look saw: what `is_over`, or what there is when `timeout` seconds are over.

    The longer it takes, the longer are the pauses between two looks: a tenth of the time so far, a
    second at most. So a thousand who wait cost Redis a thousand looks a second, after ten seconds.
    """
    pauses = _pauses(time.monotonic(), timeout)
    while True:
        seen = look()
        pause = None if is_over(seen) else next(pauses, None)
        if pause is None:
            return seen
        time.sleep(pause)


async def await_until(
    look: Callable[[], T], is_over: Callable[[T], bool], timeout: float | None
) -> T:
    """`wait_until` for asyncio."""
    pauses = _pauses(time.monotonic(), timeout)
    while True:
        seen = await in_thread(look)
        pause = None if is_over(seen) else next(pauses, None)
        if pause is None:
            return seen
        await asyncio.sleep(pause)


def _pauses(begun: float, timeout: float | None) -> Iterator[float]:
    """The seconds between two looks, until the time is over; the last look comes at its end."""
    while timeout is None or time.monotonic() - begun < timeout:
        so_far = time.monotonic() - begun
        pause = max(LEAST_SECONDS, min(_SHARE * so_far, MOST_SECONDS))
        yield pause if timeout is None else max(0.0, min(pause, timeout - so_far))


async def in_thread(call: Callable[[], T], kind: str = "") -> T:
    """The result of a blocking `call`. If it is cancelled, the call still runs to its end.

    `kind`: of calls that may last for hours, so that no others wait for their threads.
    """
    return await asyncio.get_running_loop().run_in_executor(_pool(os.getpid(), kind), call)


@cache
def _pool(pid: int, kind: str) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads: the pid is part of the key.
    return ThreadPoolExecutor(THREADS, thread_name_prefix=f"vec-redis{kind and '-'}{kind}")
