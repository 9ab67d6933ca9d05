"""Passing faults: what a Redis answers in a restart or a failover, and not for long."""

from __future__ import annotations

import re

import redis

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
