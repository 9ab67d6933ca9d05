"""Shows the progress of a collection until it is done. The workers do not need this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TypeVar

import redis

from ..collection import Collection
from ..export.files import export
from ..monitor import figures
from ..monitor.obstacle import Obstacle, Scene, obstacle
from ..monitor.scene import read_scene
from ..settings import Settings
from ..store.connection import connect
from ..store.faults import insist, passes
from ..store.keys import CollectionKeys
from ..store.reader import Reader
from ..types import STALL_SECONDS, Status, Stored
from . import board, report
from .command import Failure, Target
from .screen import Bar, Screen

T = TypeVar("T")

POLL_SECONDS = 0.2
TELL_SECONDS = 60.0  # between two lines where there is no bar
GRACE_SECONDS = 0.5  # for a worker that is just being started
LOOK_SECONDS = 5.0  # between two such looks


def follow(
    collection: Collection,
    settings: Settings,
    work: int,
    target: Target,
    screen: Screen,
    end: float | None = None,
    intact: Callable[[], bool] = lambda: True,
) -> Status:
    """Wait until nothing is left to do, the collection is halted, or `end` (monotonic) has come.

    `work` is the number of texts to be done. Ends too if `intact()` is false: Redis has lost some.
    Without a bar, one line says that it begins, and one a minute how far it is. Waits for a Redis
    that is away, up to `end`; a local Redis does not come back.
    """
    done = 0
    lookout = _Lookout(collection, settings, local=target.local)
    told: float | None = None
    look_end = 0.0 if target.local else end
    try:
        with screen.bar(collection.name, work) as bar:
            while True:
                status = _patiently(collection, collection.status, look_end, screen)
                if not _patiently(collection, intact, look_end, screen):
                    return status
                now = time.monotonic()
                work = max(work, status.backlog)
                if not screen.live and work and (told is None or now - told >= TELL_SECONDS):
                    begun = f"{collection.name}: waiting for {figures.count(work, 'text')}"
                    screen.say(begun if told is None else board.news(status))
                    told = now
                if not status.backlog or status.state == "halted" or end is not None and now >= end:
                    return status
                done = work - status.backlog
                found = lookout.look(status, now)
                if found is not None:
                    screen.tell(found.kind, f"{collection.name}: {found.line}")
                note = "" if found is None else found.line
                bar.update(done, work, shown=f"{done:,}/{work:,}", note=note)
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        look = target.command("status", collection.name)
        same = "The same command again continues from there"
        after = f"{same if target.local else 'The work continues'}; to look at it: {look}"
        screen.say(f"Stopped: {done:,} of {figures.count(work, 'text')} done. {after}")
        raise


def tell_unfinished(
    collection: Collection, settings: Settings, status: Status, target: Target, screen: Screen
) -> None:
    """Say why a wait ended before the work was done."""
    if status.state == "halted":
        screen.say(report.stopped(status, target.command("resume", collection.name)))
        return
    found = None
    with suppress(redis.RedisError):
        found = obstacle(read_scene(status, settings, local=target.local))
    screen.say(report.unfinished(status, found))


class _Lookout:
    """Looks for what blocks a collection: at its status, and at more if nothing moves."""

    def __init__(self, collection: Collection, settings: Settings, *, local: bool) -> None:
        self._collection = collection
        self._settings = settings
        self._local = local
        self._done = -1
        self._moved = self._attended = time.monotonic()
        self._looked = 0.0
        self._found: Obstacle | None = None

    def look(self, status: Status, now: float) -> Obstacle | None:
        """What blocks the collection, as far as is known."""
        if board.done(status) != self._done:
            self._done, self._moved, self._looked, self._found = board.done(status), now, 0.0, None
        self._attended = now if status.workers else self._attended
        if not status.workers and now - self._attended < GRACE_SECONDS:
            return None
        if not status.workers or now - self._moved >= STALL_SECONDS:
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                with suppress(redis.RedisError):  # the caller says that it does not answer
                    scene = read_scene(status, self._settings, local=self._local)
                    self._found = obstacle(scene)
            return self._found
        return obstacle(Scene(status, local=self._local))


def _patiently(
    collection: Collection, look: Callable[[], T], end: float | None, screen: Screen
) -> T:
    """Look at a Redis that may be away. Exits with 1 if it still is at `end` (monotonic)."""

    def pauses() -> Iterator[float]:
        while end is None or time.monotonic() < end:
            yield 1.0

    def failed(error: Exception) -> None:
        screen.warn("redis", f"{collection.name}: Redis does not answer ({error}), trying again")

    try:
        return insist(look, pauses(), failed)
    except redis.RedisError as error:
        if not end or not passes(error):
            raise
        screen.say(f"{collection.name}: not done in time: Redis does not answer ({error})")
        raise SystemExit(1) from None


def write_vectors(name: str, settings: Settings, output: str, screen: Screen) -> int:
    """Export a collection, with a bar; returns how many vectors there were."""
    if output == "-" and sys.stdout is None:
        raise Failure("standard output is closed: name a file with -o")
    reader = Reader(connect(settings), CollectionKeys(settings.prefix, name))
    total = reader.ledger().embedded

    def counted(bar: Bar) -> Iterator[Stored]:
        for number, record in enumerate(chain.from_iterable(reader.pages()), 1):
            yield record
            if number % 100 == 0:
                bar.update(number, total, shown=f"{number:,}/{total:,}")

    with screen.bar(f"{name} to {output}", total) as bar:
        return export(counted(bar), output)
