"""A source: jobs into a collection's backlog, chunk after chunk, and wake-ups for the workers.

It waits while the backlog is high or Redis fills up, so its own memory and Redis' stay bounded
whatever the size of the corpus. A chunk whose reply was lost is sent again; the step counts it
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import redis

from ..settings import Settings
from ..store.adder import Adder, Chunk
from ..store.backlog import CHUNK_SIZE, Backlog
from ..store.connection import check_redis
from ..store.errors import BacklogFull
from ..store.faults import is_out_of_memory, outlast
from ..store.high_water import Load, read_load
from ..store.removal import Documents, Removal
from ..types import Added, Job, Rejection
from .calls import CHUNK_CHARACTERS
from .lane import LOOK_SECONDS
from .wakeups import look_and_wake

T = TypeVar("T")

WAKE_SECONDS = 0.5  # between two looks for wake-ups to send


class Progress(NamedTuple):
    """How far a producer is: what its texts were so far, and why it waits, if it does."""

    new: int = 0
    unchanged: int = 0
    duplicates: int = 0
    dead: int = 0
    rejected: int = 0
    waiting: str | None = None
    evicted: int = 0  # of the unchanged
    replacing: int = 0  # of the new: under an id that had another text before the run
    skipped: int = 0  # files that an earlier run had queued

    def plus(self, added: Added) -> Progress:
        """One chunk further."""
        return self._replace(
            new=self.new + added.new,
            unchanged=self.unchanged + added.unchanged,
            duplicates=self.duplicates + added.duplicates,
            dead=self.dead + added.dead,
            evicted=self.evicted + added.evicted,
            replacing=self.replacing + added.replacing,
        )


def produce(
    lines: Iterable[Job | Rejection],
    adder: Adder,
    settings: Settings,
    *,
    keep_text: bool | None = None,
    documents: bool = False,
    rejected: Callable[[Rejection], None],
    timeout: float | None = None,
) -> Iterator[Progress]:
    """Enqueue `lines`, and tell how far it is after each chunk and while it waits.

    Several of these may continue one run, that of the `adder`: an id that comes again in it is a
    duplicate. `documents`: the lines may be pieces; what else was there of their documents leaves.
    `timeout`: seconds, of each wait for room or for Redis. Raises BacklogFull.
    """
    check = partial(check_redis, adder.client)
    if timeout is None:
        check()
    else:
        outlast(check, timeout)
    yield from _Source(adder, settings, rejected, documents, timeout).enqueue(lines, keep_text)


class _Source:
    """One source of lines on its way into the backlog."""

    def __init__(
        self,
        adder: Adder,
        settings: Settings,
        rejected: Callable[[Rejection], None],
        documents: bool,
        timeout: float | None,
    ) -> None:
        self._adder = adder
        self._backlog = Backlog(adder.client, adder.keys)
        self._settings = settings
        self._rejected = rejected
        self._timeout = timeout
        self._documents: Documents | None = None
        if documents:
            removal = Removal(adder.client, adder.keys, bookmark=adder.bookmark)
            self._documents = Documents(removal, partial(outlast, seconds=timeout))
        self._progress = Progress()
        self._sent = 0.0  # when the last chunk was
        self._woken = time.monotonic()  # when the workers were

    def enqueue(
        self, lines: Iterable[Job | Rejection], keep_text: bool | None
    ) -> Iterator[Progress]:
        """Add chunk after chunk. The next one is read while Redis works on the one before."""
        jobs = self._jobs(lines)
        chunk: Chunk | None = None
        before: list[Job] = []  # those of the chunk
        try:
            while True:
                some = _next_chunk(jobs)
                following = (yield from self._chunk(some)) if some else None
                load: Load | None = None
                if chunk is not None:
                    added, load = yield from self._in_memory(chunk.reply)
                    self._progress = self._progress.plus(added)
                    if self._documents is not None:
                        self._documents.settle(before, some, self._adder.born, self._adder.seq)
                elif following is not None and keep_text is not None:
                    yield from self._in_memory(partial(self._backlog.keep_text, keep_text))
                chunk, before = following, some
                if chunk is not None:
                    yield from self._wait_for_room(load)
                    self._sent = time.monotonic()
                    chunk.send()
                self._wake(is_last=chunk is None)
                yield self._progress
                if chunk is None:
                    if self._adder.bookmark is not None and self._adder.chunks:
                        ended = yield from self._chunk([])  # for the bookmark alone
                        ended.send()
                        yield from self._in_memory(ended.reply)
                    return
        finally:
            if chunk is not None:
                chunk.close()

    def _jobs(self, lines: Iterable[Job | Rejection]) -> Iterator[Job]:
        """The jobs among the lines. The others are counted, and passed on."""
        for line in lines:
            if isinstance(line, Job):
                yield line
            else:
                self._progress = self._progress._replace(rejected=self._progress.rejected + 1)
                self._rejected(line)

    def _chunk(self, jobs: Sequence[Job]) -> Generator[Progress, None, Chunk]:
        return self._in_memory(partial(self._adder.chunk, jobs))

    def _in_memory(self, step: Callable[[], T]) -> Generator[Progress, None, T]:
        """The reply of a step, as soon as Redis has memory for it.

        Redis may have filled up since the last look. Then nothing of the step was done.
        """
        while True:
            try:
                return outlast(step, self._timeout)
            except redis.ResponseError as error:
                if not is_out_of_memory(error):
                    raise
            yield from self._wait()

    def _wait_for_room(self, load: Load | None) -> Iterator[Progress]:
        """Wait before a chunk is sent: one of long texts alone is tens of megabytes.

        `load` came with the last reply. It is used unless reading took long since.
        """
        is_old = time.monotonic() - self._sent > LOOK_SECONDS
        if load is None or is_old or load.reason(self._settings.high_water):
            yield from self._wait()

    def _wait(self) -> Iterator[Progress]:
        """Wait while too much is queued or Redis is full, and tell why every half second."""
        adder, begun, timeout = self._adder, time.monotonic(), self._timeout
        look = partial(read_load, adder.client, adder.keys, adder.priority)
        while reason := outlast(look, timeout).reason(self._settings.high_water):
            if timeout is not None and time.monotonic() - begun >= timeout:
                raise BacklogFull(adder.keys.name, reason, timeout)
            yield self._progress._replace(waiting=reason)
            look_and_wake(adder.client, adder.keys, self._settings)
            time.sleep(0.5)

    def _wake(self, *, is_last: bool) -> None:
        """Wake the workers now and then, and at the end if anything is new."""
        if self._progress.new if is_last else time.monotonic() - self._woken > WAKE_SECONDS:
            self._woken = time.monotonic()
            look_and_wake(self._adder.client, self._adder.keys, self._settings)


def _next_chunk(jobs: Iterator[Job]) -> list[Job]:
    some: list[Job] = []
    room = CHUNK_CHARACTERS
    for job in islice(jobs, CHUNK_SIZE):
        some.append(job)
        room -= len(job.text)
        if room <= 0:
            break
    return some
