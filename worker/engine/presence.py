"""The presence of a worker process in the fleet: what it announces about itself."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from vector_embed_client import __version__

from ..monitor.fleet import Trouble, Work, Worker, announce_worker, forget_worker
from ..monitor.service import best
from ..settings.keyfile import each_key, fault
from ..store.connection import Redis
from ..throttle import announce_throttles, read_throttles
from .admission import throttle_names
from .fitness import Condition
from .intake import Intake
from .process import Process

KEPT_TROUBLES = 5


class Presence:
    """What the worker process tells the fleet once a second.

    `threads`: how many slices it works on at once. `sees_work`: not if its slices run in child
    processes (prefork). `queue`: where its wake-ups come from; `intake`: what takes them.
    """

    def __init__(
        self, process: Process, threads: int, *, sees_work: bool, queue: str, intake: Intake
    ) -> None:
        self.troubles = Troubles()
        self._process = process
        self._settings = process.settings
        self._threads = threads
        self._sees_work = sees_work
        self._queue = queue
        self._intake = intake
        self._condition = Condition()
        self._best: str | None = None  # key, when it last looked
        self._since = time.monotonic()

    def steps(
        self, client: Redis, work: Sequence[Work]
    ) -> Iterator[tuple[str, Callable[[], object]]]:
        """The steps of one announcement, each with what it does."""
        prefix, settings = self._settings.prefix, self._settings
        yield "look at the keys' throttles", partial(self._look, client)
        addresses = [key.base_url for key in each_key(settings)]
        endpoints = dict(zip(throttle_names(settings), addresses))
        yield "announce the throttles", partial(announce_throttles, client, prefix, endpoints)
        if not self._process.stopping.is_set():
            yield "announce the worker", partial(self._announce, client, work)

    def leave(self, client: Redis) -> None:
        """Tell the fleet that it has ended."""
        forget_worker(client, self._settings.prefix, self._worker(()))

    def _look(self, client: Redis) -> None:
        """Decide whether this process can work, and so takes wake-ups."""
        names = throttle_names(self._settings)
        keys = list(read_throttles(client, self._settings.prefix, names).values())
        self._best = best(keys).name
        self._condition = self._process.fitness.look(keys, time.monotonic())
        self._intake.set(self._condition.takes)

    def _announce(self, client: Redis, work: Sequence[Work]) -> None:
        announce_worker(client, self._settings.prefix, self._worker(work))

    def _worker(self, work: Sequence[Work]) -> Worker:
        now, condition = time.monotonic(), self._condition
        names = throttle_names(self._settings)
        return Worker(
            self._process.name,
            self._threads,
            up_seconds=round(now - self._since, 1),
            version=__version__,
            work=work if self._sees_work else None,
            rates=self._process.done.rates(now) if self._sees_work else None,
            since_done=self._process.done.since_done(now),
            troubles=self.troubles.read(),
            throttle=self._best if self._best in names else names[0],
            throttles=names,
            key_fault=fault(self._settings),
            queue=self._queue,
            takes=condition.takes and self._queue == self._settings.queue,
            faults=condition.faults,
            state=condition.state,
            reason=condition.reason,
            guests=sum(one.guests for one in self._process.slices()),
        )


class Troubles(logging.Handler):
    """The last warnings and errors that this process logged. No text of a corpus is in them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: deque[tuple[float, str]] = deque(maxlen=KEPT_TROUBLES)

    def emit(self, record: logging.LogRecord) -> None:
        self._last.append((time.monotonic(), record.getMessage()[:300]))

    def read(self) -> list[Trouble]:
        """With their age, the oldest first."""
        now = time.monotonic()
        return [Trouble(round(now - at, 1), said) for at, said in list(self._last)]
