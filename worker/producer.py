"""The producer: jobs into a collection's backlog, chunk after chunk, and a wake-up for the workers.

It waits while the backlog is high or Redis fills up, so its own memory and Redis' stay bounded
whatever the size of the corpus. A chunk whose reply was lost is sent again; the step counts it
once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import redis

from vector_embed_client.http import MAX_TEXT_LENGTH

from .corpus.long import Long
from .corpus.texts import Texts, text_lines
from .engine.broker import send_wakeups, threads_worth_having
from .layout import Layout, asked
from .logs import logger
from .settings import Settings, read_settings
from .store.backlog import CHUNK_SIZE, Adder, Backlog, Chunk, Load
from .store.connection import (
    PRODUCER_MEMORY,
    Redis,
    check_redis,
    connect,
    given,
    memory_used,
)
from .store.faults import is_out_of_memory, outlast
from .store.keys import CollectionKeys
from .store.removal import Documents, Removal
from .store.waiter import in_thread
from .types import Added, Job, Rejection

T = TypeVar("T")

KEPT_REJECTIONS = 1000
CHUNK_CHARACTERS = 1_000_000  # of its texts: a thousand long ones took 60 MB more
LOOK_SECONDS = 0.5  # a look at Redis that is older is repeated
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


@dataclass(frozen=True)
class Receipt:
    """What became of the texts of one enqueue; every one is in exactly one of the counts.

    `dead`: the very text is a dead letter already and stays one. `rejections` holds the first
    1,000. `evicted` of the unchanged have their vectors no longer in Redis, but in exported files.
    `lost`: Redis lost texts of it while it ran, and all of them should be enqueued again.
    """

    collection: str
    new: int
    unchanged: int
    duplicates: int
    dead: int
    rejected: int
    rejections: tuple[Rejection, ...]
    evicted: int = 0
    lost: bool = False


# What takes the jobs in place of Redis: see `worker.testing`.
stand_in: Callable[[Iterable[Job | Rejection], str, str, Layout | None, bool], Receipt] | None = (
    None
)


def enqueue(
    texts: Texts,
    collection: str,
    *,
    model: str | None = None,
    dimensions: int | None = None,
    dtype: str | None = None,
    force: bool = False,
    keep_text: bool | None = None,
    long: str = "reject",
    split_as: str = "text",
    chunk_size: int = MAX_TEXT_LENGTH,
    overlap: int = 0,
    settings: Settings | None = None,
    connection: redis.Redis | None = None,
) -> Receipt:
    """Put texts into a collection's backlog, and wake the workers.

    Each is a string, an (id, text) pair, a Job, or a mapping with the fields `text` and `id`, such
    as a row of a table; its other fields are kept beside the vector. A DataFrame of pandas or
    polars, or an Arrow table, is taken row by row. Ids are strings or whole numbers. A text without
    an id, or with None, gets the sha256 of its UTF-8 bytes as its id. The last enqueue of an id
    wins; the same text under the same id again costs nothing. A text that can never be embedded is
    rejected: see the receipt. Waits while more than `VECTOR_EMBED_HIGH_WATER` texts are queued.

    `long`: what is done with a text of more than 10,000 characters: it is rejected, `cut`, or
    `split` into pieces of `chunk_size` characters at most, called `ID#0001`, `ID#0002` and so on.
    `split_as`: text or markdown. A piece begins with at most `overlap` characters of the one
    before. What is left of an earlier text of the id is deleted.

    `dimensions`, `dtype` (float32, float16 or int8): what a new collection stores of each vector,
    to save memory; one that exists keeps what it has. `force`: also a length that the model is not
    known for.

    `connection`: where to put them, in place of `settings.redis_url`; wake-ups still go through
    `settings.broker_url`.

    Raises CollectionError (bad name), ModelsDiffer, LayoutsDiffer, RedisUnfit, `redis.RedisError`,
    TypeError for anything else than such texts, ValueError for sizes that cannot be, and
    LayoutError for dimensions or a dtype that cannot be.
    """
    ways = Long(long, split_as, chunk_size, overlap)
    lines = ways.apply(text_lines(texts, no_pieces=ways.splits), "long='cut' or long='split'")
    settings = settings or read_settings()
    model = model or settings.model
    layout = asked(model, dimensions, dtype, force=force)
    if stand_in is not None:
        return stand_in(lines, collection, model, layout, ways.splits)
    kept: list[Rejection] = []

    def keep(rejection: Rejection) -> None:
        if len(kept) < KEPT_REJECTIONS:
            kept.append(rejection)

    keys = CollectionKeys(settings.prefix, collection)
    client = connect(settings) if connection is None else given(connection)
    adder = Adder(client, keys, model, layout=layout)
    steps = produce(
        lines, adder, settings, keep_text=keep_text, documents=ways.splits, rejected=keep
    )
    last = deque(steps, maxlen=1)[0]
    return Receipt(collection, *last[:5], tuple(kept), last.evicted, adder.lost)


async def aenqueue(
    texts: Texts,
    collection: str,
    *,
    model: str | None = None,
    dimensions: int | None = None,
    dtype: str | None = None,
    force: bool = False,
    keep_text: bool | None = None,
    long: str = "reject",
    split_as: str = "text",
    chunk_size: int = MAX_TEXT_LENGTH,
    overlap: int = 0,
    settings: Settings | None = None,
    connection: redis.Redis | None = None,
) -> Receipt:
    """`enqueue` for asyncio: the loop is free while Redis works.

    `texts` are read in another thread. If it is cancelled, the texts may still be enqueued.
    """
    call = partial(enqueue, texts, collection, model=model, keep_text=keep_text)
    call = partial(call, dimensions=dimensions, dtype=dtype, force=force)
    call = partial(call, long=long, split_as=split_as, chunk_size=chunk_size, overlap=overlap)
    return await in_thread(partial(call, settings=settings, connection=connection))


def produce(
    lines: Iterable[Job | Rejection],
    adder: Adder,
    settings: Settings,
    *,
    keep_text: bool | None = None,
    documents: bool = False,
    rejected: Callable[[Rejection], None],
) -> Iterator[Progress]:
    """Enqueue `lines`, and tell how far it is after each chunk and while it waits.

    Several of these may continue one run, that of the `adder`: an id that comes again in it is a
    duplicate. `documents`: the lines may be pieces; what else was there of their documents leaves.
    """
    check_redis(adder.client)
    yield from _Source(adder, settings, rejected, documents).enqueue(lines, keep_text)


class _Source:
    """One source of lines on its way into the backlog."""

    def __init__(
        self,
        adder: Adder,
        settings: Settings,
        rejected: Callable[[Rejection], None],
        documents: bool,
    ) -> None:
        self._adder = adder
        self._backlog = Backlog(adder.client, adder.keys)
        self._settings = settings
        self._rejected = rejected
        self._documents: Documents | None = None
        if documents:
            removal = Removal(adder.client, adder.keys, bookmark=adder.bookmark)
            self._documents = Documents(removal, outlast)
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
                return outlast(step)
            except redis.ResponseError as error:
                if not is_out_of_memory(error):
                    raise
            yield from self._wait()

    def _wait_for_room(self, load: Load | None) -> Iterator[Progress]:
        """Wait before a chunk is sent: one of long texts alone is tens of megabytes.

        `load` came with the last reply. It is used unless reading took long since.
        """
        is_old = time.monotonic() - self._sent > LOOK_SECONDS
        if load is None or is_old or _too_much(load, self._settings):
            yield from self._wait()

    def _wait(self) -> Iterator[Progress]:
        """Wait while too much is queued or Redis is full, and tell why every half second."""
        for reason in _full(self._adder.client, self._adder.keys, self._settings):
            yield self._progress._replace(waiting=reason)

    def _wake(self, *, is_last: bool) -> None:
        """Wake the workers now and then, and at the end if anything is new."""
        if self._progress.new if is_last else time.monotonic() - self._woken > WAKE_SECONDS:
            self._woken = time.monotonic()
            _wake(self._adder.client, self._adder.keys, self._settings)


def _next_chunk(jobs: Iterator[Job]) -> list[Job]:
    some: list[Job] = []
    room = CHUNK_CHARACTERS
    for job in islice(jobs, CHUNK_SIZE):
        some.append(job)
        room -= len(job.text)
        if room <= 0:
            break
    return some


def _full(client: Redis, keys: CollectionKeys, settings: Settings) -> Iterator[str]:
    """Reasons to wait, one every half second, while there is one."""
    while True:
        load = Load(outlast(Backlog(client, keys).size), outlast(partial(memory_used, client)))
        reason = _too_much(load, settings)
        if reason is None:
            return
        yield reason
        _wake(client, keys, settings)
        time.sleep(0.5)


def _too_much(load: Load, settings: Settings) -> str | None:
    """Why to wait before more is added, or None."""
    if load.backlog >= settings.high_water:
        return f"{load.backlog:,} texts are queued already"
    if load.memory >= PRODUCER_MEMORY:
        return f"Redis is {load.memory:.0%} full"
    return None


def _wake(client: Redis, keys: CollectionKeys, settings: Settings) -> None:
    try:
        threads = max(1, threads_worth_having(client, settings))
        send_wakeups(settings, Backlog(client, keys), threads)
    except redis.RedisError as error:  # away, or full
        logger.warning("no wake-up is sent (%s): the pump will wake the workers", error)
