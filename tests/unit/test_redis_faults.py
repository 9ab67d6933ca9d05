"""Which faults of Redis pass by themselves."""

from __future__ import annotations

import time

import pytest
import redis
from redis.exceptions import ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError

from worker.store.faults import outlast, passes


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (redis.ConnectionError("Connection refused"), True),
        (redis.TimeoutError("Timeout reading from socket"), True),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
        (MasterDownError("Link with MASTER is down"), True),
        (ClusterDownError("The cluster is down"), True),
        (TryAgainError("Multiple keys request during rehashing of slot"), True),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (redis.ResponseError("UNBLOCKED force unblock from blocking operation"), True),
        (redis.ResponseError("BUSY Redis is busy running a script."), True),
        (redis.ResponseError("Error running script: @user_script: 5: -READONLY You can't"), True),
        (redis.ResponseError("WRONGTYPE Operation against a key"), False),
        (redis.ResponseError("ERR unknown command 'BUSY x'"), False),
        (redis.exceptions.OutOfMemoryError("command not allowed"), False),
        (redis.exceptions.NoPermissionError("this user has no permissions"), False),
    ],
)
def test_what_a_restart_or_a_failover_answers_passes(
    error: redis.RedisError, passing: bool
) -> None:
    assert passes(error) is passing


def test_a_redis_that_is_away_is_asked_again_for_as_long_as_is_said() -> None:
    asked = []

    def step() -> None:
        asked.append(time.monotonic())
        raise redis.ConnectionError("refused")

    with pytest.raises(redis.ConnectionError):
        outlast(step, 0.35)
    assert 2 < len(asked) < 6 and 0.35 <= asked[-1] - asked[0] < 2
    asked.clear()
    with pytest.raises(redis.ConnectionError):
        outlast(step, 0)
    assert len(asked) == 1
