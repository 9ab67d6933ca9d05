"""What a worker is and what it does, in words. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import figures

if TYPE_CHECKING:  # it imports redis, which --help does not need
    from .fleet import Work, Worker
    from .obstacle import CommandLine


def state_of(worker: Worker) -> str:
    """`alive`, `lost`, or why a living one does nothing: `halted`, `unfit`."""
    if not worker.alive:
        return "lost"
    return "alive" if worker.state in (None, "working") else str(worker.state)


def doing(worker: Worker, queue: str, command: CommandLine) -> str:
    """What it does, or why it does nothing; empty where an older version does not say it."""
    if not worker.alive:
        return f"last seen {figures.duration(worker.seen_seconds)} ago"
    if worker.queue not in (None, queue):
        return f"takes nothing from {queue}, but from {worker.queue}: start it without -Q"
    if state_of(worker) != "alive":
        return f"{worker.reason}: fix that, then {command('resume')}, or restart it"
    if worker.work is None:
        return ""
    by_collection: dict[str, list[Work]] = defaultdict(list)
    for work in worker.work:
        by_collection[work.collection].append(work)
    return "; ".join(map(_share, by_collection, by_collection.values())) or "idle"


def _share(collection: str, work: Sequence[Work]) -> str:
    """What the threads of a worker do that work on one collection."""
    waiting = sum(one.waiting for one in work)
    texts = sum(one.texts for one in work)
    parts = [f"{figures.count(len(work), 'thread')}, {figures.count(texts, 'text')} in hand"]
    parts += [f"{waiting:,} waiting for the throttle"] if waiting else []
    return f"{collection}: {', '.join(parts)}"
