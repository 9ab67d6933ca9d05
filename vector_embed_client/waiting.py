"""The waits between attempts, in one place, so that a test can leave them out."""

from __future__ import annotations

import contextlib
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


def to_wait(seconds: float) -> float:
    """`seconds`, or 0 inside `no_waiting()`."""
    if _skipped is None:
        return seconds
    _skipped.append(seconds)
    return 0.0
