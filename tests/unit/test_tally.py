"""The tally: requests counted in the process, told to Redis once, told of truly."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import fakeredis
import pytest

from vector_embed_client import RateLimitError, ServerError, VectorEmbedError
from worker.monitor.requests import BOUNDS, Tally, read_requests
from worker.store.connection import Redis


@pytest.fixture
def client(fake_redis: fakeredis.FakeRedis) -> Redis:
    return cast(Redis, fake_redis)


def count(tally: Tally, error: Exception | None = None, throttle: str = "t") -> None:
    with suppress(VectorEmbedError, KeyError), tally.request(throttle):
        if error is not None:
            raise error


def test_requests_are_counted_by_how_they_end(client: Redis) -> None:
    tally = Tally()
    for error in (None, None, RateLimitError("wait", "rate_limited"), ServerError("oh", "broken")):
        count(tally, error)
    tally.tell(client, "vec")
    requests = read_requests(client, "vec", "t")
    assert requests.outcomes == {"ok": 2, "rate_limited": 1, "broken": 1}
    assert sum(requests.durations) == 4 and len(requests.durations) == len(BOUNDS) + 1
    assert 0 < requests.seconds < 60


def test_what_was_told_is_not_told_again_and_several_processes_add_up(client: Redis) -> None:
    one, other = Tally(), Tally()
    for tally in (one, other):
        count(tally)
        tally.tell(client, "vec")
        tally.tell(client, "vec")
    assert read_requests(client, "vec", "t").outcomes == {"ok": 2}


def test_throttles_and_prefixes_are_counted_apart(client: Redis) -> None:
    tally = Tally()
    count(tally, throttle="one")
    count(tally, throttle="two")
    tally.tell(client, "vec")
    assert read_requests(client, "vec", "one").outcomes == {"ok": 1}
    assert read_requests(client, "other", "one").outcomes == {}


def test_a_request_that_was_broken_off_is_no_outcome(client: Redis) -> None:
    tally = Tally()
    count(tally, KeyError("our own bug"))
    tally.tell(client, "vec")
    assert read_requests(client, "vec", "t").outcomes == {}
