"""A wait asks again and again, also a Redis that goes away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Union

import pytest
import redis

from worker.store.waiter import AWAY_SECONDS, MOST_SECONDS, Patience, await_until, wait_until

GONE = redis.ConnectionError("Connection refused")
LOADING = redis.BusyLoadingError("loading")
REFUSED = redis.AuthenticationError("WRONGPASS")
WRONG = redis.ResponseError("WRONGTYPE Operation against a key")
Seen = Union[int, redis.RedisError]
Look = Callable[[], int]
IsOver = Callable[[int], bool]
Until = Callable[[Look, IsOver, "float | None"], int]


def in_a_loop(look: Look, is_over: IsOver, timeout: float | None) -> int:
    return asyncio.run(await_until(look, is_over, timeout))


@pytest.fixture(params=[wait_until, in_a_loop])
def until(request: pytest.FixtureRequest) -> Until:
    found: Until = request.param
    return found


def looks(*seen: Seen) -> tuple[Look, Iterator[Seen]]:
    """A look that sees these one after the other, and those that are still to come."""
    left = iter(seen)

    def look() -> int:
        one = next(left)
        if isinstance(one, redis.RedisError):
            raise one
        return one

    return look, left


@pytest.mark.parametrize(
    ("seen", "timeout"),
    [
        ((1, 2, 9), None),
        ((1, GONE, GONE, LOADING, 9), None),
        ((1, GONE, 2, GONE, 9), None),
        ((GONE, LOADING, 9), 60.0),
        ((1, GONE, 9), 60.0),
    ],
)
def test_a_redis_that_comes_back_ends_no_wait(
    until: Until, seen: tuple[Seen, ...], timeout: float | None
) -> None:
    look, left = looks(*seen)
    assert until(look, lambda one: one == 9, timeout) == 9
    assert not list(left)


@pytest.mark.parametrize(
    ("seen", "timeout"),
    [
        ((GONE,), None),  # as far as is known, it is the wrong address
        ((GONE,), 0.0),
        ((1, REFUSED), 60.0),
        ((1, WRONG), 60.0),
        ((1, WRONG), None),
        ((REFUSED,), 60.0),
    ],
)
def test_what_will_not_pass_or_has_no_time_is_raised_at_once(
    until: Until, seen: tuple[Seen, ...], timeout: float | None
) -> None:
    look, left = looks(*seen, 9)
    with pytest.raises(redis.RedisError) as raised:
        until(look, lambda one: one == 9, timeout)
    assert raised.value is seen[-1]
    assert list(left) == [9]


def test_a_redis_that_stays_away_ends_a_wait_when_its_time_is_over(until: Until) -> None:
    def look() -> int:
        raise GONE

    with pytest.raises(redis.ConnectionError, match="refused"):
        until(look, bool, 0.1)


def test_without_a_timeout_it_is_waited_for_for_a_minute() -> None:
    now = 0.0
    patience = Patience(None, lambda: now)
    now = 100.0
    assert patience.pause() == MOST_SECONDS
    now += AWAY_SECONDS - 0.1
    assert patience.failed(GONE) == MOST_SECONDS
    now += 0.1
    with pytest.raises(redis.ConnectionError):
        patience.failed(GONE)
    assert patience.pause() == MOST_SECONDS  # it has answered
    now += AWAY_SECONDS - 0.1
    assert patience.failed(GONE) == MOST_SECONDS


def test_with_a_timeout_it_is_waited_for_as_long_as_there_is_time() -> None:
    now = 0.0
    patience = Patience(1000.0, lambda: now)
    now = 999.5
    assert patience.failed(GONE) == 0.5
    now = 1000.0
    with pytest.raises(redis.ConnectionError):
        patience.failed(GONE)
