"""Queries go before the bulk, keep the fleet's limits, and starve nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import StartWorker
from faulty_api.limiter import Limiter
from faulty_api.vectors import expected_vector
from forking import in_child
from servers import API, API_KEY, TcpProxy, wait_until
from simulation import Fleet
from stored import Store

from vector_embed_client import ValidationError
from worker import NotSent, ThrottledAsyncClient, ThrottledClient, enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.connection import connect
from worker.store.keys import throttle_keys
from worker.throttle import Permit, Throttle, Wait

LIMITS: Mapping[str, Mapping[str, Any]] = {
    "slots": {"latency": 0.2},
    "many threads": {"latency": 0.2, "threads": 40},
    "a bucket": {"bucket": 20},
    "a slow bucket": {"bucket": 5},
    "a configured rate": {"per_second": 10.0},
}
SECONDS = 300


def passes(
    name: str, persons: int = 0, every: float = 1.0, *, urgent: bool = True
) -> tuple[int, list[float]]:
    """The requests that passed in some minutes, and how long each of the persons' took."""
    options = {**LIMITS[name]}
    bucket = options.pop("bucket", 0)
    limit = Limiter("bucket", bucket, 1.0).refusal if bucket else lambda now: None
    fleet = Fleet(limit, retry_after="seconds", seed=1, **options)
    fleet.go(100)
    before = len(fleet.run.passes)
    for _ in range(persons):
        fleet.person(every, urgent=urgent)
    fleet.go(SECONDS)
    return len(fleet.run.passes) - before, sorted(fleet.waits)


