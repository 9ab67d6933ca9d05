"""The series: which collections have metrics of their own. All others are summed. Pure functions.

The oldest have their own. So a new collection takes no place from another, and no series of a
metric ends or jumps, until one of these is dropped: then the oldest of the others gets its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import NamedTuple

from ..types import Ledger
from .service import Standing

_BLOCK = 500  # collections that are sorted together
OTHERS = "(others)"  # a label that no collection can have as its name
STATES = ("embedded", "evicted", "dead", "pending", "leased")


@dataclass(frozen=True)
class Measured:
    """What is exported of a collection, or of several as one."""

    collection: str
    model: str | None = None
    born: str = ""  # see Ledger
    halted: int = 0  # how many are
    paused: int = 0
    waiting: int = 0
    enqueued: int = 0
    oldest_age: float = 0.0  # of the oldest text of all
    embedded_ever: int = 0
    cached_ever: int = 0
    removed_ever: int = 0
    texts: Mapping[str, int] = field(default_factory=dict)  # by state
    dead_ever: Mapping[str, int] = field(default_factory=dict)  # by code


class Series(NamedTuple):
    """The collections that have series of their own, by name, and all others as one."""

    own: list[Measured]
    others: Measured
    summed: int  # how many the others are


def measure(name: str, ledger: Ledger, standing: Standing) -> Measured:
    """What is exported of one collection."""
    unserved = standing.state == "running" and not standing.workers
    return Measured(
        name,
        ledger.model,
        ledger.born,
        halted=int(standing.state == "halted"),
        paused=int(standing.state == "paused"),
        waiting=int(unserved and ledger.backlog > 0),
        enqueued=ledger.enqueued,
        oldest_age=ledger.oldest_age,
        embedded_ever=ledger.embedded_ever,
        cached_ever=ledger.cached_ever,
        removed_ever=ledger.removed_ever,
        texts={state: getattr(ledger, state) for state in STATES},
        dead_ever=ledger.dead_ever,
    )


def choose(every: Iterable[Measured], most: int) -> Series:
    """Give the `most` oldest collections series of their own, and sum the others.

    No more than `most` and some hundreds are kept in memory.
    """
    own: list[Measured] = []
    others, summed = _sum([]), 0
    every = iter(every)
    while block := list(islice(every, _BLOCK)):
        by_age = sorted([*own, *block], key=_age)
        own, younger = by_age[:most], by_age[most:]
        others, summed = _sum([others, *younger]), summed + len(younger)
    return Series(sorted(own, key=lambda one: one.collection), others, summed)


def _sum(several: Sequence[Measured]) -> Measured:
    """Several as one."""
    dead_ever: Counter[str] = Counter()
    for one in several:
        for code, number in one.dead_ever.items():
            dead_ever[code] += number
    return Measured(
        OTHERS,
        halted=sum(one.halted for one in several),
        paused=sum(one.paused for one in several),
        waiting=sum(one.waiting for one in several),
        enqueued=sum(one.enqueued for one in several),
        oldest_age=max((one.oldest_age for one in several), default=0.0),
        embedded_ever=sum(one.embedded_ever for one in several),
        cached_ever=sum(one.cached_ever for one in several),
        removed_ever=sum(one.removed_ever for one in several),
        texts={state: sum(one.texts.get(state, 0) for one in several) for state in STATES},
        dead_ever=dead_ever,
    )


def _age(one: Measured) -> tuple[float, float, str]:
    """Its place by age: the oldest first. What says no time of birth is the youngest."""
    seconds, _, micros = one.born.partition(".")
    is_time = seconds.isdecimal() and micros.isdecimal()
    return (float(seconds), float(micros), one.collection) if is_time else (inf, 0, one.collection)
