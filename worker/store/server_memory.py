"""The memory of Redis: what is in use, of the server or of each node of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import redis

from .connection import Redis
from .nodes import ask_each


class Memory(NamedTuple):
    """Of one server, in bytes. A limit of 0 is none."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """What is in use of the limit, 0.0 where there is none."""
        return self.used / self.limit if self.limit else 0.0


def read_memories(client: Redis) -> list[Memory | redis.RedisError]:
    """The memory of each node, or why it is away. Raises `redis.RedisError` if no node answers."""
    return ask_each(client, lambda node: memory_of(node.info("memory")))


def fullest(memories: list[Memory | redis.RedisError]) -> Memory:
    """The memory of the fullest node of those that answered."""
    known = [one for one in memories if isinstance(one, Memory)]
    return max(known, key=lambda memory: (memory.share, memory.used))


def read_memory(client: Redis) -> Memory:
    """The memory of the server; of a cluster, that of its fullest node. Raises as above."""
    return fullest(read_memories(client))


def memory_of(info: Mapping[str, object]) -> Memory:
    """The memory of a server as it says itself."""
    return Memory(int(str(info["used_memory"])), int(str(info.get("maxmemory", 0))))


def memory_used(client: Redis) -> float:
    """The share of maxmemory in use, 0.0 where there is no limit."""
    return read_memory(client).share
