"""The scan: the ids and vectors of a collection, a page at a time, for an exact search.

The commands of a page go out in one piece, and the next page is asked for before this one is used:
Redis and Python work side by side. A Lua step as of an export took twice as much of both.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import redis

from ..layout import Layout
from .codec import fields_of, load_data
from .connection import Redis, node_of
from .errors import CollectionGone, LayoutChanged
from .keys import CollectionKeys

PAGE_SIZE = 250  # vectors in one page: a megabyte
_LIKE_A_PIECE = re.compile(rb"#[0-9]{4,}\Z")


class Vectors(NamedTuple):
    """A page of stored vectors, each with its id."""

    ids: list[bytes]
    data: list[bytes]  # in the layout of the collection
    metas: list[bytes | None]  # JSON; None where there is none, or where it was not asked for
    number: int  # up to which this is


def scan(
    client: Redis,
    keys: CollectionKeys,
    layout: Layout,
    after: int = 0,
    *,
    metas: bool = False,
) -> Generator[Vectors, None, None]:
    """Every stored vector with a number above `after`, in the order of the commits.

    Memory stays flat. `metas`: with every meta; else with those of ids that a piece may have. A
    vector that is replaced meanwhile may come twice. Raises CollectionGone if the collection is
    dropped, or Redis loses it, before the end, and LayoutChanged if it has not this `layout`.
    """
    doc = keys.doc_prefix.encode()

    def command(id: bytes) -> tuple[bytes | str, ...]:
        if metas or _LIKE_A_PIECE.search(id):
            return ("HMGET", doc + id, *fields_of(layout), "meta")
        if layout.is_plain:  # quicker to read than a list of one
            return ("HGET", doc + id, "vector")
        return ("HMGET", doc + id, *fields_of(layout))

    ids: list[bytes] = []
    page = Vectors([], [], [], after)
    born, last = b"", b"%d-0" % after
    line = _Line(client, keys.info)
    try:
        while True:
            following = ("XRANGE", keys.done, b"(" + last, "+", "COUNT", PAGE_SIZE)
            line.send([("HMGET", keys.info, "born", "layout"), following, *map(command, ids)])
            if page.ids:
                yield page
            (now, said), entries, *found = line.replies()
            born = born or now
            if now != born:
                raise CollectionGone(keys.name)
            if (said or b"").decode() != str(layout):
                raise LayoutChanged(keys.name)
            page = _page(layout, ids, found, last)
            if not (ids or entries):
                return
            ids = [fields[1] for _, fields in entries]
            last = entries[-1][0] if entries else last
    finally:
        line.close()


def _page(layout: Layout, ids: Sequence[bytes], found: Sequence[Any], last: bytes) -> Vectors:
    """The vectors that were there; each reply is one, or the fields that may hold it and a meta."""
    page = Vectors([], [], [], int(last.partition(b"-")[0]))
    fields = fields_of(layout)
    for id, reply in zip(ids, found):
        values = reply if isinstance(reply, list) else [reply]
        for field, data in zip(fields, values):
            if data:
                page.ids.append(id)
                page.data.append(data if layout.is_plain else load_data(layout, field, data))
                page.metas.append(values[-1] if len(values) > len(fields) else None)
                break
    return page


class _Line:
    """A connection on which commands that only read are sent, and their replies read later."""

    def __init__(self, client: Redis, key: str) -> None:
        self._client, self._key = client, key
        self._line: redis.Redis | None = None

    def send(self, commands: Sequence[tuple[bytes | str | int, ...]]) -> None:
        """Send commands; their replies must be read before the next ones are sent."""
        self._commands = commands
        with suppress(redis.ConnectionError, redis.TimeoutError):  # then `replies` sends them
            self._send()

    def replies(self) -> list[Any]:
        """The replies in the order of the commands."""
        try:
            return self._read()
        except (redis.ConnectionError, redis.TimeoutError):  # sent too long ago, or not at all
            self.close()
            self._send()
            return self._read()

    def close(self) -> None:
        """Give the connection back; one with replies that were not read is of no use."""
        if self._line is not None:
            if self._left:
                self._connection.disconnect()
            self._line.close()
            self._line = None

    def _send(self) -> None:
        if self._line is None:
            node = node_of(self._client, self._key)
            self._line = node.client()  # type: ignore[no-untyped-call]
        self._left = len(self._commands)
        connection = self._connection
        connection.send_packed_command(connection.pack_commands(self._commands))

    def _read(self) -> list[Any]:
        if self._line is None:
            raise redis.ConnectionError("not sent")
        read, found = self._connection.read_response, []
        while self._left:
            found.append(read())
            self._left -= 1
        return found

    @property
    def _connection(self) -> Any:  # half of its methods are untyped
        return cast(redis.Redis, self._line).connection
