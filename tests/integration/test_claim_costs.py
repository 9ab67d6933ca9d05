"""What a claim costs where nothing is urgent: the commands that it runs in Redis, and no time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import redis
from stored import Bench, ids

from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.backlog import claim_all
from worker.types import Job, Lease

TENANTS = 30
BESIDE = {"auth", "client", "config", "evalsha", "hello", "info", "ping", "script", "select", "set"}
FRESH = {"exists": 3, "pttl": 1, "xinfo": 1, "xreadgroup": 1, "hmget": 1}
IN_HAND = {"exists": 2, "pttl": 1, "xinfo": 1, "xlen": 1}  # of others


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


@pytest.fixture
def commands(redis_client: redis.Redis) -> Callable[[], Counter[str]]:
    """What has run since it was last asked; of the connections and the heartbeat, nothing."""

    def ran() -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, said in redis_client.info("commandstats").items():
            counts[name.removeprefix("cmdstat_").partition("|")[0]] += said["calls"]
        redis_client.config_resetstat()
        return Counter({name: count for name, count in counts.items() if name not in BESIDE})

    return ran


def guests(benches: list[Bench], consumer: str) -> list[list[Lease]]:
    """What a batch of another collection is filled with."""
    backlogs = [bench.collection.backlog for bench in benches]
    return claim_all(backlogs, consumer, [1] * len(backlogs))


def times(count: int, each: dict[str, int]) -> dict[str, int]:
    return {name: count * calls for name, calls in each.items()}


def test_a_guest_costs_no_look_at_what_is_urgent_and_one_in_hand_no_read(
    settings: Settings, commands: Callable[[], Counter[str]]
) -> None:
    benches = [Bench(settings, f"tenant-{number}") for number in range(TENANTS)]
    for bench in benches:
        bench.add(("one", "text"))
    guests(benches[:1], "warm")  # the server knows the script
    benches[0].release("warm", end_slice=True)
    commands()
    assert sum(map(len, guests(benches[1:], "p:1"))) == TENANTS - 1
    assert commands() == times(TENANTS - 1, FRESH)
    assert guests(benches[1:], "p:2") == [[]] * (TENANTS - 1)
    assert commands() == times(TENANTS - 1, IN_HAND)


def test_a_claim_of_what_no_one_has_in_hand_costs_the_same_whatever_its_size(
    settings: Settings, commands: Callable[[], Counter[str]]
) -> None:
    bench = Bench(settings)
    bench.add(*[(str(number), f"text {number}") for number in range(100)])
    backlog = bench.collection.backlog
    backlog.keep_alive("p:1")
    commands()
    assert len(backlog.claim("p:1")) == 100
    assert commands() == FRESH


def test_a_guest_gets_again_what_it_holds_and_what_is_released(settings: Settings) -> None:
    bench = Bench(settings)
    bench.add(("one", "text"))
    for _ in range(2):  # the first reply was lost
        assert [ids(leases) for leases in guests([bench], "p:1")] == [["one"]]
    assert guests([bench], "p:2") == [[]]
    bench.release("p:1", end_slice=True)
    assert [ids(leases) for leases in guests([bench], "p:2")] == [["one"]]


def test_a_guest_gets_what_waits_behind_texts_in_hand(settings: Settings) -> None:
    bench = Bench(settings)
    bench.add(("one", "text"), ("two", "text"), ("three", "text"))
    assert ids(bench.claim("p:1", 2)) == ["one", "two"]
    assert [ids(leases) for leases in guests([bench], "p:2")] == [["three"]]


def test_an_entry_that_was_deleted_by_hand_hides_nothing_from_its_own_workers(
    settings: Settings, redis_client: redis.Redis
) -> None:
    bench = Bench(settings)
    bench.add(("one", "text"))
    (lease,) = bench.claim("p:1")
    redis_client.xdel(bench.collection.keys.jobs, lease.entry)
    bench.collection.adder().add([Job("two", "text")])
    backlog = bench.collection.backlog
    backlog.keep_alive("p:2")
    assert ids(backlog.claim("p:2")) == ["two"]


def test_an_urgent_text_that_a_claim_took_first_is_not_in_it_again(settings: Settings) -> None:
    bench = Bench(settings)
    adder = bench.collection.adder()
    for priority, names in (("bulk", ("b1", "b2")), ("interactive", ("now",)), ("bulk", ("b3",))):
        adder.priority = priority
        adder.add([Job(name, f"text {name}") for name in names])
    assert ids(bench.claim()) == ["now", "b1", "b2", "b3"]


def test_a_guest_reads_past_an_urgent_text_that_another_has_in_hand(settings: Settings) -> None:
    bench = Bench(settings)
    adder = bench.collection.adder()
    for priority, names in (("bulk", ("b1",)), ("interactive", ("now",)), ("bulk", ("b2",))):
        adder.priority = priority
        adder.add([Job(name, f"text {name}") for name in names])
    assert ids(bench.claim("p:1", 1)) == ["now"]
    backlog = bench.collection.backlog
    assert [ids(leases) for leases in claim_all([backlog], "p:2", [10])] == [["b1", "b2"]]
