"""Room: how much may wait before a producer waits, too.

Texts that may overtake others do not wait for room with them. Of the backlog they see what goes
before them or with them alone, and they may fill a tenth more of Redis. `add.lua` decides the same
for small calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..types import NORMAL
from .connection import OVERTAKING_MEMORY, PRODUCER_MEMORY, Redis, memory_used, run
from .keys import CollectionKeys


class Load(NamedTuple):
    """How many texts go before those of a producer or with them, and how full Redis is."""

    texts: int
    memory: float  # of its limit
    overtakes: bool

    def reason(self, high_water: int) -> str | None:
        """Why to wait before more is added, or None."""
        if self.texts >= high_water:
            return queued(self.texts)
        if self.memory >= (OVERTAKING_MEMORY if self.overtakes else PRODUCER_MEMORY):
            return filled(self.memory)
        return None


class Room:
    """How full a collection is for the texts of one priority.

    `commands` go along with a chunk: adding it has just removed `bulk` from info if no bulk waits.
    """

    def __init__(self, keys: CollectionKeys, priority: str) -> None:
        self._keys = keys
        self._priority = priority
        upto = f"({NORMAL}" if priority == "interactive" else "+inf"
        self.commands: tuple[tuple[str, ...], ...] = (
            ("XLEN", keys.jobs),
            ("HEXISTS", keys.info, "bulk"),
            ("ZCOUNT", keys.ahead, "-inf", upto),
        )

    def load(self, replies: Sequence[Any], memory: float) -> Load:
        """The load, from the replies to `commands`."""
        backlog, bulk_waits, ahead = map(int, replies)
        overtakes = self._priority == "interactive" or self._priority == "normal" and bulk_waits > 0
        return Load(min(ahead, backlog) if overtakes else backlog, memory, overtakes)

    def look(self, client: Redis) -> Load:
        """The load now."""
        names = [self._keys.jobs, self._keys.info, self._keys.ahead]
        texts, overtakes = run(client, "store/room", names, [self._priority])
        return Load(texts, memory_used(client), bool(overtakes))


def queued(texts: int) -> str:
    """Why a producer waits behind so many texts."""
    return f"{texts:,} texts are queued already"


def filled(share: float) -> str:
    """Why a producer waits for memory."""
    return f"Redis is {share:.0%} full"
