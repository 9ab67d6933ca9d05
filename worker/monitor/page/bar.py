"""The ledger as a bar: parts whose widths add up to the whole. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

WIDTH = 1000  # of a bar, in its own units
LEAST = 6  # of a part that is not empty: it has to be seen
PARTS = ("embedded", "evicted", "dead", "leased", "pending")  # from the left


class Counts(Protocol):
    """The figures of a collection, or of several as one."""

    @property
    def enqueued(self) -> int: ...
    @property
    def embedded(self) -> int: ...
    @property
    def evicted(self) -> int: ...
    @property
    def dead(self) -> int: ...
    @property
    def leased(self) -> int: ...
    @property
    def pending(self) -> int: ...


class Part(NamedTuple):
    """A part of the bar: what it counts, how many, where it begins and how wide it is."""

    name: str
    number: int
    start: int
    width: int


def bar(counts: Counts) -> list[Part]:
    """The parts of a ledger. Their widths add up to WIDTH; without a text all are 0."""
    numbers = [getattr(counts, name) for name in PARTS]
    widths = shares(numbers, WIDTH, LEAST)
    starts = [sum(widths[:place]) for place in range(len(widths))]
    return [Part(*part) for part in zip(PARTS, numbers, starts, widths)]


def shares(numbers: Sequence[int], whole: int, least: int) -> list[int]:
    """Split `whole` in proportion to the numbers, with at least `least` for each that is not 0."""
    total = sum(numbers)
    if not total:
        return [0] * len(numbers)
    widths = [max(least, number * whole // total) if number else 0 for number in numbers]
    widths[widths.index(max(widths))] += whole - sum(widths)  # the widest one hides it best
    return widths


def percent(done: int, whole: int) -> str:
    """`0 %`, `99 %`, `100 %`: never 100 before all is done, nor 0 once something is."""
    if not whole:
        return "0 %"
    if 0 < done * 100 < whole:
        return "<1 %"
    return f"{done * 100 // whole} %"
