"""The producer: texts into a collection's backlog, and a wake-up for the workers.

A few texts go into Redis in one step, together with those of other callers (`small.py`). More go
chunk after chunk (`source.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import chain, islice

import redis

from vector_embed_client.http import MAX_TEXT_LENGTH

from ..corpus.long import Long
from ..corpus.texts import Texts, text_lines
from ..layout import Layout, asked
from ..settings import Settings, settings_now
from ..settings.address import is_cluster
from ..store.adder import Adder
from ..store.calls import Jobs, Kind
from ..store.connection import Redis, connect, given
from ..store.errors import RedisAway
from ..store.faults import is_lost
from ..store.keys import CollectionKeys
from ..store.waiter import in_thread
from ..types import PRIORITIES, Added, Job, Rejection
from .known import Named, ReceiptStatus, known_of
from .noted import Noted
from .receipt import InRedis, Receipt
from .small import FEW, aenqueue_few, enqueue_few, say_waits
from .source import Progress, produce

__all__ = [
    "KEPT_REJECTIONS",
    "Progress",
    "Receipt",
    "ReceiptStatus",
    "aenqueue",
    "enqueue",
    "produce",
]

KEPT_REJECTIONS = 1000
MOST_KINDS = 5000  # remembered, of calls that can share steps


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
    priority: str = "normal",
    timeout: float | None = None,
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

    `priority`: interactive, normal or bulk. Of the texts that wait, interactive ones go first, and
    bulk last. None of them waits for ever: each keeps a part of every batch. The same text enqueued
    again with a higher priority is raised.

    `timeout`: how long to wait, in seconds, while there is no room or Redis is away. After that it
    raises BacklogFull or RedisAway. Without it, it waits for room without end, and raises RedisAway
    at once if Redis cannot be reached. In every case enqueue again: what was taken is `unchanged`.

    A list or tuple of at most 100 texts goes in one step, together with those of other threads and
    tasks; all of it is taken or nothing. (Not with long="split".)

    `connection`: where to put them, in place of `settings.redis_url`; wake-ups still go through
    `settings.broker_url`.

    Raises CollectionError (bad name), ModelsDiffer, LayoutsDiffer, RedisUnfit, BacklogFull,
    RedisAway and any other `redis.RedisError`, TypeError for anything else than such texts,
    ValueError for sizes, times and priorities that cannot be, and LayoutError for dimensions or a
    dtype that cannot be.
    """
    ways = Long(long, split_as, chunk_size, overlap)
    settings = settings or settings_now()
    kind = _kind(collection, model, dimensions, dtype, force, keep_text, priority, settings)
    _check_timeout(timeout)
    lines = ways.apply(text_lines(texts, no_pieces=ways.splits), "long='cut' or long='split'")
    if stand_in is not None:
        return stand_in(lines, collection, kind.model, kind.layout, ways.splits)
    client = connect(kind.settings) if connection is None else given(connection)
    if ways.splits or not _is_shared(client):
        return _enqueue_many(lines, client, kind, timeout, connection, documents=ways.splits)
    first = list(islice(lines, FEW + 1))
    if len(first) > FEW:
        return _enqueue_many(chain(first, lines), client, kind, timeout, connection)
    jobs, rejections = _sorted(first)
    added = enqueue_few(client, kind, jobs, timeout) if jobs.by_id else _NOTHING
    return _receipt(kind, added, jobs, rejections, connection)


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
    priority: str = "normal",
    timeout: float | None = None,
    settings: Settings | None = None,
    connection: redis.Redis | None = None,
) -> Receipt:
    """`enqueue` for asyncio: the loop is free while Redis works.

    A list or tuple of at most 100 texts takes no thread. Other `texts` are read in another thread.
    If it is cancelled, the texts may still be enqueued.
    """
    if stand_in is None and isinstance(texts, (list, tuple)) and len(texts) <= FEW:
        ways = Long(long, split_as, chunk_size, overlap)
        settings = settings or settings_now()
        kind = _kind(collection, model, dimensions, dtype, force, keep_text, priority, settings)
        _check_timeout(timeout)
        if connection is not None:
            client = given(connection)
        elif is_cluster(kind.settings.redis_url):  # at first, it is asked for its nodes
            client = await in_thread(partial(connect, kind.settings))
        else:
            client = connect(kind.settings)
        if not ways.splits and _is_shared(client):
            lines = ways.apply(text_lines(texts, no_pieces=False), "long='cut' or long='split'")
            jobs, rejections = _sorted(lines)
            added = await aenqueue_few(client, kind, jobs, timeout) if jobs.by_id else _NOTHING
            return _receipt(kind, added, jobs, rejections, connection)
    call = partial(enqueue, texts, collection, model=model, keep_text=keep_text, timeout=timeout)
    call = partial(call, dimensions=dimensions, dtype=dtype, force=force, priority=priority)
    call = partial(call, long=long, split_as=split_as, chunk_size=chunk_size, overlap=overlap)
    # It may wait for room for hours: for those alone that wait in the same way.
    return await in_thread(partial(call, settings=settings, connection=connection), priority)


