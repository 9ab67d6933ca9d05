"""The line: one connection to Redis, for steps that go out together without waiting in between.

redis-py's own way takes as long as such a step: it lends a connection from its pool, and packs the
commands in Python.
"""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import Any, cast

import redis

from .connection import is_ours

try:
    from hiredis import pack_command
except ImportError:
    pack_command = None  # type: ignore[assignment]  # it is a function there


class Line:
    """A connection of a pool, for one thread at a time.

    It is kept if the pool is ours; that of a program may have no other.
    """

    def __init__(self) -> None:
        self._kept: Any = None
        self._socket: Any = None  # of the one that was kept last

    def lend(self, pool: redis.ConnectionPool) -> Any:
        """A connection that is open, as far as can be seen. Raises `redis.RedisError`."""
        kept, self._kept = self._kept, None
        if kept is not None:
            # What can be read is the end of the connection: nothing is under way.
            if self._socket is kept._sock and not self._poll.poll(0):
                return kept
            kept.disconnect()
            pool.release(kept)
        try:
            return pool.get_connection()
        except TypeError:  # redis-py below 5.3
            return pool.get_connection("EVALSHA")

    def give_back(self, pool: redis.ConnectionPool, connection: Any, *, is_well: bool) -> None:
        """To be called for each that was lent; one that is not well is closed."""
        if is_well and is_ours(pool):
            if self._socket is not connection._sock:
                self._socket, self._poll = connection._sock, select.poll()
                self._poll.register(self._socket, select.POLLIN)
            self._kept = connection
            return
        if not is_well:  # whoever had it next would get the replies
            connection.disconnect()
        pool.release(connection)


def pack(connection: Any, commands: Iterable[tuple[Any, ...]]) -> list[bytes]:
    """Commands as they are sent."""
    if pack_command is None:
        return cast("list[bytes]", connection.pack_commands(commands))
    return [b"".join(map(pack_command, commands))]
