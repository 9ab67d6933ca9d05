"""The waiter: lets an asyncio loop wait for Redis in a thread, so that the loop never blocks.

All calls of a process share a few threads. So a thousand at once need no more connections than
these threads have, and a Redis that was away is found again as it is without asyncio.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

T = TypeVar("T")

THREADS = 4


async def in_thread(call: Callable[[], T]) -> T:
    """The result of a blocking `call`. If it is cancelled, the call still runs to its end."""
    return await asyncio.get_running_loop().run_in_executor(_pool(os.getpid()), call)


@cache
def _pool(pid: int) -> ThreadPoolExecutor:
    # A forked child has none of its parent's threads: the pid is part of the key.
    return ThreadPoolExecutor(THREADS, thread_name_prefix="vec-redis")
