"""The linger: the short wait for a small backlog to grow.

So a hundred producers of one text each need only one or two requests. The wait ends when the
backlog fills a batch, or has not grown for `quiet` seconds: a lone text waits for that time. A
backlog that continues to grow is waited for at most twenty times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST = 20  # times `quiet`
LOOKS = 3  # at the backlog during `quiet`


def linger(
    pending: Callable[[], int],
    batch: int,
    quiet: float,
    wait: Callable[[float], bool],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait while `pending()` grows and is less than a `batch`.

    `wait` takes seconds and returns whether to stop waiting.
    """
    begun = grown = clock()
    most = 0
    while True:
        texts = pending()
        now = clock()
        if texts > most:
            most, grown = texts, now
        left = min(grown + quiet, begun + LONGEST * quiet) - now
        if not 0 < texts < batch or left <= 0 or wait(min(quiet / LOOKS, left)):
            return
