"""Passing faults: temporary errors that Redis returns during a restart or a failover."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import redis

T = TypeVar("T")

# Redis 6.2 says them in mid-sentence where it refuses a script's command. redis-py leaves out the
# code where it has an exception for it.
_CODES = re.compile(
    r"(?:^|-)(?:MISCONF|NOREPLICAS|UNBLOCKED|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN) "
)
_KINDS = (
    redis.ConnectionError,  # so is LOADING to redis-py
    redis.TimeoutError,
    redis.exceptions.ClusterError,  # CLUSTERDOWN, MASTERDOWN
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
)


def passes(error: redis.RedisError) -> bool:
    """Whether it passes by itself, so that the step that met it is worth another try."""
    return isinstance(error, _KINDS) or _CODES.search(str(error)) is not None


def is_lost(error: redis.RedisError) -> bool:
    """Whether the step may have been done, and only its reply was lost."""
    return isinstance(error, (redis.ConnectionError, redis.TimeoutError))


def insist(
    step: Callable[[], T],
    pauses: Iterable[float],
    failed: Callable[[redis.RedisError], object] = lambda error: None,
    *,
    worth: Callable[[redis.RedisError], bool] = passes,
) -> T:
    """The reply of an idempotent step, tried once more after each pause, in seconds.

    Only a fault that is `worth` another try is retried; `failed` is told of each.
    """
    for pause in pauses:
        try:
            return step()
        except redis.RedisError as error:
            if not worth(error):
                raise
            failed(error)
        time.sleep(pause)
    return step()
