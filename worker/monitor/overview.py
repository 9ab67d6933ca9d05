"""The overview: what a person is shown of thousands of collections. Pure functions.

Their sums, and those that need a look first: what stands still before what moves, and what has
work left before what has none.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..types import Status

STATES = ("halted", "waiting", "paused", "running", "idle")  # the one to look at first, first
FIGURES = ("enqueued", "embedded", "evicted", "dead", "pending", "leased")


class Sums(NamedTuple):
    """Some collections as one. The figures balance as those of each do."""

    collections: int
    states: Mapping[str, int]  # how many are in each state, in the order of STATES
    enqueued: int
    embedded: int
    evicted: int
    dead: int
    pending: int
    leased: int
    rate: float  # recent texts/s, as far as workers tell

    @property
    def backlog(self) -> int:
        """Texts still to be done: pending and leased."""
        return self.pending + self.leased


class Overview(NamedTuple):
    """The sums of all collections, and some of them, the one to look at first, first."""

    sums: Sums
    first: Sequence[Status]


def overview(statuses: Iterable[Status], most: int) -> Overview:
    """Sum them, and choose at most `most` to show. No more than that are kept in memory."""
    states: Counter[str] = Counter()
    figures: Counter[str] = Counter()
    rate = 0.0

    def summed() -> Iterator[Status]:
        nonlocal rate
        for status in statuses:
            states[status.state] += 1
            for name in FIGURES:
                if number := getattr(status, name):
                    figures[name] += number
            rate += status.rate or 0.0
            yield status

    first = heapq.nsmallest(max(1, most), summed(), key=_place)[:most]  # of 0 it reads none
    ordered = {state: states[state] for state in STATES if states[state]}
    counts = {name: figures[name] for name in FIGURES}
    return Overview(Sums(sum(states.values()), ordered, rate=rate, **counts), first)


def is_active(status: Status) -> bool:
    """Whether there is work left, or was a moment ago."""
    return status.backlog > 0 or bool(status.rate)


def _place(status: Status) -> tuple[bool, int, bool, int, bool, str]:
    """Where a collection stands among those to look at: the smallest first."""
    return (
        not status.backlog,
        STATES.index(status.state),
        not status.rate,
        -status.backlog,
        not status.dead,
        status.collection,
    )
