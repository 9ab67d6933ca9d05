"""Evidence: how surely a text is at fault, counted from the requests with it and without it.

The other explanation is always that requests fail at random. If they fail at a rate `r`, then `n`
requests with the text all fail, and `s` requests without it all pass, with a probability of
r^n (1-r)^s. At no rate is that more than (n/(n+s))^n (s/(n+s))^s: its logarithm is the evidence, in
bits. One pass is not counted: as often as a text is tried again, it passes with 1-r, and is free.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence, Set
from contextlib import suppress
from typing import NamedTuple, Optional

# An innocent text is condemned once in 2**ENOUGH cases: less than one in a million at any rate.
ENOUGH = 20.9
COUNTED = ENOUGH / 5  # bits of one attempt that is counted in Redis
RECENT = 100  # requests
ROOM_REQUESTS = 1000  # after so many it is tried again whether larger ones pass


Kind = tuple[Optional[int], str]  # status and code of a refusal


class Request(NamedTuple):
    """What was sent, and whether it passed."""

    texts: frozenset[str]
    passed: bool
    refused: bool  # the texts, rather than failed


class Tally(NamedTuple):
    """Requests that failed with a text, and passed without it."""

    failed: int
    passed: int

    @property
    def bits(self) -> float:
        """The evidence against the text."""
        n, s = self.failed, self.passed - 1
        if n < 1 or s < 1:
            return 0.0
        return n * math.log2((n + s) / n) + s * math.log2((n + s) / s)


class Evidence:
    """The requests of one trial, in their order."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._innocent: set[str] = set()
        self._has_failures = False

    def add(self, texts: Sequence[str], *, passed: bool, refused: bool = False) -> None:
        """One request more."""
        if not passed:
            self._has_failures = True
        elif self._has_failures:
            self._innocent.update(texts)
        kept = frozenset() if passed else frozenset(texts)
        self._requests.append(Request(kept, passed, refused))

    def clear(self, text: str) -> None:
        """`text` is innocent, whatever became of it."""
        self._innocent.add(text)

    @property
    def last_passed(self) -> bool:
        """Whether the last request passed."""
        return self._requests[-1].passed

    def against(self, text: str, suspects: Set[str], *, refused: bool = False) -> Tally:
        """What counts against `text`: all since a request of innocent texts last failed.

        `refused`: count refusals alone, or other failures alone: neither says anything of the
        other. Only a pass after a failure shows that the API was well: so the failures are those
        before the last pass, and the passes those after the first failure.
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
        return Tally(failed, passed)

    @property
    def is_contradictory(self) -> bool:
        """Whether a request was refused of which each text has passed: at random, it seems."""
        return any(one.refused and one.texts <= self._innocent for one in self._requests)


class FirstAnswer(NamedTuple):
    """The dimensions of one answer, until the answer to other texts confirms them."""

    dimensions: int
    texts: list[str]


class Experience:
    """What the requests of all trials of this process have shown about one API and model."""

    def __init__(self) -> None:
        self.passes = 0  # ever
        self.first: FirstAnswer | None = None
        self.dimensions: int | None = None  # where two requests agreed on them
        self.room: int | None = None  # bytes of texts in a request; None: what the API promises
        self.known: set[Kind] = set()  # refusals that condemned a text
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._lock = threading.Lock()

    def add(self, *, passed: bool) -> None:
        """One request more passed, or failed."""
        with self._lock:
            self._recent.append(passed)
            self.passes += passed
            if passed and self.passes % ROOM_REQUESTS == 0:
                self.room = None

    def condemned(self, failures: int, kind: Kind) -> None:
        """So many of the failures were one text's."""
        with self._lock:
            self.known.add(kind)
            for _ in range(failures):
                with suppress(ValueError):
                    self._recent.remove(False)

    def forget_refusals(self) -> None:
        """The API refuses what it took, or takes what it refused."""
        with self._lock:
            self.known.clear()
            self.room = None

    def chance_of(self, failures: int, own: int) -> float | None:
        """The probability of so many failures in a row if no text is at fault; None while nothing
        has passed. `own`: failures of the trial in question, which do not count.
        """
        with self._lock:
            total, passed = len(self._recent), sum(self._recent)
        if not passed:
            return None
        share = passed / max(passed, total - own)
        return float((1 - share) ** failures)
