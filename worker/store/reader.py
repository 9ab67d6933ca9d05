"""The reader: vectors, dead letters and the ledger of a collection."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import redis

from ..layout import Layout, LayoutError
from ..logs import skip
from ..types import DeadLetter, Info, Known, Ledger, Position, State, Stored
from .codec import (
    VECTOR_FIELDS,
    id_digest,
    load_fields,
    load_halts,
    load_hash,
    load_letter,
    load_page,
    load_record,
)
from .connection import Argument, Redis, Step, run
from .errors import CollectionGone, LayoutChanged, UnknownCollection
from .keys import CollectionKeys
from .ledgers import read_ledger
from .nodes import ask_all
from .registry import collection_names

PAGE_SIZE = 250  # vectors in one reply of Redis: a megabyte
IDS_SIZE = 5000  # ids in one reply
SHOWN_NAMES = 20


_INFO = ("model", "dimensions", "keep_text", "halted", "throttle", "layout")


class Page(NamedTuple):
    """Some stored vectors, and the collection that they are of."""

    born: bytes  # its life; empty if there is none
    commits: int  # vectors that were ever stored in it
    layout: Layout
    records: list[Stored]


class Reader:
    """Reads one collection, and changes nothing."""

    def __init__(self, client: Redis, keys: CollectionKeys) -> None:
        self.name = keys.name
        self._redis = client
        self._keys = keys

    def info(self) -> Info:
        """What the collection is, and what was set for it."""
        return _info(self.name, self._redis.hmget(self._keys.info, _INFO))

    def ledger(self) -> Ledger:
        """What is enqueued, embedded, dead and waiting, read at one moment."""
        return read_ledger(self._redis, self._keys)

    def born(self) -> bytes:
        """A token of the collection's life; empty where there is no collection.

        It changes when the collection is dropped, even in part, and when Redis loses it.
        """
        return self._redis.hget(self._keys.info, "born") or b""

    def size(self) -> int:
        """How many vectors are stored. Raises UnknownCollection."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hget(self._keys.info, "model")
        pipeline.xlen(self._keys.done)
        model, size = pipeline.execute()
        if model is None:
            raise self.unknown()
        return int(size)

    def unknown(self) -> UnknownCollection:
        """The error for a collection that does not exist: names those that do."""
        names = collection_names(self._redis, self._keys.prefix)
        shown = ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
        there = shown or "none yet"
        return UnknownCollection(f"no collection {self.name!r} here; there is {there}")

    def get_many(self, ids: Sequence[str]) -> list[Stored | None]:
        """The stored vectors of `ids`, in their order; None where there is none.

        Raises UnknownCollection.
        """
        return [stored for stored, _ in self.get_latest(ids)]

    def get_latest(self, ids: Sequence[str]) -> list[tuple[Stored | None, bool]]:
        """As `get_many`; of each also whether it is outdated: a later text of its id is waiting."""
        (model, said), queued, rows = self._fields(ids, VECTOR_FIELDS[:1])
        if model is None:
            raise self.unknown()
        layout = Layout.read(model.decode(), _text(said or b""))
        is_shrunk = any(packed and not vector for vector, packed, *_ in rows)  # in this moment
        found: list[Stored | None]
        if layout.is_plain and not is_shrunk:
            name = layout.model
            found = [load_record(name, id, *row) if row[0] else None for id, row in zip(ids, rows)]
        else:
            # Asked for at once, the other fields would cost a plain collection half as much again.
            (model, said), _, rows = self._fields(ids, VECTOR_FIELDS)
            layout = Layout.read(_text(model or b""), _text(said or b""))
            found = [load_fields(layout, id, *row) for id, row in zip(ids, rows)]
        return [(one, _is_outdated(one, latest)) for one, latest in zip(found, queued)]

    def _fields(
        self, ids: Sequence[str], vector: Sequence[str]
    ) -> tuple[Sequence[bytes | None], Sequence[bytes | None], list[list[Any]]]:
        """Model and layout of the collection; what is queued of each id; and these fields of its
        vector, hash, text and meta.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(self._keys.info, ["model", "layout"])
        # Before the vectors: if it is committed in between, both are of the same text.
        pipeline.hmget(self._keys.queued, list(ids) or [""])
        for id in ids:
            pipeline.hmget(self._keys.doc(id), [*vector, "hash", "text", "meta"])
        info, queued, *rows = pipeline.execute()
        return info, queued, rows

    def ids(self) -> Iterator[str]:
        """The id of every stored vector, in the order of the commits; no vector is read.

        Raises UnknownCollection, and CollectionGone as `pages` does.
        """
        last, born = "-", b""
        while True:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hget(self._keys.info, "born")
            pipeline.xrange(self._keys.done, last, "+", IDS_SIZE)
            now, entries = pipeline.execute()
            if not now and not born:
                raise self.unknown()
            born = born or now
            if now != born:
                raise CollectionGone(self.name)
            for _, fields in entries:
                yield fields[b"id"].decode()
            if not entries:
                return
            last = f"({entries[-1][0].decode()}"

    def pages(self) -> Generator[list[Stored], None, None]:
        """Every stored vector in the order of the commits, a page at a time; memory stays flat.

        Redis prepares the next page while this one is in use. A vector that is replaced meanwhile
        is read again in its new position. Raises CollectionGone if the collection is dropped, or
        Redis loses it, before all were read, and LayoutChanged if it is shrunk.
        """
        pid, last, is_fresh, born, layout = os.getpid(), 0, False, b"", b""
        ahead = self._send_for_page(last)
        try:
            while True:
                try:
                    now, commits, model, said, *rows = ahead.replies()[0]
                except (redis.ConnectionError, redis.TimeoutError):  # sent too long ago
                    now, commits, model, said, *rows = ahead.replies()[0]
                layout = layout if born else said
                born = born or now
                if now != born or int(commits) < last:
                    raise CollectionGone(self.name)
                if said != layout:
                    raise LayoutChanged(self.name)
                if not rows and is_fresh:
                    return
                # It was asked for while the page before was in use: an end may be out of date.
                is_fresh = not rows
                last = load_hash(rows[-3]).number if rows else last
                ahead = self._send_for_page(last)
                if rows:
                    yield load_page(Layout.read(model.decode(), said.decode()), rows)
                if os.getpid() != pid:  # the reply is for the process that this was forked from
                    pid = os.getpid()
                    ahead.close()
                    ahead = self._send_for_page(last)
        finally:
            ahead.close()

    def _send_for_page(self, after: int) -> Step:
        keys = self._keys
        args: list[Argument] = [keys.doc_prefix, after, PAGE_SIZE]
        step = Step(self._redis, "store/finished", [keys.done, keys.info], args)
        step.send()
        return step

    def finished(self, after: int, count: int) -> list[Stored]:
        """The next `count` stored vectors in the order of their numbers, from above `after`."""
        return self.page(after, count).records

    def page(self, after: int, count: int) -> Page:
        """As `finished`, with the life of the collection at that moment."""
        args: list[Argument] = [self._keys.doc_prefix, after, count]
        names = [self._keys.done, self._keys.info]
        born, commits, model, said, *rows = run(self._redis, "store/finished", names, args)
        layout = Layout.read(model.decode(), said.decode())
        return Page(born, int(commits), layout, load_page(layout, rows))

    def known(self, ids: Sequence[str]) -> Known:
        """Which text is stored, queued, dead and evicted under each id."""
        keys = self._keys
        args: list[Argument] = [keys.doc_prefix, keys.evicted_prefix]
        for id in ids:
            args += (id, id_digest(id))
        names = [keys.queued, keys.info, keys.dead]
        born, seq, commits, *parts = run(self._redis, "store/known", names, args)
        states = [
            State(hash[:16] or None, latest[:8] or None, dead or None)
            for hash, latest, dead in zip(parts[::4], parts[1::4], parts[2::4])
        ]
        seqs = [
            int(latest[8:] or hash[16:].partition(b" ")[0] or 0)
            for hash, latest in zip(parts[::4], parts[1::4])
        ]
        return Known(born, int(seq), int(commits), states, parts[3::4], seqs)

    def states(self, ids: Sequence[str]) -> list[State]:
        """Which text is stored, queued and dead under each id: proves that a corpus is complete."""
        return self.known(ids).states

    def names(self) -> Iterator[str]:
        """Every id that is stored, queued or dead; one that is in two of them comes twice.

        Each that is there all the while is among them, also if it is embedded or refused meanwhile:
        it is looked for in the order in which it moves on. Raises UnknownCollection, and
        CollectionGone as `pages` does.
        """
        for id, _ in self._redis.hscan_iter(self._keys.queued, count=500):
            yield _text(id)
        for name, _ in self.dead_digests():
            yield name
        yield from self.ids()

    def tombstones(self, after: int) -> Iterator[Position]:
        """The tombstones numbered above `after` that not every folder has yet; without digests."""
        last = f"({after}-0"
        while entries := self._redis.xrange(self._keys.tombstones, last, "+", IDS_SIZE):
            for entry, fields in entries:
                yield Position(int(entry.partition(b"-")[0]), fields[b"id"].decode(), b"")
            last = f"({entries[-1][0].decode()}"

    def dead_digests(self) -> Iterator[tuple[str, bytes]]:
        """The id of every dead letter, and the digest of its text."""
        for id, letter in self._redis.hscan_iter(self._keys.dead, count=500):
            yield _text(id), letter[:16]

    def letters(
        self, ids: Iterable[str] | None = None, code: str | None = None
    ) -> Iterator[tuple[bytes, DeadLetter]]:
        """Dead letters (all, or those of `ids` and of `code`), each also as it is stored."""
        for id, raw in self._raw_letters(ids):
            letter = self._letter(id, raw)
            if letter is not None and code in (None, letter.code):
                yield raw, letter

    def some_letters(self, cursor: int, count: int) -> tuple[int, list[DeadLetter]]:
        """About `count` dead letters from a cursor on, 0 at first; and the next cursor, 0 at last.

        One that is there all the while comes at least once.
        """
        cursor, rows = self._redis.hscan(self._keys.dead, cursor, count=count)
        letters = [self._letter(_text(key), raw) for key, raw in rows.items()]
        return int(cursor), [one for one in letters if one is not None]

    def _letter(self, id: str, raw: bytes) -> DeadLetter | None:
        try:
            return load_letter(id, raw)
        except (ValueError, TypeError, RecursionError):
            skip(f"dead letter of collection {self.name}", id)
            return None

    def _raw_letters(self, ids: Iterable[str] | None) -> Iterator[tuple[str, bytes]]:
        if ids is None:
            for key, raw in self._redis.hscan_iter(self._keys.dead, count=500):
                yield _text(key), raw
            return
        for id in ids:
            letter = self._redis.hget(self._keys.dead, id)
            if letter is not None:
                yield id, letter


def read_infos(client: Redis, prefix: str, names: Sequence[str]) -> list[Info | None]:
    """What these collections are, in one round trip to each node; None for one that cannot be
    read, or whose node is away.
    """
    keys = [CollectionKeys(prefix, name).info for name in names]
    replies = ask_all(client, [("HMGET", key, *_INFO) for key in keys])
    return [_readable(name, said) for name, said in zip(names, replies)]


def _readable(name: str, said: Any) -> Info | None:
    if isinstance(said, redis.RedisError):
        return None
    try:
        return _info(name, said)
    except (LayoutError, ValueError):  # of a later version, or a stranger's
        return None


def _info(name: str, said: Sequence[bytes | None]) -> Info:
    model, dimensions, keep_text, halts, throttle, layout = [
        None if value is None else _text(value) for value in said
    ]
    length = None if dimensions is None else int(dimensions)
    its = Layout.read(model or "", layout)
    return Info(model, length, keep_text == "1", load_halts(name, halts), throttle, its)


def _is_outdated(stored: Stored | None, latest: bytes | None) -> bool:
    """Whether what is queued of its id is another text."""
    if stored is None or stored.digest is None or latest is None:
        return False
    return not stored.digest.startswith(latest[:8])


def _text(raw: bytes) -> str:
    """Text from Redis, whoever wrote it."""
    return raw.decode(errors="replace")
