"""The linger: a backlog too small to fill a batch is given a moment to grow, so that a hundred
producers of one text each come to a request or two.

It ends as soon as the backlog has not grown for `quiet` seconds, which is all that a lone text
waits, or fills a batch. One that grows on and on is waited for twenty times as long and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST = 20  # times the quiet that ends it
LOOKS = 2  # at the backlog in that time


def linger(
    pending: Callable[[], int],
    batch: int,
    quiet: float,
    wait: Callable[[float], bool],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait while `pending()` grows and is less than a `batch`. `wait` is given seconds, and answers
    whether to break off.
    """
    if not quiet:
        return
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
