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
from ..store.faults import insist, passes
from ..types import STALL_SECONDS, Status
from . import board, report
from .command import Failure, Target, reader_of
from .screen import Screen, counted

T = TypeVar("T")

POLL_SECONDS = 0.2
TELL_SECONDS = 60.0  # between two lines where there is no bar
GRACE_SECONDS = 0.5  # for a worker that is just being started
LOOK_SECONDS = 5.0  # between two such looks


class Follower:
    """Follows the work on a collection, and looks for what blocks it."""

    def __init__(
        self, collection: Collection, settings: Settings, target: Target, screen: Screen
    ) -> None:
        self._collection = collection
        self._name = collection.name
        self._settings = settings
        self._target = target
        self._screen = screen
        self._done = -1
        self._moved = self._attended = time.monotonic()
        self._looked = 0.0
        self._found: Obstacle | None = None

    def follow(
        self,
        work: int,
        end: float | None = None,
        intact: Callable[[], bool] = lambda: True,
        left: Callable[[], int] | None = None,
    ) -> Status:
        """Wait until no work is left, the collection is halted, or `end` (monotonic) has come.

        `work` is the number of texts to be done; `left`: how many of them may be left, if that is
        not the whole backlog. Ends too if `intact()` is false: Redis has lost some. Without a bar,
        one line says that it begins, and one a minute how far it is. Waits for a Redis that is
        away, up to `end`; a local Redis does not come back.
        """
        done = 0
        told: float | None = None
        look_end = 0.0 if self._target.local else end
        try:
            with self._screen.bar(self._name, work) as bar:
                while True:
                    status = self._patiently(self._collection.status, look_end)
                    if not self._patiently(intact, look_end):
                        return status
                    backlog = self._patiently(left, look_end) if left else status.backlog
                    now = time.monotonic()
                    work = max(work, backlog)
                    if not self._screen.live and work and (not told or now - told >= TELL_SECONDS):
                        begun = f"{self._name}: waiting for {figures.count(work, 'text')}"
                        self._screen.say(
                            board.news(status, self._target.command) if told else begun
                        )
                        told = now
                    is_over = not backlog or status.state == "halted"
                    if is_over or end is not None and now >= end:
                        return status
                    done = work - backlog
                    found = self._look(status, now)
                    if found is not None:
                        self._screen.tell(found.kind, f"{self._name}: {found.line}")
                    note = "" if found is None else found.line
                    bar.update(done, work, shown=f"{done:,}/{work:,}", note=note)
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            look = self._target.command("status", self._name)
            same = "The same command again continues from there"
            after = f"{same if self._target.local else 'The work continues'}; to look at it: {look}"
            self._screen.say(f"Stopped: {done:,} of {figures.count(work, 'text')} done. {after}")
            raise

    def tell_unfinished(self, status: Status, left: int | None = None) -> None:
        """Say why a wait ended before the work was done, if it did. `left`: texts; default: all."""
        left = status.backlog if left is None else left
        if not left:
            return
        if status.state == "halted":
            self._screen.say(report.stopped(status, self._target.command("resume", self._name)))
            return
        found = None
        with suppress(redis.RedisError):
            found = self._obstacle(status)
        self._screen.say(report.unfinished(self._name, left, found))

    def _look(self, status: Status, now: float) -> Obstacle | None:
        """What blocks the collection, by its status; by more than that if nothing moves."""
        if board.done(status) != self._done:
            self._done, self._moved, self._looked, self._found = board.done(status), now, 0.0, None
        self._attended = now if status.workers else self._attended
        if not status.workers and now - self._attended < GRACE_SECONDS:
            return None
        if not status.workers or now - self._moved >= STALL_SECONDS:
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                with suppress(redis.RedisError):  # the caller says that it does not answer
                    self._found = self._obstacle(status)
            return self._found
        return obstacle(Scene(status, self._target.command))

    def _obstacle(self, status: Status) -> Obstacle | None:
        return obstacle(read_scene(status, self._settings, self._target.command))

    def _patiently(self, look: Callable[[], T], end: float | None) -> T:
        """Look at a Redis that may be away. Exits with 1 if it still is at `end` (monotonic)."""

        def pauses() -> Iterator[float]:
            while end is None or time.monotonic() < end:
                yield 1.0

        def failed(error: Exception) -> None:
            line = f"{self._name}: Redis does not answer ({error}), trying again"
            self._screen.warn("redis", line)

        try:
            return insist(look, pauses(), failed)
        except redis.RedisError as error:
            if not end or not passes(error):
                raise
            self._screen.say(f"{self._name}: not done in time: Redis does not answer ({error})")
            raise SystemExit(1) from None


def write_vectors(name: str, settings: Settings, output: str, screen: Screen) -> int:
    """Export a collection, with a bar; returns how many vectors there were."""
    if output == "-" and sys.stdout is None:
        raise Failure("standard output is closed: name a file with -o")
    reader = reader_of(name, settings)
    total = reader.ledger().embedded
    with screen.bar(f"{name} to {output}", total) as bar:
        return export(chain.from_iterable(counted(reader.pages(), bar, total)), output)
