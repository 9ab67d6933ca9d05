"""The history: what was read since this process started, at most a day of it, in memory.

A sample is kept for every STEP_SECONDS, so there are never more than MOST. A gap while Redis did
not answer stays a gap.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .snapshot import Snapshot

STEP_SECONDS = 15.0  # between two samples that are kept
DAY_SECONDS = 86_400.0
MOST = int(DAY_SECONDS / STEP_SECONDS)
GAP_SECONDS = 60.0  # between two samples: nothing was read meanwhile
_CODES = 20  # of errors that are told apart in a sample


class Sample(NamedTuple):
    """What there was at one moment. Time is Unix seconds."""

    at: float
    rate: float  # texts/s, of the last minute
    backlog: int
    outcomes: Mapping[str, int]  # of all requests so far


class History:
    """The samples, the oldest first. One thread adds, any may read."""

    def __init__(self) -> None:
        self._kept: deque[Sample] = deque(maxlen=MOST)
        self.begun: float | None = None  # Unix time of the first sample
        self._last: Sample | None = None  # may be nearer to the one before than STEP_SECONDS

    def add(self, snapshot: Snapshot) -> None:
        """Add what was read."""
        sums = snapshot.sums
        self.begun = snapshot.at if self.begun is None else self.begun
        outcomes = dict(Counter(snapshot.outcomes).most_common(_CODES))
        self._last = Sample(snapshot.at, sums.rate, sums.backlog, outcomes)
        # A clock that was set back starts again: times have to grow.
        while self._kept and self._kept[-1].at > snapshot.at:
            self._kept.pop()
        if not self._kept or snapshot.at - self._kept[-1].at >= STEP_SECONDS:
            self._kept.append(self._last)

    def since(self, at: float) -> Sequence[Sample]:
        """The samples from that time on, with the latest."""
        last = self._last
        kept = [one for one in tuple(self._kept) if one.at >= at]
        return kept if last is None or kept and kept[-1] is last else [*kept, last]
