"""Request statistics: counted in the process, and added to Redis once."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

import fakeredis
import pytest

from vector_embed_client import RateLimitError, ServerError, VectorEmbedError
from worker.monitor.requests import BOUNDS, Statistics, read_requests
from worker.store.connection import Redis


@pytest.fixture
def client(fake_redis: fakeredis.FakeRedis) -> Redis:
    return cast(Redis, fake_redis)


def count(statistics: Statistics, error: Exception | None = None, throttle: str = "t") -> None:
    with suppress(VectorEmbedError, KeyError), statistics.request(throttle):
        if error is not None:
            raise error


def test_requests_are_counted_by_how_they_end(client: Redis) -> None:
    statistics = Statistics()
    for error in (None, None, RateLimitError("wait", "rate_limited"), ServerError("oh", "broken")):
        count(statistics, error)
    statistics.tell(client, "vec")
    requests = read_requests(client, "vec", "t")
    assert requests.outcomes == {"ok": 2, "rate_limited": 1, "broken": 1}
    assert sum(requests.durations) == 4 and len(requests.durations) == len(BOUNDS) + 1
    assert 0 < requests.seconds < 60


def test_what_was_told_is_not_told_again_and_several_processes_add_up(client: Redis) -> None:
    one, other = Statistics(), Statistics()
    for statistics in (one, other):
        count(statistics)
        statistics.tell(client, "vec")
        statistics.tell(client, "vec")
    assert read_requests(client, "vec", "t").outcomes == {"ok": 2}


def test_throttles_and_prefixes_are_counted_apart(client: Redis) -> None:
    statistics = Statistics()
    count(statistics, throttle="one")
    count(statistics, throttle="two")
    statistics.tell(client, "vec")
    assert read_requests(client, "vec", "one").outcomes == {"ok": 1}
    assert read_requests(client, "other", "one").outcomes == {}


def test_a_request_that_was_broken_off_is_no_outcome(client: Redis) -> None:
    statistics = Statistics()
    count(statistics, KeyError("our own bug"))
    statistics.tell(client, "vec")
    assert read_requests(client, "vec", "t").outcomes == {}