_NOTHING = Added(0, 0, 0, 0)


@lru_cache(MOST_KINDS)
def _kind(
    collection: str,
    model: str | None,
    dimensions: int | None,
    dtype: str | None,
    force: bool,
    keep_text: bool | None,
    priority: str,
    settings: Settings,
) -> Kind:
    """The same for the same call, so that callers share steps; nothing is lost if it is not."""
    model = model or settings.model
    layout = asked(model, dimensions, dtype, force=force)
    CollectionKeys(settings.prefix, collection)  # raises CollectionError for what is no name
    if priority not in PRIORITIES:
        raise ValueError(f"priority is one of {', '.join(PRIORITIES)}, not {priority!r}")
    return Kind(settings, collection, model, layout, keep_text, priority)


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds from 0, not {timeout!r}")


def _is_shared(client: Redis) -> bool:
    """Whether callers may use connections of it beside each other."""
    return getattr(client, "connection", None) is None


def _sorted(lines: Iterable[Job | Rejection]) -> tuple[Jobs, list[Rejection]]:
    """The jobs and the rejections among lines."""
    jobs: list[Job] = []
    rejections: list[Rejection] = []
    for line in lines:
        if isinstance(line, Job):
            jobs.append(line)
        else:
            rejections.append(line)
    return Jobs(jobs), rejections


def _receipt(
    kind: Kind,
    added: Added,
    jobs: Jobs,
    rejections: Sequence[Rejection],
    connection: redis.Redis | None,
) -> Receipt:
    named = Named(tuple(jobs.by_id), jobs.digests, jobs.replaced)
    return Receipt(
        kind.collection,
        added.new,
        added.unchanged,
        added.duplicates,
        added.dead,
        len(rejections),
        tuple(rejections),
        added.evicted,
        enquiry=InRedis(kind.collection, named, kind.settings, connection),
    )


def _enqueue_many(
    lines: Iterable[Job | Rejection],
    client: Redis,
    kind: Kind,
    timeout: float | None,
    connection: redis.Redis | None,
    *,
    documents: bool = False,
) -> Receipt:
    kept: list[Rejection] = []

    def keep(rejection: Rejection) -> None:
        if len(kept) < KEPT_REJECTIONS:
            kept.append(rejection)

    settings, name = kind.settings, kind.collection
    keys = CollectionKeys(settings.prefix, name)
    adder = Adder(client, keys, kind.model, layout=kind.layout, priority=kind.priority)
    noted = Noted()
    adder.noted = noted.note
    steps = produce(
        lines,
        adder,
        settings,
        keep_text=kind.keep_text,
        documents=documents,
        rejected=keep,
        timeout=timeout,
    )
    last = Progress()
    try:
        for last in steps:
            if last.waiting is not None:
                say_waits(name, last.waiting)
    except redis.RedisError as error:
        if not is_lost(error) or isinstance(error, redis.AuthenticationError):
            raise
        raise RedisAway(name, str(error), None if adder.chunks else False) from error
    enquiry = InRedis(name, known_of(noted, adder, sum(last[:4])), settings, connection)
    return Receipt(name, *last[:5], tuple(kept), last.evicted, adder.lost, enquiry)
