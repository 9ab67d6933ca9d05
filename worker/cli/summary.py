"""The summary: thousands of collections on one screen. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..monitor import pace
from ..monitor.figures import count
from ..monitor.obstacle import CommandLine
from ..monitor.overview import FIGURES, Overview, Sums
from ..types import Status
from . import report

FEW = 20  # collections that are all shown, by name; of more, a screenful
_AROUND = 7  # lines of the screen that are not rows: sums, heads, what is not shown, the prompt


def sums_lines(sums: Sums) -> Iterator[str]:
    """`10,000 collections: 3 running, 9,997 idle`, and their texts."""
    states = [f"{number:,} {state}" for state, number in sums.states.items()]
    yield f"{count(sums.collections, 'collection')}: {', '.join(states)}"
    figures = [(name, getattr(sums, name)) for name in FIGURES[1:]]
    parts = [f"{number:,} {name}" for name, number in figures if number or name != "evicted"]
    speed = f"; {pace.per_second(sums.rate, 'text')}" if sums.rate else ""
    yield f"{count(sums.enqueued, 'text')}: {', '.join(parts)}{speed}"


def news_of_all(sums: Sums) -> str:
    """All collections in one line."""
    first, _ = sums_lines(sums)
    parts = [f"{sums.enqueued - sums.backlog:,} of {sums.enqueued:,} done"]
    parts += [f"{sums.dead:,} dead"] if sums.dead else []
    parts += [pace.per_second(sums.rate, "text")] if sums.rate else []
    return f"{first}; {', '.join(parts)}"


def status_summary(
    seen: Overview, command: CommandLine, stalls: Mapping[str, str], lines: int, more: str
) -> Iterator[str]:
    """The sums, and as many collections as a screen of that many lines has room for.

    `more`: the command that shows the others.
    """
    yield from sums_lines(seen.sums)
    shown = _fitting(seen.first, command, stalls, lines - _AROUND)
    if shown:
        yield ""
    yield from report.status_table(shown, command, stalls)
    if left := seen.sums.collections - len(shown):
        yield f"and {left:,} more: {more}"


def status_array(rows: Iterable[tuple[Status, str | None]]) -> Iterator[str]:
    """Statuses, and what blocks each, as one JSON array, an object a line."""
    before = "["
    for status, stall in rows:
        yield before + json.dumps(report.status_object(status, stall))
        before = ","
    yield "[]" if before == "[" else "]"


def _fitting(
    statuses: Sequence[Status], command: CommandLine, stalls: Mapping[str, str], lines: int
) -> Sequence[Status]:
    """The first of them whose rows fit into that many lines; at least one."""
    for number, status in enumerate(statuses):
        head, *row = report.status_table([status], command, stalls)
        lines -= len(row)
        if lines < 0 and number:
            return statuses[:number]
    return statuses
