"""The API keys of a fleet in lines: each by the name of its throttle, with its state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..monitor import pace
from ..monitor.figures import plain
from ..monitor.obstacle import CommandLine
from ..types import Status, ThrottleStatus
from .folding import folded


def each_line(keys: Sequence[ThrottleStatus], fault: str | None) -> Iterator[str]:
    """A line for each of several keys; and one for what is wrong with the file of them."""
    if len(keys) > 1:
        for key in keys:
            yield from folded(pace.of_key(key))
    if fault is not None:
        yield from folded(f"{plain(fault)}: the API keys that were read before stay in use")


def short_line(status: Status, command: CommandLine) -> Iterator[str]:
    """All keys in a line, where there are several; and what is wrong with their file."""
    if len(status.keys) > 1:
        yield f"{pace.together(status.keys)}; see {command('workers')}"
    yield from each_line((), status.key_fault)
