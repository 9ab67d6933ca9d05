"""Following a collection's work on the screen, from afar: the work itself goes on without us."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import board, figures, report
from .command import Failure, Target
from .screen import Bar, Screen

if TYPE_CHECKING:
    from ..collection import Collection, Status
    from ..record import Record

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # for a Redis that stops answering while we only look on
TELL_SECONDS = 60.0  # between two lines where there is no bar
GRACE_SECONDS = 0.5  # for a worker that is just being started


def follow(
    collection: Collection, work: int, target: Target, screen: Screen, end: float | None = None
) -> Status:
    """Watch until nothing is left to do, the queue is halted, or the monotonic clock is at `end`.
    `work`: texts to be done. Where there is no bar, a line says that it begins, and one a minute
    how far it is.
    """
    done = 0
    attended = time.monotonic()
    told: float | None = None
    patience = 0.0 if target.local else PATIENCE_SECONDS  # a local Redis does not come back
    try:
        with screen.bar(collection.name, work) as bar:
            while True:
                status = _patiently(collection, patience, screen)
                now = time.monotonic()
                work = max(work, status.backlog)
                if not screen.live and work and (told is None or now - told >= TELL_SECONDS):
                    begun = f"{collection.name}: waiting for {figures.count(work, 'text')}"
                    screen.say(begun if told is None else board.news(status))
                    told = now
                if not status.backlog or status.state == "halted" or end is not None and now >= end:
                    return status
                attended = now if status.workers else attended
                done = work - status.backlog
                kind, note = "", ""
                if now - attended >= GRACE_SECONDS or status.workers:
                    kind, note = report.note(status, local=target.local)
                if note:
                    screen.tell(kind, f"{collection.name}: {note}")
                bar.update(done, work, shown=f"{done:,}/{work:,}", note=note)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        look = target.command("status", collection.name)
        after = (
            f"The same command again goes on from there; to look at it: {look}"
            if target.local
            else f"The work goes on; to look at it: {look}"
        )
        screen.say(f"Stopped: {done:,} of {figures.count(work, 'text')} done. {after}")
        raise


def _patiently(collection: Collection, patience: float, screen: Screen) -> Status:
    """The status, from a Redis that may be away for a moment: the work goes on without us."""
    import redis

    end = time.monotonic() + patience
    while True:
        try:
            return collection.status()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            if time.monotonic() >= end:
                raise
            screen.tell("redis", f"{collection.name}: Redis does not answer ({error}), trying on")
            time.sleep(1.0)


def write_vectors(collection: Collection, output: str, screen: Screen) -> int:
    """Export a collection, with a bar; how many vectors there were."""
    from ..export import export

    if output == "-" and sys.stdout is None:
        raise Failure("standard output is closed: name a file with -o")
    total = collection.status().embedded

    def counted(bar: Bar) -> Iterator[Record]:
        for number, record in enumerate(collection, 1):
            yield record
            if number % 100 == 0:
                bar.update(number, total, shown=f"{number:,}/{total:,}")

    with screen.bar(f"{collection.name} to {output}", total) as bar:
        return export(counted(bar), output)