@pytest.mark.heavy
@pytest.mark.parametrize("name", LIMITS)
def test_a_person_waits_a_fraction_of_the_time_and_the_bulk_goes_on(name: str) -> None:
    alone, _ = passes(name)
    _, waits = passes(name, 1, urgent=False)
    beside, urgent = passes(name, 1)
    assert beside >= 0.97 * alone, "with those of the person"
    assert len(urgent) > 0.7 * SECONDS
    middle, late = len(urgent) // 2, int(0.99 * len(urgent))
    assert urgent[middle] < 0.7 * waits[len(waits) // 2]
    assert urgent[late] < 0.5 * waits[int(0.99 * len(waits))]
    if name in ("slots", "many threads"):
        assert urgent[late] < 2 * 0.2


@pytest.mark.heavy
@pytest.mark.parametrize("persons", [16, 150])
@pytest.mark.parametrize("name", ["slots", "a bucket", "a configured rate"])
def test_a_flood_of_urgent_requests_does_not_starve_the_bulk(name: str, persons: int) -> None:
    alone, _ = passes(name)
    beside, urgent = passes(name, persons, every=0.01)
    assert beside >= 0.9 * alone
    assert beside - len(urgent) >= SECONDS / 2, "the bulk has a request every other second at least"


@pytest.mark.heavy
def test_one_who_asked_and_died_costs_a_moment() -> None:
    fleet = Fleet(latency=0.2, seed=1)
    fleet.go(10)
    before = len(fleet.run.passes)
    fleet.go(10)
    undisturbed = len(fleet.run.passes) - before
    fleet.state.urgent_from, fleet.state.urgent_until = fleet.now * 1000, fleet.now * 1000 + 300
    fleet.go(10)
    assert len(fleet.run.passes) - before - undisturbed > 0.95 * undisturbed


@pytest.fixture
def settings(redis_server: RedisServer, api: API) -> Settings:
    return Settings(
        api_key=API_KEY,
        base_url=api.base_url,
        redis_url=redis_server.url,
        broker_url=redis_server.url,
        max_in_flight=3,
    )


def test_a_query_has_the_vector_of_its_text(settings: Settings, api: API) -> None:
    client = ThrottledClient(settings)
    one = client.embed("a text")
    assert (one.vector, one.cached, one.dimensions) == (expected_vector("a text"), False, 768)
    texts = [f"text {number}" for number in range(100)]
    answers = client.embed_batch(text for text in texts)
    assert [answer.vector for answer in answers] == [expected_vector(text) for text in texts]
    assert api.log().requests == 2
    assert API_KEY not in repr(client) and "nomic" in repr(client)


def test_what_cannot_be_sent_is_refused_before_it_is(settings: Settings, api: API) -> None:
    client = ThrottledClient(settings)
    for wrong in ("", "x" * 10_001, 7):
        with pytest.raises(ValidationError):
            client.embed(wrong)  # type: ignore[arg-type]
    for batch in ([], ["text"] * 101, "text", ["good", ""]):
        with pytest.raises(ValidationError):
            client.embed_batch(batch)
    assert api.log().requests == 0
    with pytest.raises(ValueError, match="VECTOR_EMBED_API_KEY is not set"):
        ThrottledClient(Settings(redis_url=settings.redis_url))


def test_it_keeps_the_pause_and_the_halt_of_the_fleet(settings: Settings, api: API) -> None:
    throttle = Throttle(settings, settings.model)
    client = ThrottledClient(settings, patience=0.2)
    client.embed("a text")
    permit = throttle.ask()
    throttle.deferred(permit, 60.0, "slow down")  # type: ignore[arg-type]
    with pytest.raises(NotSent, match="slow down"):
        client.embed("another")
    throttle.halted(permit, "the key was revoked", of_key=True)  # type: ignore[arg-type]
    with pytest.raises(NotSent, match="the key was revoked"):
        client.embed("another")
    assert api.log().requests == 1


def test_a_redis_that_goes_away_is_waited_for_as_long_as_there_is_patience(
    settings: Settings, api: API, proxy: Callable[[str], TcpProxy]
) -> None:
    redis_server = proxy(settings.redis_url)
    settings = replace(settings, redis_url=redis_server.url)
    client = ThrottledClient(settings)
    client.embed("a text")
    redis_server.refuse()
    back = threading.Timer(0.5, redis_server.refuse, [False])
    back.start()
    assert client.embed("another").vector == expected_vector("another")
    back.join()
    redis_server.refuse()
    with pytest.raises(redis.ConnectionError):
        ThrottledClient(settings, patience=0.3).embed("a third")
    assert api.log().texts == 2


def test_a_read_only_redis_is_not_waited_for(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.query.Patience.failed", None)
    redis_client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    try:
        answer = ThrottledClient(settings).embed("a text")
    finally:
        redis_client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
    assert answer.vector == expected_vector("a text")


def test_where_only_less_may_be_sent_a_batch_is_several_requests(
    settings: Settings, api: API, redis_client: redis.Redis
) -> None:
    client = ThrottledClient(settings)
    client.embed("a text")
    throttle = Throttle(settings, settings.model)
    limited = {"timely": "30", "trial_at": "1e15", "trial_wait": "1e9"}
    for field, value in limited.items():
        redis_client.hset(throttle._keys.model, field, value)
    answers = client.embed_batch([f"text {number}" for number in range(100)])
    assert [one.vector for one in answers] == [expected_vector(f"text {n}") for n in range(100)]
    assert [texts for _, _, texts, _ in api.log().recent][:2] == [1, 30]
    assert not flights(settings, redis_client)


def test_the_first_batch_of_a_key_is_two_requests_and_keeps_no_permit(
    settings: Settings, api: API, redis_client: redis.Redis
) -> None:
    ThrottledClient(settings).embed_batch([f"text {number}" for number in range(100)])
    assert [texts for _, _, texts, _ in api.log().recent] == [1, 99]
    assert not flights(settings, redis_client)


def flights(settings: Settings, client: redis.Redis) -> list[bytes]:
    """The permits of requests that have no answer."""
    key = Throttle(settings, settings.model)._keys.flights
    found: Any = client.zrange(key, 0, -1, withscores=True)
    return [permit for permit, end in found if end < 10**15]


def test_a_query_that_waits_is_urgent_and_its_patience_has_an_end(
    settings: Settings, api: API, redis_client: redis.Redis
) -> None:
    throttle = Throttle(settings, settings.model)
    ThrottledClient(settings).embed("a text")
    taken = [throttle.ask() for _ in range(3)]
    begun = time.monotonic()
    for patience in (0.0, 0.3):
        with pytest.raises(NotSent, match="nothing can be sent now: others are before it"):
            ThrottledClient(settings, patience=patience).embed("another")
    assert time.monotonic() - begun < 5
    assert redis_client.hexists(throttle._keys.key, "urgent_until")
    for permit in taken:
        throttle.unused(permit)  # type: ignore[arg-type]
    wait_until(lambda: isinstance(throttle.ask(), Permit), 5, "it to be forgotten")


def test_a_query_that_waits_for_its_model_alone_holds_up_no_other_model(
    settings: Settings, redis_client: redis.Redis
) -> None:
    bulk = Throttle(settings, settings.model)
    bulk.passed(bulk.ask())  # type: ignore[arg-type]
    other = Throttle(settings, "nomic-v2-moe", urgent=True)
    assert isinstance(other.ask(), Permit)  # its first request
    assert isinstance(Throttle(settings, "nomic-v2-moe", urgent=True).ask(), Wait)
    assert not redis_client.hexists(bulk._keys.key, "urgent_until")
    assert isinstance(bulk.ask(), Permit)


def test_a_key_that_is_rotated_is_used_at_once(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("vec_first")
    client = ThrottledClient(replace(settings, api_key_file=str(file), api_key="vec_first"))
    client.embed("a text")
    file.write_text("vec_second")
    client.embed("another")
    keys = {Throttle(replace(settings, api_key=key), "nomic-v1.5").name for key in KEYS}
    with_state = [name for name in keys if _is_begun(settings, name)]
    assert len(with_state) == 2


KEYS = ("vec_first", "vec_second")


def _is_begun(settings: Settings, name: str) -> bool:
    key = throttle_keys("vec", name).key
    return connect(settings).hget(key, "begun") == b"1"


async def test_a_child_of_a_process_that_has_used_it_may_use_it_too(
    settings: Settings, api: API
) -> None:
    async with ThrottledAsyncClient(settings) as client:
        await client.embed("a text")

        def ask() -> None:
            assert asyncio.run(client.embed("of the child")).dimensions == 768

        assert in_child(ask) == 0


def test_a_failure_that_passes_is_tried_again(settings: Settings, api: API) -> None:
    client = ThrottledClient(settings)
    client.embed("a text")
    api.faults(rules=[{"answer": "error", "times": 1}])
    assert client.embed("another").vector == expected_vector("another")


async def test_a_hundred_queries_at_once_share_the_slots_of_the_fleet(
    settings: Settings, api: API
) -> None:
    api.faults(latency=0.02)
    async with ThrottledAsyncClient(settings) as client:
        texts = [f"text {number}" for number in range(100)]
        answers = await asyncio.gather(*map(client.embed, texts))
        assert [one.vector for one in answers] == [expected_vector(text) for text in texts]
        (one,) = await client.embed_batch(["one"])
        assert one.vector == expected_vector("one")
        assert len([one for one in threading.enumerate() if one.name.startswith("query_")]) <= 3
    assert api.log().most_in_flight <= 3
    assert not [one for one in threading.enumerate() if one.name.startswith("query_")]


def test_a_query_is_answered_beside_a_bulk_that_fills_all_slots(
    settings: Settings, api: API, worker_process: StartWorker
) -> None:
    api.faults(latency=0.2)
    enqueue([f"bulk {number}" for number in range(6_000)], "wiki", settings=settings)
    worker_process(VECTOR_EMBED_MAX_IN_FLIGHT="3")
    wiki = Store("wiki", settings=settings)
    wait_until(lambda: wiki.status().embedded > 300, 30, "some of the bulk")
    client = ThrottledClient(settings)
    for number in range(3):
        assert client.embed(f"query {number}").vector == expected_vector(f"query {number}")
    assert wiki.status().backlog, "the bulk was not done with before"
    assert api.log().most_in_flight <= 3
