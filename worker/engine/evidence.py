"""Evidence: how likely a text is at fault, from the requests with it and without it.

The other explanation is that requests fail at random. If they fail at a rate `r`, then `n` requests
with the text all fail, and `s` requests without it all pass, with a probability of r^n (1-r)^s.
Whatever the rate, that is at most (n/(n+s))^n (s/(n+s))^s. The evidence is minus the base-2
logarithm of this bound, in bits. One pass is not counted: a trial ends when the text passes.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence, Set
from contextlib import suppress
from typing import NamedTuple, Optional

# Bits that condemn a text: eleven failures with it and eleven passes without it are enough, ten are
# not. At any rate of failures, fewer than one innocent text in a million reaches them.
ENOUGH = 20.9
COUNTED = ENOUGH / 5  # bits that count as one attempt in Redis
RECENT = 100  # requests
ROOM_REQUESTS = 1000  # passed requests after which a larger one is tried again


Kind = tuple[Optional[int], str]  # status and code of a refusal


class Request(NamedTuple):
    """What was sent, and whether it passed."""

    texts: frozenset[str]
    passed: bool
    refused: bool  # if it did not pass: the texts were refused; else the request failed


class Counts(NamedTuple):
    """How many requests failed with a text, and how many passed without it."""

    failed: int
    passed: int

    @property
    def bits(self) -> float:
        """The evidence against the text, in bits."""
        n, s = self.failed, self.passed - 1
        if n < 1 or s < 1:
            return 0.0
        return n * math.log2((n + s) / n) + s * math.log2((n + s) / s)


class Evidence:
    """The requests of one trial, in the order in which they were sent."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._innocent: set[str] = set()
        self._has_failures = False

    def add(self, texts: Sequence[str], *, passed: bool, refused: bool = False) -> None:
        """Add a request."""
        if not passed:
            self._has_failures = True
        elif self._has_failures:
            self._innocent.update(texts)
        kept = frozenset() if passed else frozenset(texts)
        self._requests.append(Request(kept, passed, refused))

    def clear(self, text: str) -> None:
        """Note that `text` is innocent, whatever happened to requests with it."""
        self._innocent.add(text)

    @property
    def last_passed(self) -> bool:
        """Whether the last request passed."""
        return self._requests[-1].passed

    def against(self, text: str, suspects: Set[str], *, refused: bool = False) -> Counts:
        """Count failures with `text`, and passes without it, since innocent texts last failed.

        `refused`: count only refusals, or only other failures; one says nothing about the other.
        Only a pass after a failure shows that the API works. So the failures before the last pass
        count, and the passes after the first failure.
        """
        failed = passed = seen = 0
        others = suspects - {text}
        for request in reversed(self._requests):
            if request.passed:
                seen += 1
            elif request.refused != refused:
                continue
            elif request.texts <= self._innocent:
                break
            elif text in request.texts and not request.texts & others and seen:
                failed, passed = failed + 1, seen
        return Counts(failed, passed)

    @property
    def is_contradictory(self) -> bool:
        """Whether a request was refused although each of its texts has passed before."""
        return any(one.refused and one.texts <= self._innocent for one in self._requests)


class FirstAnswer(NamedTuple):
    """The dimensions in the first answer, which the answer to other texts must confirm."""

    dimensions: int
    texts: list[str]


class Experience:
    """What this process knows about one API and model, from the requests of all trials."""

    def __init__(self) -> None:
        self.passes = 0  # ever
        self.first: FirstAnswer | None = None
        self.dimensions: int | None = None  # once two requests agreed on them
        self.room: int | None = None  # bytes of texts in a request; None: what the API promises
        self.known: set[Kind] = set()  # refusals that condemned a text
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._lock = threading.Lock()

    def add(self, *, passed: bool) -> None:
        """Add a request."""
        with self._lock:
            self._recent.append(passed)
            self.passes += passed
            if passed and self.passes % ROOM_REQUESTS == 0:
                self.room = None

    def condemned(self, failures: int, kind: Kind) -> None:
        """Take out the failures of a text that was condemned: the API was not at fault."""
        with self._lock:
            self.known.add(kind)
            for _ in range(failures):
                with suppress(ValueError):
                    self._recent.remove(False)

    def forget_refusals(self) -> None:
        """Forget which refusals condemn: the API now refuses what it accepted, or the reverse."""
        with self._lock:
            self.known.clear()
            self.room = None

    def chance_of(self, failures: int, own: int) -> float | None:
        """The probability of this many failures in a row if no text is at fault.

        None while nothing has passed. `own`: failures of the trial itself, which do not count.
        """
        with self._lock:
            total, passed = len(self._recent), sum(self._recent)
        if not passed:
            return None
        share = passed / max(passed, total - own)
        return float((1 - share) ** failures)
