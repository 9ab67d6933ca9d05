"""The registry: the names of all collections, which of them have a backlog, and what fed them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence

import redis

from ..logs import skip
from .connection import Invocation, Pipeline, Redis
from .faults import is_lost
from .keys import NAME, CollectionKeys, CommonKeys
from .nodes import ask_all, run_all

SOURCES = 20  # that a collection remembers
SOURCE_LENGTH = 300  # characters kept of the name of a source


def collection_names(client: Redis, prefix: str) -> list[str]:
    """The names of all collections, sorted."""
    names = map(_name, client.smembers(CommonKeys(prefix).collections))
    return sorted(name for name in names if name is not None)


def announce(
    client: Redis,
    keys: CollectionKeys,
    epoch: str = "",
    along: Callable[[Pipeline], object] = lambda pipeline: None,
) -> None:
    """Tell the workers of a collection before jobs are added to its backlog under `epoch`.

    `along`: puts commands into the same pipeline, behind the announcement.
    """
    common = CommonKeys(keys.prefix)
    pipeline = client.pipeline(transaction=False)
    pipeline.sadd(common.collections, keys.name)
    pipeline.sadd(common.busy, f"{keys.name} {epoch}")
    along(pipeline)
    pipeline.execute()


def busy_collections(client: Redis, prefix: str) -> list[str]:
    """The names of the announced collections that have a backlog, sorted.

    A collection without a backlog is removed until it is announced again: it costs nothing. One
    whose node is away is left out, and stays announced.
    """
    return sorted(_with_backlog(client, prefix, client.smembers(CommonKeys(prefix).busy)))


def some_busy(client: Redis, prefix: str, most: int, *, but: str) -> list[str]:
    """At most so many of the same names, at random, without `but`."""
    raw = client.srandmember(CommonKeys(prefix).busy, most)
    if not any(one.partition(b" ")[0] != but.encode() for one in raw):
        return []
    return [name for name in _with_backlog(client, prefix, raw) if name != but]


def _with_backlog(client: Redis, prefix: str, raw: Iterable[bytes]) -> list[str]:
    """The names among these announcements that have a backlog; the others are removed."""
    announced = [entry for entry in map(_announced, raw) if entry is not None]
    sizes = _backlogs(client, prefix, [name for name, _ in announced])
    away = {entry for entry, size in zip(announced, sizes) if isinstance(size, Exception)}
    empty = [entry for entry, size in zip(announced, sizes) if size == 0]
    calls: list[Invocation] = []
    for name, epoch in empty:
        known = CollectionKeys(prefix, name)
        names = [known.jobs, known.epoch, known.done, known.packed, known.ahead]
        calls.append((names, [epoch, uuid.uuid4().hex[:12]]))
    ends = run_all(client, "store/idle", calls) if calls else []
    over = {entry for entry, is_over in zip(empty, ends) if is_over == 1}
    if over:
        client.srem(CommonKeys(prefix).busy, *(f"{name} {epoch}" for name, epoch in over))
    left = over | away
    return list(dict.fromkeys(name for name, epoch in announced if (name, epoch) not in left))


def announce_backlogs(client: Redis, prefix: str) -> None:
    """Look at every collection, and announce those that have a backlog.

    So is one whose node is away: it may have one.
    """
    names = collection_names(client, prefix)
    busy = [name for name, size in zip(names, _backlogs(client, prefix, names)) if size]
    if busy:
        client.sadd(CommonKeys(prefix).busy, *(f"{name} " for name in busy))


def forget(client: Redis, keys: CollectionKeys) -> None:
    """Remove the name of a collection that was dropped, unless a producer has begun it again."""
    names = CommonKeys(keys.prefix).collections
    client.srem(names, keys.name)
    if client.hget(keys.info, "model") is not None:
        client.sadd(names, keys.name)


def read_sources(client: Redis, keys: CollectionKeys) -> list[str]:
    """The names of the sources that fed a collection, the latest one last."""
    said = client.hget(keys.info, "sources")
    if said is None:
        return []
    try:
        return [str(source) for source in list(json.loads(said))]
    except (ValueError, TypeError, RecursionError):
        skip(f"sources of collection {keys.name}", said)
        return []


def note_source(client: Redis, keys: CollectionKeys, name: str) -> None:
    """Remember that a source fed a collection: the last SOURCES, of a long name its end."""
    name = name[-SOURCE_LENGTH:]
    before = [one for one in read_sources(client, keys) if one != name]
    client.hset(keys.info, "sources", json.dumps([*before[1 - SOURCES :], name]))


def _backlogs(
    client: Redis, prefix: str, names: Sequence[str]
) -> list[int | redis.RedisError | None]:
    """The size of each backlog: the error where its node is away, None where the key holds
    something else.
    """
    replies = ask_all(client, [("XLEN", CollectionKeys(prefix, name).jobs) for name in names])
    for n, reply in enumerate(replies):
        if isinstance(reply, redis.ResponseError) and str(reply).startswith("WRONGTYPE"):
            skip("backlog of", names[n])
            replies[n] = None
        elif isinstance(reply, redis.RedisError) and not is_lost(reply):
            raise reply
    return replies


def _name(raw: bytes) -> str | None:
    """The name of a collection; None for what cannot be one."""
    name = raw.decode(errors="replace")
    if NAME.match(name):
        return name
    skip("member of collections", raw)
    return None


def _announced(raw: bytes) -> tuple[str, str] | None:
    """A collection and the epoch under which it is announced; None for anything else."""
    name, blank, epoch = raw.decode(errors="replace").partition(" ")
    if blank and NAME.match(name) and raw.isascii():
        return name, epoch
    skip("member of busy", raw)
    return None
