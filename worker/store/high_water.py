"""The high water: how much may wait before a producer waits, too.

Texts that may overtake others do not wait with them. Of the backlog they see what goes
before them or with them alone, and they may fill a tenth more of Redis. `add.lua` decides the same
for small calls.
"""

from __future__ import annotations

from typing import NamedTuple

from .connection import OVERTAKING_MEMORY, PRODUCER_MEMORY, Redis, run
from .keys import CollectionKeys
from .server_memory import memory_used


class Load(NamedTuple):
    """How many texts go before those of a producer or with them, and how full Redis is."""

    texts: int
    memory: float  # of its limit
    overtakes: bool = False

    def reason(self, high_water: int) -> str | None:
        """Why to wait before more is added, or None."""
        if self.texts >= high_water:
            return queued(self.texts)
        if self.memory >= (OVERTAKING_MEMORY if self.overtakes else PRODUCER_MEMORY):
            return filled(self.memory)
        return None


def read_load(client: Redis, keys: CollectionKeys, priority: str) -> Load:
    """The load for a producer of texts of this priority."""
    names = [keys.jobs, keys.info, keys.ahead]
    texts, overtakes = run(client, "store/high_water", names, [priority_code(priority)])
    return Load(texts, memory_used(client), bool(overtakes))


def priority_code(priority: str) -> str:
    """A priority as the Lua steps take it."""
    return "" if priority == "normal" else priority


def queued(texts: int) -> str:
    """Why a producer waits behind so many texts."""
    return f"{texts:,} texts are queued already"


def filled(share: float) -> str:
    """Why a producer waits for memory."""
    return f"Redis is {share:.0%} full"
