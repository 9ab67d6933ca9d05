"""Parts: the parts of one round of the heartbeat or the pump that need Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import redis

from ..store.connection import Redis, is_cluster

T = TypeVar("T")


class Parts:
    """Does the parts of a round, each by `part`, which logs its failure.

    A Redis that is away ends the round. Of a cluster, one node may be away, and what the others
    have does not wait for it: the other parts are still done, and then `check` raises.
    """

    def __init__(self, client: Redis, part: Callable[[str, Callable[[], object]], object]) -> None:
        self._is_cluster = is_cluster(client)
        self._part = part
        self._fault: redis.RedisError | None = None

    def do(self, what: str, step: Callable[[], T]) -> T | None:
        """Do one part; None if it fails."""
        done: list[T] = []
        try:
            self._part(what, lambda: done.append(step()))
        except (redis.ConnectionError, redis.TimeoutError) as fault:
            if not self._is_cluster:
                raise
            self._fault = fault
        return done[0] if done else None

    def check(self) -> None:
        """Raise if a node was away."""
        if self._fault is not None:
            raise self._fault
