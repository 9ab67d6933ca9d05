"""Ledgers: the counts of one collection, or of many, each read in one step.

Of many, some hundreds are asked for in one round trip: their number costs no time on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from ..layout import Layout, LayoutError
from ..logs import skip
from ..types import Ledger
from .codec import load_halts, load_index
from .connection import Redis, run
from .keys import CollectionKeys
from .nodes import run_all
from .registry import collection_names

CHUNK = 500  # collections in one round trip: 200 KB of replies
_COUNTS = (
    b"enqueued",
    b"evicted",
    b"unchanged",
    b"commits",
    b"tombstones",
    b"cached",
    b"removed",
    b"remembered",
    b"dimensions",
)
_WORDS = (b"model", b"born", b"layout", b"throttle", b"halted", b"index")


def read_ledger(client: Redis, keys: CollectionKeys) -> Ledger:
    """What is enqueued, embedded, dead and waiting in a collection, at one moment."""
    return load_ledger(keys.name, run(client, "store/status", _keys(keys), []))


def read_ledgers(client: Redis, prefix: str, names: Sequence[str]) -> Iterator[tuple[str, Ledger]]:
    """The ledgers of the collections of these names, in their order, each at a moment of its own.

    Left out: what was dropped since its name was read, and what is no collection.
    """

    def ask(first: int) -> tuple[Sequence[str], list[Any]]:
        some = names[first : first + CHUNK]
        calls = [(_keys(CollectionKeys(prefix, name)), ()) for name in some]
        return some, run_all(client, "store/status", calls)

    # Redis prepares the next chunk while this one is in use: of 10,000 that saves a fifth.
    with ThreadPoolExecutor(1) as ahead:
        asked = ahead.submit(ask, 0)
        for first in range(0, len(names), CHUNK):
            some, replies = asked.result()
            asked = ahead.submit(ask, first + CHUNK)
            found = [
                (name, ledger)
                for name, reply in zip(some, replies)
                if not _is_foreign(name, reply) and (ledger := _readable(name, reply)) is not None
            ]
            if any(ledger.model is None for _, ledger in found):
                # A drop that was interrupted leaves the name alone, and that is still to be shown.
                there = set(collection_names(client, prefix))
                found = [(name, it) for name, it in found if it.model is not None or name in there]
            yield from found


def have_quarantined(client: Redis, prefix: str, names: Sequence[str]) -> Iterator[bool]:
    """Whether each collection has texts that may have killed their worker."""
    for first in range(0, len(names), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for name in names[first : first + CHUNK]:
            keys = CollectionKeys(prefix, name)
            pipeline.xpending_range(keys.jobs, "workers", "-", "+", 1, "released")
            pipeline.hlen(keys.attempts)
        replies = pipeline.execute(raise_on_error=False)
        for reply in replies:
            # Of a collection without a job, and so without a group of consumers: an error.
            if isinstance(reply, Exception) and not isinstance(reply, redis.ResponseError):
                raise reply
        for released, attempts in zip(replies[::2], replies[1::2]):
            # Without a death or a failure, what is released was only given back.
            yield isinstance(released, list) and bool(released) and attempts != 0


def load_ledger(name: str, reply: Sequence[Any]) -> Ledger:
    """The ledger in a reply of `status.lua`."""
    flat, backlog, leased, embedded, dead, age = reply
    info: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2]))
    enqueued, evicted, unchanged, commits, tombstones, *others = _counts(name, info, _COUNTS)
    cached, removed, remembered, dimensions = others
    words = [None if value is None else _text(value) for value in map(info.get, _WORDS)]
    model, born, layout, throttle, halted, index = words
    codes = [field for field in info if field[:5] == b"dead:"]
    return Ledger(
        enqueued=enqueued,
        embedded=embedded,
        evicted=evicted,
        dead=dead,
        pending=backlog - leased,
        leased=leased,
        unchanged=unchanged,
        embedded_ever=commits - tombstones,
        cached_ever=cached,
        dead_ever={_text(code[5:]): n for code, n in zip(codes, _counts(name, info, codes))},
        removed_ever=removed,
        remembered=remembered,
        oldest_age=age / 1000,
        model=model,
        dimensions=dimensions or None,
        throttle=throttle,
        halts=load_halts(name, halted),
        layout=Layout.read(model or "", layout),
        commits=commits,
        index=load_index(name, index),
        born=born or "",
    )


def _counts(name: str, info: Mapping[bytes, bytes], fields: Sequence[bytes]) -> list[int]:
    """The numbers in these fields of info; 0 for one that is not there, or is no number."""
    try:
        return [int(info.get(field, 0)) for field in fields]
    except ValueError:
        return [_count(name, field, info.get(field, b"0")) for field in fields]


def _count(name: str, field: bytes, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        skip(f"{_text(field)} of collection {name}", value)
        return 0


def _keys(keys: CollectionKeys) -> list[str]:
    return [keys.jobs, keys.info, keys.done, keys.dead]


def _readable(name: str, reply: Sequence[Any]) -> Ledger | None:
    """The ledger in a reply; None for one that only a later version can read."""
    try:
        return load_ledger(name, reply)
    except LayoutError as error:
        skip("collection", f"{name}: {error}")
        return None


def _is_foreign(name: str, reply: object) -> bool:
    """Whether a key of this name holds something else. Raises any other error of Redis."""
    if not isinstance(reply, redis.RedisError):
        return False
    if "WRONGTYPE" not in str(reply):
        raise reply
    skip("collection", name)
    return True


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
