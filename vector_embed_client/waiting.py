"""The waits between attempts, in one place, so that a test can leave them out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_skipped: list[float] | None = None


@contextlib.contextmanager
def no_waiting() -> Iterator[list[float]]:
    """For tests: inside the block no client waits before it tries again, in any thread.

    Yields a growing list of the waits that were left out, in seconds. They count towards a
    `deadline`, so a call ends as in production, only sooner.
    """
    global _skipped
    before, _skipped = _skipped, []
    try:
        yield _skipped
    finally:
        _skipped = before


def sleep(seconds: float) -> None:
    """Wait, unless inside `no_waiting()`."""
    if not _left_out(seconds):
        time.sleep(seconds)


async def sleep_async(seconds: float) -> None:
    """Wait without blocking the event loop, unless inside `no_waiting()`."""
    import asyncio

    await asyncio.sleep(0 if _left_out(seconds) else seconds)


def _left_out(seconds: float) -> bool:
    if _skipped is None:
        return False
    _skipped.append(seconds)
    return True
