"""A collection's steps, one by one, on a real redis-server: the ledger is exact after each."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol, TypeVar, cast
from uuid import uuid4

import pytest
import redis
from forking import in_child
from hypothesis import HealthCheck, note
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis.crc import key_slot
from servers import wait_until

from worker.collection import (
    CHUNK_SIZE,
    DROP_SIZE,
    EVICT_SIZE,
    LEASE_SECONDS,
    PAGE_SIZE,
    WAKEUP_EXPIRY,
    Added,
    Adder,
    Chunk,
    Collection,
    CollectionError,
    Committed,
    DimensionsDiffer,
    Dropped,
    Embedded,
    ExportedByAnother,
    Lease,
    Place,
    Refused,
    Status,
    announce_backlogs,
    busy_collections,
    collection_names,
)
from worker.local.redis_server import RedisServer
from worker.monitor.fleet import (
    WORKER_SECONDS,
    Work,
    Worker,
    announce_worker,
    forget_worker,
    read_fleet,
    workers_alive,
)
from worker.settings import Settings
from worker.store.connection import Step, connect
from worker.throttle import Permit, Throttle
from worker.types import Job, Record, text_digest


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url, model="m")


@pytest.fixture
def real_settings(settings: Settings) -> Settings:
    return settings


def vector_of(text: str, dimensions: int = 2) -> bytes:
    """A vector that belongs to this text alone."""
    number = int.from_bytes(text_digest(text)[:2], "big")
    return struct.pack(f"<{dimensions}f", *[float(number + 1)] * dimensions)


def check_ledger(status: Status) -> Status:
    """The one equation that holds at every moment."""
    parts = status.embedded + status.evicted + status.dead + status.pending + status.leased
    assert status.enqueued == parts, status
    assert min(status.pending, status.leased, status.embedded, status.dead) >= 0, status
    return status


class Bench:
    """A collection whose ledger is checked after every step."""

    def __init__(self, settings: Settings, name: str = "wiki") -> None:
        self.settings = settings
        self.collection = Collection(name, settings=settings)
        self.redis = connect(settings)
        self._adders: dict[str, Adder] = {}

    @property
    def status(self) -> Status:
        return check_ledger(self.collection.status())

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Embedded, dead, pending and leased."""
        status = self.status
        return status.embedded, status.dead, status.pending, status.leased

    def add(self, *pairs: tuple[str, str], run: str = "", resend: bool = False) -> Added:
        """One chunk of (id, text); adds of the same `run` are one producer's."""
        if not resend:
            adder = self._adders.setdefault(run or uuid4().hex, self.collection.adder())
            self._chunk = adder.chunk([Job(id, text) for id, text in pairs])
            self._chunk.send()
        added, _ = self._chunk.answer()
        check_ledger(self.collection.status())
        return added

    def claim(
        self,
        consumer: str = "c",
        count: int = 100,
        *,
        alive: bool = True,
        take_over: bool = True,
        living: Sequence[str] = (),
    ) -> list[Lease]:
        if alive:
            self.collection.keep_alive(consumer)
        leases = self.collection.claim(consumer, count, take_over=take_over, living=living)
        check_ledger(self.collection.status())
        return leases

    def commit(
        self, embedded: Sequence[Lease], refused: Sequence[Lease] = (), *, keep_text: bool = False
    ) -> Committed:
        committed = self.collection.commit(
            [Embedded(lease, vector_of(lease.job.text), False) for lease in embedded],
            [Refused(lease, "poison", "the API refuses it") for lease in refused],
            keep_text=keep_text,
        )
        check_ledger(self.collection.status())
        return committed

    def release(
        self, consumer: str = "c", failed: Sequence[Lease] = (), *, end_slice: bool = False
    ) -> int:
        released = self.collection.release(consumer, failed, end_slice=end_slice)
        check_ledger(self.collection.status())
        return released

    def retry(self, ids: Sequence[str] | None = None) -> int:
        put_back = self.collection.retry(ids)
        check_ledger(self.collection.status())
        return put_back

    def kill(self, consumer: str) -> None:
        """Its heartbeat has expired."""
        self.redis.delete(f"vec:{{{self.collection.name}}}:alive:{consumer}")

    def embed_all(self, *, refuse: Sequence[str] = ()) -> None:
        """Work until nothing is left; texts in `refuse` are refused."""
        while leases := self.claim("all"):
            bad = [lease for lease in leases if lease.job.text in refuse]
            self.commit([lease for lease in leases if lease not in bad], bad)
        self.release("all", end_slice=True)

    def stored(self) -> dict[str, bytes]:
        return {record.id: record.data for record in self.collection}


@pytest.fixture
def bench(settings: Settings) -> Bench:
    return Bench(settings)


def ids(leases: Sequence[Lease]) -> list[str]:
    return [lease.job.id for lease in leases]


def pairs(count: int, text: str = "text") -> list[tuple[str, str]]:
    return [(f"id{number}", f"{text} {number}") for number in range(count)]


# Add


def test_new_and_unchanged_texts_are_counted(bench: Bench) -> None:
    assert bench.add(*pairs(3)) == Added(new=3, unchanged=0, duplicates=0, dead=0)
    assert bench.add(*pairs(3)) == Added(new=0, unchanged=3, duplicates=0, dead=0)
    assert bench.add(*pairs(4)) == Added(new=1, unchanged=3, duplicates=0, dead=0)
    assert (bench.status.enqueued, bench.status.unchanged, bench.status.model) == (4, 6, "m")


@pytest.mark.parametrize("where", ["queued", "leased", "stored"])
def test_the_same_text_is_unchanged_wherever_it_is(bench: Bench, where: str) -> None:
    bench.add(("a", "text"))
    leases = bench.claim() if where != "queued" else []
    if where == "stored":
        bench.commit(leases)
    before = bench.counts
    assert bench.add(("a", "text")) == Added(new=0, unchanged=1, duplicates=0, dead=0)
    assert bench.counts == before


def test_a_chunk_sent_again_gets_its_first_answer_and_counts_once(bench: Bench) -> None:
    first = bench.add(*pairs(3), ("id0", "later"), run="p")
    assert first == Added(new=3, unchanged=0, duplicates=1, dead=0)
    assert bench.add(*pairs(3), ("id0", "later"), run="p", resend=True) == first
    assert bench.status.enqueued == 3
    # Even when all of it was done in the meantime.
    bench.embed_all()
    assert bench.add(*pairs(3), ("id0", "later"), run="p", resend=True) == first
    assert bench.counts == (3, 0, 0, 0)


def test_the_next_chunk_of_a_run_is_not_taken_for_the_last_one_again(bench: Bench) -> None:
    bench.add(*pairs(2), run="p")
    assert bench.add(("x", "new"), run="p").new == 1
    assert bench.add(("y", "new"), run="p").new == 1


def test_within_a_chunk_the_last_text_of_an_id_wins(bench: Bench) -> None:
    added = bench.add(("a", "one"), ("b", "other"), ("a", "two"), ("a", "three"))
    assert added == Added(new=2, unchanged=0, duplicates=2, dead=0)
    bench.embed_all()
    assert bench.stored() == {"a": vector_of("three"), "b": vector_of("other")}


@pytest.mark.parametrize("first_one", ["queued", "leased", "stored"])
def test_across_the_chunks_of_a_run_the_last_text_of_an_id_wins(
    bench: Bench, first_one: str
) -> None:
    assert bench.add(("a", "one"), run="p").new == 1
    if first_one != "queued":
        leases = bench.claim()
        if first_one == "stored":
            bench.commit(leases)
    assert bench.add(("a", "two"), run="p") == Added(new=0, unchanged=0, duplicates=1, dead=0)
    if first_one == "leased":
        assert bench.commit(leases) == Committed(stored=0, dead=0, superseded=1, fenced=0)
    bench.embed_all()
    assert bench.stored() == {"a": vector_of("two")}
    assert bench.status.enqueued == 1


def test_a_repeated_line_in_a_later_chunk_is_a_duplicate(bench: Bench) -> None:
    bench.add(("a", "one"), run="p")
    assert bench.add(("a", "one"), run="p") == Added(new=0, unchanged=0, duplicates=1, dead=0)
    bench.embed_all()
    assert bench.add(("a", "one"), run="p") == Added(new=0, unchanged=0, duplicates=1, dead=0)
    assert bench.add(("a", "one"), run="q") == Added(new=0, unchanged=1, duplicates=0, dead=0)


@pytest.mark.parametrize("detour", ["queued", "leased"])
def test_a_text_that_came_back_to_the_stored_one_costs_no_request(
    bench: Bench, detour: str
) -> None:
    bench.add(("a", "home"))
    bench.embed_all()
    bench.add(("a", "away"))
    away = bench.claim() if detour == "leased" else []
    bench.add(("a", "home"))
    assert bench.claim("other") == []
    if away:
        assert bench.commit(away) == Committed(stored=0, dead=0, superseded=1, fenced=0)
    assert bench.counts == (1, 0, 0, 0)
    assert bench.stored() == {"a": vector_of("home")}


def test_a_dead_text_stays_dead_and_unpaid(bench: Bench) -> None:
    bench.add(("a", "bad"), ("b", "good"))
    bench.embed_all(refuse=["bad"])
    added = bench.add(("a", "bad"), ("b", "good"))
    assert added == Added(new=0, unchanged=1, duplicates=0, dead=1)
    assert bench.counts == (1, 1, 0, 0)


def test_another_text_under_a_dead_id_clears_the_dead_letter(bench: Bench) -> None:
    bench.add(("a", "bad"))
    bench.embed_all(refuse=["bad"])
    added = bench.add(("a", "good"))
    assert added == Added(new=1, unchanged=0, duplicates=0, dead=0, replacing=1)
    assert bench.counts == (0, 0, 1, 0)
    bench.embed_all()
    assert bench.counts == (1, 0, 0, 0)
    assert bench.status.enqueued == 1


def test_vectors_of_two_models_never_meet_in_one_collection(bench: Bench) -> None:
    bench.add(*pairs(2))
    with pytest.raises(CollectionError, match="wiki has vectors of model m, not other: name"):
        bench.collection.adder("other").add([Job("z", "text")])
    assert bench.counts == (0, 0, 2, 0)
    assert bench.collection.model == "m"


def test_a_full_chunk_goes_in_and_comes_out_whole(bench: Bench) -> None:
    texts = pairs(CHUNK_SIZE)
    assert bench.add(*texts).new == CHUNK_SIZE
    bench.embed_all()
    assert bench.stored() == {id: vector_of(text) for id, text in texts}
    assert [record.id for record in bench.collection] == [id for id, _ in texts]


@pytest.mark.parametrize("id", ["", " ", "a b", "{x}", "é\U0001f600", "a:b", "a\nb\0c", "x" * 5000])
def test_any_string_is_an_id(bench: Bench, id: str) -> None:
    bench.add((id, "text"))
    bench.embed_all()
    record = bench.collection.get(id)
    assert record is not None
    assert (record.id, record.data) == (id, vector_of("text"))


# Claim


def test_what_a_lost_answer_leased_is_given_again_first(bench: Bench) -> None:
    bench.add(*pairs(6))
    lost = bench.claim("c", 2)
    assert bench.claim("c", 4)[:2] == lost
    assert bench.counts == (0, 0, 2, 4)


def test_own_then_released_then_orphaned_then_new_ones_are_claimed(bench: Bench) -> None:
    bench.add(*pairs(8))
    bench.claim("orphaned", 2)
    bench.claim("tired", 2)
    bench.claim("own", 2)
    bench.release("tired", end_slice=True)
    bench.kill("orphaned")
    leases = bench.claim("own", 8)
    assert ids(leases) == ["id4", "id5", "id2", "id3", "id0", "id1", "id6", "id7"]
    assert [lease.lost for lease in leases] == [0, 0, 0, 0, 1, 1, 0, 0]
    assert bench.claim("another") == []


def test_a_live_consumer_is_not_robbed(bench: Bench) -> None:
    bench.add(*pairs(4))
    held = bench.claim("slow", 3)
    assert ids(bench.claim("quick")) == ["id3"]
    assert bench.claim("quick", 100)[1:] == []
    assert bench.commit(held).stored == 3


def test_a_heartbeat_expires_and_can_be_renewed(bench: Bench) -> None:
    bench.collection.keep_alive("c")
    key = f"vec:{{{bench.collection.name}}}:alive:c"
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.expire(key, 1000)
        bench.collection.keep_alive("c")
        assert 0 < client.ttl(key) <= LEASE_SECONDS


def test_a_claim_is_topped_up_past_superseded_and_stored_texts(bench: Bench) -> None:
    bench.add(*pairs(10))
    bench.embed_all()
    bench.add(*pairs(10, "away"))
    bench.add(*pairs(10))  # all back to what is stored
    bench.add(("id3", "third"), ("x", "new"), ("y", "new"), ("z", "new"))
    leases = bench.claim("c", 3)
    assert [lease.job[:2] for lease in leases] == [("id3", "third"), ("x", "new"), ("y", "new")]
    assert bench.counts == (10, 0, 1, 3)


def test_superseded_texts_that_were_released_or_orphaned_leave_unpaid(bench: Bench) -> None:
    bench.add(*pairs(6))
    bench.claim("tired", 2)
    bench.claim("orphaned", 2)
    bench.add(*pairs(4, "second"))
    bench.release("tired", end_slice=True)
    bench.kill("orphaned")
    assert ids(bench.claim("c", 6)) == ["id4", "id5", "id0", "id1", "id2", "id3"]
    assert bench.status.enqueued == 6


def test_all_orphans_are_found_behind_many_leases_of_the_living(bench: Bench) -> None:
    bench.add(*pairs(1000))
    for number in range(4):
        bench.claim(f"a-living-{number}", 200)
    lost = bench.claim("b-dead", 200)
    bench.kill("b-dead")
    found: list[Lease] = []
    while leases := bench.claim("c", 70):
        found += leases
        bench.commit(leases)
    assert ids(found) == ids(lost)
    assert bench.counts == (200, 0, 0, 800)


def test_every_orphan_of_many_dead_is_claimed_and_counted_as_lost(bench: Bench) -> None:
    bench.add(*pairs(30))
    for number in range(10):
        bench.claim(f"dead-{number}", 3)
    for number in range(10):
        bench.kill(f"dead-{number}")
    leases = bench.claim("c", 100)
    assert sorted(ids(leases)) == sorted(id for id, _ in pairs(30))
    assert {lease.lost for lease in leases} == {1}


def make_suspect(bench: Bench) -> None:
    """Two owners of all that is queued die, and somebody has seen it."""
    for consumer in ("first", "second"):
        bench.claim(consumer)
        bench.kill(consumer)
    bench.claim("heir")
    bench.release("heir", end_slice=True)


def claim_suspects(bench: Bench, consumer: str = "c") -> list[Lease]:
    bench.collection.keep_alive(consumer)
    leases = bench.collection.claim(consumer, suspects=True)
    check_ledger(bench.collection.status())
    return leases


def test_texts_whose_owners_died_twice_are_leased_to_those_alone_who_ask_for_them(
    bench: Bench,
) -> None:
    bench.add(*pairs(12))
    make_suspect(bench)
    bench.add(("new", "text"))
    assert ids(bench.claim()) == ["new"]
    assert bench.collection.holds_back()
    some = claim_suspects(bench)
    assert ids(some) == [id for id, _ in pairs(10)]
    bench.commit(some)
    assert ids(claim_suspects(bench)) == ["id10", "id11"]
    assert not bench.collection.holds_back()


def test_texts_whose_owners_died_thrice_are_leased_alone_those_that_died_least_first(
    bench: Bench,
) -> None:
    bench.add(*pairs(13))
    make_suspect(bench)
    assert len(claim_suspects(bench, "dies")) == 10
    bench.kill("dies")
    assert bench.claim() == []
    bench.commit(claim_suspects(bench))
    assert ids(claim_suspects(bench, "dies")) == ["id0"]
    bench.kill("dies")
    assert bench.claim() == []
    claims = []
    while leases := claim_suspects(bench):
        claims.append([(lease.job.id, lease.lost) for lease in leases])
        bench.commit(leases)
    assert claims == [[(f"id{n}", 3)] for n in range(1, 10)] + [[("id0", 4)]]


def test_a_suspect_text_that_leaves_unpaid_hides_no_work_behind_it(bench: Bench) -> None:
    bench.add(("a", "home"))
    bench.embed_all()
    bench.add(("a", "away"), ("b", "text"))
    make_suspect(bench)
    bench.add(("a", "home"))
    assert bench.claim() == []
    assert ids(claim_suspects(bench)) == ["b"]


def test_suspect_texts_whose_claim_was_lost_are_given_again_and_no_others(bench: Bench) -> None:
    bench.add(("a", "text"))
    make_suspect(bench)
    assert bench.claim("b") == []
    lost = claim_suspects(bench)
    assert ids(lost) == ["a"]
    bench.add(*pairs(3))
    assert claim_suspects(bench) == lost


def test_a_living_consumer_of_the_same_process_is_never_taken_for_dead(bench: Bench) -> None:
    bench.add(*pairs(3))
    held = bench.claim("host:1:x:1")
    bench.kill("host:1:x:1")
    assert bench.claim("host:1:x:2", living=["host:1:x:1", "host:1:x:2"]) == []
    assert bench.commit(held[:1]).stored == 1
    assert [lease.lost for lease in bench.claim("host:1:y:1")] == [1, 1]


@pytest.mark.parametrize("judges", [True, False])
def test_what_an_ended_consumer_of_the_same_process_holds_is_taken_over_and_killed_nobody(
    bench: Bench, judges: bool
) -> None:
    bench.add(*pairs(3))
    bench.claim("host:1:x:1", 2)
    bench.claim("host:1:x:2", 1)
    bench.kill("host:1:x:1")
    living = ["host:1:x:2", "host:1:x:3"]
    found = bench.claim("host:1:x:3", living=living, take_over=judges)
    assert [(lease.job.id, lease.lost) for lease in found] == [("id0", 0), ("id1", 0)]


def test_a_consumer_of_the_same_process_that_just_opened_is_not_taken_for_an_ended_one(
    bench: Bench,
) -> None:
    bench.add(*pairs(3))
    bench.claim("host:1:x:2", 2)  # after the other looked which ones there are
    assert ids(bench.claim("host:1:x:1", living=["host:1:x:1"])) == ["id2"]


def test_a_claim_that_arrives_when_its_slice_has_ended_leases_nothing(bench: Bench) -> None:
    bench.add(*pairs(3))
    bench.claim("late", 1)
    bench.release("late", end_slice=True)
    assert bench.claim("late", alive=False) == []
    assert bench.counts == (0, 0, 3, 0)
    assert len(bench.claim("another")) == 3


def test_who_does_not_judge_takes_over_from_nobody(bench: Bench) -> None:
    bench.add(*pairs(3))
    bench.claim("dead")
    bench.kill("dead")
    assert bench.claim("c", take_over=False) == []
    assert len(bench.claim("c")) == 3


def test_a_lease_is_kept_up_and_its_vectors_are_stored_while_redis_is_full(
    real_settings: Settings, redis_client: redis.Redis
) -> None:
    bench = Bench(real_settings)
    bench.add(*pairs(3))
    leases = bench.claim()
    key = "vec:{wiki}:alive:c"
    redis_client.pexpire(key, 1000)
    redis_client.config_set("maxmemory", 1)
    try:
        bench.collection.keep_alive("c")
        assert redis_client.pttl(key) > 10_000
        # What is in hand has been paid for, and is let in.
        assert bench.commit(leases[:1], leases[1:2]).stored == 1
        assert bench.release("c", leases[2:], end_slice=True) == 1
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            bench.add(("more", "text"))
    finally:
        redis_client.config_set("maxmemory", 0)
    assert bench.counts == (1, 1, 1, 0)


def test_nothing_is_claimed_where_nothing_was_added(bench: Bench) -> None:
    assert bench.claim() == []
    assert bench.release(end_slice=True) == 0
    assert bench.collection.wake(8) == []
    assert bench.counts == (0, 0, 0, 0)


def test_a_redis_that_lost_everything_is_survived(bench: Bench) -> None:
    bench.add(*pairs(3), run="p")
    leases = bench.claim("c", 2)
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.flushall()
    assert bench.commit(leases) == Committed(stored=0, dead=0, superseded=0, fenced=2)
    assert bench.release(end_slice=True) == 0
    assert bench.claim() == []
    assert bench.add(*pairs(3), run="p").new == 3
    bench.embed_all()
    assert bench.counts == (3, 0, 0, 0)


def test_a_server_that_forgot_the_steps_is_sent_them_again(real_settings: Settings) -> None:
    bench = Bench(real_settings)
    bench.add(*pairs(3))
    with redis.Redis.from_url(real_settings.redis_url) as client:
        client.script_flush()
    bench.embed_all()
    assert bench.counts == (3, 0, 0, 0)


# Commit


def test_of_two_finishers_the_first_one_counts(bench: Bench) -> None:
    bench.add(*pairs(3))
    frozen = bench.claim("frozen")
    bench.kill("frozen")
    taken = bench.claim("c")
    assert bench.commit(taken) == Committed(stored=3, dead=0, superseded=0, fenced=0)
    assert bench.commit(frozen) == Committed(stored=0, dead=0, superseded=0, fenced=3)
    assert bench.counts == (3, 0, 0, 0)


def test_a_consumer_given_up_for_dead_may_still_finish_first(bench: Bench) -> None:
    bench.add(*pairs(3))
    frozen = bench.claim("frozen")
    bench.kill("frozen")
    taken = bench.claim("c")
    assert bench.commit(frozen[:1], frozen[1:]).stored == 1
    assert bench.commit(taken) == Committed(stored=0, dead=0, superseded=0, fenced=3)
    assert bench.counts == (1, 2, 0, 0)


def test_a_commit_sent_again_changes_nothing(bench: Bench) -> None:
    bench.add(("a", "good"), ("b", "bad"), ("c", "old"))
    leases = bench.claim()
    bench.add(("c", "new"))
    assert bench.commit([leases[0], leases[2]], [leases[1]]) == Committed(1, 1, 1, 0)
    before = bench.status
    assert bench.commit([leases[0], leases[2]], [leases[1]]) == Committed(0, 0, 0, 3)
    assert bench.status == before


def test_a_late_finisher_cannot_undo_a_newer_text(bench: Bench) -> None:
    bench.add(("a", "old"))
    old = bench.claim("slow")
    bench.add(("a", "new"))
    bench.commit(bench.claim("quick"))
    assert bench.commit(old) == Committed(stored=0, dead=0, superseded=1, fenced=0)
    assert bench.stored() == {"a": vector_of("new")}
    assert bench.counts == (1, 0, 0, 0)


def test_a_late_refusal_of_an_old_text_makes_no_dead_letter(bench: Bench) -> None:
    bench.add(("a", "bad"))
    old = bench.claim("slow")
    bench.add(("a", "good"))
    assert bench.commit([], old) == Committed(stored=0, dead=0, superseded=1, fenced=0)
    bench.embed_all()
    assert bench.counts == (1, 0, 0, 0)


def test_a_new_vector_replaces_the_old_one_with_all_that_was_beside_it(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "old", {"tag": 1}), Job("b", "stays")])
    bench.commit(bench.claim(), keep_text=True)
    bench.add(("a", "new"))
    bench.embed_all()
    assert bench.stored() == {"b": vector_of("stays"), "a": vector_of("new")}
    record = bench.collection.get("a")
    assert record is not None
    assert (record.text, record.meta) == (None, None)
    assert bench.status.enqueued == 2


def test_an_id_whose_latest_text_is_dead_keeps_no_old_vector(bench: Bench) -> None:
    bench.add(("a", "good"), ("b", "good"))
    bench.embed_all()
    bench.add(("a", "bad"))
    bench.embed_all(refuse=["bad"])
    assert bench.collection.get("a") is None
    assert bench.stored() == {"b": vector_of("good")}
    assert bench.counts == (1, 1, 0, 0)


def test_vectors_of_another_length_store_nothing_of_their_batch(bench: Bench) -> None:
    bench.add(("a", "good"))
    bench.embed_all()
    bench.add(("b", "good"), ("c", "bad"))
    first, second = bench.claim()
    wrong = [Embedded(first, vector_of("good", dimensions=3), False)]
    with pytest.raises(DimensionsDiffer, match="3 dimensions, collection wiki has 2"):
        bench.collection.commit(wrong, [Refused(second, "poison", "no")])
    assert bench.counts == (1, 0, 0, 2)
    assert bench.status.dimensions == 2
    assert bench.commit([first], [second]) == Committed(1, 1, 0, 0)


def test_vectors_of_two_lengths_in_one_batch_store_nothing(bench: Bench) -> None:
    bench.add(("a", "good"), ("b", "good"))
    first, second = bench.claim()
    mixed = [
        Embedded(first, vector_of("good"), False),
        Embedded(second, vector_of("good", dimensions=3), False),
    ]
    with pytest.raises(redis.ResponseError, match="another length than 2"):
        bench.collection.commit(mixed)
    assert bench.counts == (0, 0, 0, 2)
    assert bench.status.dimensions is None


def test_cached_answers_are_counted(bench: Bench) -> None:
    bench.add(*pairs(3))
    first, *others = bench.claim()
    bench.collection.commit([Embedded(first, vector_of("x"), True)])
    bench.commit(others)
    assert bench.status.cached == 1
    records = bench.collection.get_many(["id0", "id1"])
    assert [record is not None and record.cached for record in records] == [True, False]
    assert [record.cached for record in bench.collection.finished(0, 10)] == [True, False, False]


@pytest.mark.parametrize("length", [12, 64])
def test_a_stored_vector_costs_at_most_1000_bytes_over_its_numbers(
    real_settings: Settings, redis_client: redis.Redis, length: int
) -> None:
    bench = Bench(real_settings)
    if not redis_client.info("memory")["mem_allocator"].startswith("jemalloc"):
        pytest.skip("sizes are those of jemalloc, as Redis is built")
    count = 1000
    bench.add(*((f"{number:0{length}d}", f"text {number}") for number in range(count)))
    while leases := bench.claim():
        vectors = [vector_of(lease.job.text, 768) for lease in leases]
        # The dearest: answered from the API's cache.
        bench.collection.commit([Embedded(*pair, True) for pair in zip(leases, vectors)])
    bench.release(end_slice=True)
    keys = list(redis_client.scan_iter("vec:*", count=1000))
    assert len(keys) >= count
    used = sum(redis_client.memory_usage(key, samples=0) or 0 for key in keys)
    place = 16  # in the table of all keys, which is at least half full
    assert used / count + place <= 4 * 768 + 1000


def test_vectors_keep_their_places_at_numbers_above_32_bits(bench: Bench) -> None:
    bench.add(("first", "text"))
    for counter in ("seq", "commits"):
        bench.redis.hset("vec:{wiki}:info", counter, str(2**52))
    bench.add(("a", "one"), ("b", "one"), ("c", "one"), run="p")
    first, a, b, c = bench.claim()
    bench.collection.commit([Embedded(lease, vector_of("one"), True) for lease in (a, b, c)])
    assert bench.add(("a", "one"), ("c", "two"), run="p") == Added(0, 0, 2, 0)
    bench.embed_all()
    assert [place[:2] for place in places(bench)] == [
        (2**52 + 1, "a"),
        (2**52 + 2, "b"),
        (2**52 + 4, "c"),
    ]
    bench.collection.renumber(places(bench)[:1], 2**52 + 100)
    assert [place[:2] for place in places(bench)] == [
        (2**52 + 2, "b"),
        (2**52 + 4, "c"),
        (2**52 + 101, "a"),
    ]
    assert [(record.id, record.cached) for record in bench.collection] == [
        ("b", True),
        ("c", False),
        ("a", True),
    ]
    assert bench.collection.evict("us", places(bench)) == 3
    assert check_ledger(bench.status).evicted == 3


def test_reading_goes_on_where_vectors_were_deleted_by_hand(bench: Bench) -> None:
    bench.add(*pairs(5))
    bench.embed_all()
    bench.redis.delete(*(f"vec:{{wiki}}:doc:id{number}" for number in (0, 1, 3)))
    assert [record.id for record in bench.collection.finished(0, 2)] == ["id2"]
    assert [record.id for record in bench.collection] == ["id2", "id4"]


# Release


def test_released_texts_are_pending_and_keep_their_attempts(bench: Bench) -> None:
    bench.add(*pairs(3))
    leases = bench.claim()
    assert bench.release("c", leases[:1]) == 3
    assert bench.counts == (0, 0, 3, 0)
    again = bench.claim("d")
    assert {lease.job.id: lease.attempts for lease in again} == {"id0": 1, "id1": 0, "id2": 0}
    bench.release("d", again[:2])
    assert [lease.attempts for lease in bench.claim("e")] == [2, 1, 0]


def test_a_release_sent_again_counts_no_attempt_twice(bench: Bench) -> None:
    bench.add(*pairs(2))
    leases = bench.claim()
    assert bench.release("c", leases) == 2
    assert bench.release("c", leases) == 0
    assert {lease.attempts for lease in bench.claim("d")} == {1}


def test_one_who_lost_its_leases_can_neither_release_nor_count_them(bench: Bench) -> None:
    bench.add(*pairs(2))
    frozen = bench.claim("frozen")
    bench.kill("frozen")
    bench.claim("c")
    assert bench.release("frozen", frozen, end_slice=True) == 0
    assert bench.counts == (0, 0, 0, 2)
    assert [lease.attempts for lease in bench.claim("c")] == [0, 0]


def test_a_release_in_mid_slice_leaves_the_consumer_to_claim_on(bench: Bench) -> None:
    bench.add(*pairs(4))
    bench.claim("c", 2)
    bench.release("c")
    assert ids(bench.claim("c", 4, alive=False)) == ["id0", "id1", "id2", "id3"]
    assert bench.claim("other") == []


def test_the_attempts_of_a_finished_text_are_forgotten(bench: Bench) -> None:
    bench.add(("a", "one"))
    bench.release("c", bench.claim())
    bench.embed_all()
    bench.add(("a", "two"))
    assert [lease.attempts for lease in bench.claim()] == [0]


# Dead letters and retry


def test_a_dead_letter_tells_what_is_needed_to_understand_and_to_replay_it(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "naïve \U0001f600", {"page": 7})])
    bench.release("c", bench.claim())
    [lease] = bench.claim()
    bench.collection.commit([], [Refused(lease, "too_odd", "the API refuses it")])
    [letter] = bench.collection.dead()
    assert (letter.id, letter.text, letter.meta) == ("a", "naïve \U0001f600", {"page": 7})
    assert (letter.code, letter.reason, letter.attempts) == ("too_odd", "the API refuses it", 2)
    assert letter.at > 1e9
    assert bench.retry() == 1
    [lease] = bench.claim()
    assert lease.job == Job("a", "naïve \U0001f600", {"page": 7})


def test_dead_letters_are_counted_by_code_for_ever_whatever_the_text_and_its_meta_say(
    bench: Bench,
) -> None:
    bench.collection.adder().add(
        [
            Job("a", 'says "code": "liar"', {"code": "liar", "reason": '"code": "liar"'}),
            Job("b", ""),
        ]
    )
    for code in ("too_odd", "worker_lost"):
        leases = bench.claim()
        refused = [Refused(lease, code, f'it has "code": "{code}s"') for lease in leases]
        bench.collection.commit([], refused)
        bench.collection.commit([], refused)  # a second finisher, or a second copy
        bench.retry(["a"])
    assert bench.collection.ledger().dead_ever == {"too_odd": 2, "worker_lost": 1}


def test_the_ledger_tells_how_long_the_oldest_text_has_waited(bench: Bench) -> None:
    assert bench.collection.ledger().oldest_age == 0
    bench.add(("a", "old"))
    wait_until(lambda: bench.collection.ledger().oldest_age > 0.05)
    bench.add(("b", "young"))
    assert bench.collection.ledger().oldest_age > 0.05
    [old, young] = bench.claim()
    bench.commit([old])
    age = bench.collection.ledger().oldest_age
    bench.commit([young])
    assert 0 <= age < 60 and bench.collection.ledger().oldest_age == 0


def test_what_was_ever_embedded_is_counted_also_when_it_is_replaced(bench: Bench) -> None:
    for text in ("one", "two"):
        bench.add(("a", text))
        bench.commit(bench.claim())
    ledger = bench.collection.ledger()
    assert (ledger.embedded, ledger.embedded_ever, ledger.cached_ever) == (1, 2, 0)


def test_retry_puts_all_or_some_back_and_leaves_enqueued_alone(bench: Bench) -> None:
    bench.add(("a", "bad"), ("b", "bad"), ("c", "bad"), ("d", "good"))
    bench.embed_all(refuse=["bad"])
    assert bench.retry(["a", "d", "unknown"]) == 1
    assert bench.counts == (1, 2, 1, 0)
    assert bench.retry() == 2
    assert bench.counts == (1, 0, 3, 0)
    assert bench.status.enqueued == 4
    assert bench.retry() == 0
    bench.embed_all()
    assert bench.counts == (4, 0, 0, 0)
    assert bench.stored().keys() == set("abcd")


def test_dead_letters_can_be_listed_and_retried_by_code(bench: Bench) -> None:
    bench.add(("a", "one"), ("b", "two"), ("c", "three"))
    leases = bench.claim()
    codes = ["odd", "even", "odd"]
    bench.collection.commit([], [Refused(lease, code, "") for lease, code in zip(leases, codes)])
    assert {letter.id for letter in bench.collection.dead("odd")} == {"a", "c"}
    assert list(bench.collection.dead("other")) == []
    assert bench.collection.retry(["a", "b"], code="even") == 1
    assert {letter.id for letter in bench.collection.dead()} == {"a", "c"}
    assert bench.collection.retry(code="odd") == 2
    assert bench.counts == (0, 0, 3, 0)


def test_more_dead_letters_than_a_chunk_are_retried_each_once(bench: Bench) -> None:
    texts = [(f"id{number}", "bad") for number in range(CHUNK_SIZE + 200)]
    bench.add(*texts[:CHUNK_SIZE])
    bench.add(*texts[CHUNK_SIZE:])
    bench.embed_all(refuse=["bad"])
    assert bench.retry() == len(texts)
    assert bench.counts == (0, 0, len(texts), 0)


def test_a_retried_text_starts_with_no_attempt_and_may_die_again(bench: Bench) -> None:
    bench.add(("a", "bad"))
    bench.release("c", bench.claim())
    bench.embed_all(refuse=["bad"])
    bench.retry()
    assert [lease.attempts for lease in bench.claim("all")] == [0]
    bench.embed_all(refuse=["bad"])
    assert bench.counts == (0, 1, 0, 0)


def test_a_dead_letter_that_was_replaced_meanwhile_is_not_retried(bench: Bench) -> None:
    bench.add(("a", "bad"), ("b", "bad"))
    bench.embed_all(refuse=["bad"])

    def asked() -> Iterator[str]:
        yield "a"
        # Between the reading of the letter and the step, the id gets another text.
        bench.add(("a", "good"))
        yield "b"

    assert bench.collection.retry(asked()) == 1
    assert bench.counts == (0, 0, 2, 0)
    bench.embed_all()
    assert bench.stored() == {"a": vector_of("good"), "b": vector_of("bad")}


def test_an_id_asked_for_twice_is_retried_once(bench: Bench) -> None:
    bench.add(("a", "bad"))
    bench.embed_all(refuse=["bad"])
    assert bench.retry(["a", "a"]) == 1
    assert bench.counts == (0, 0, 1, 0)


# Reading


def test_the_status_of_a_collection_nobody_knows_is_empty(bench: Bench) -> None:
    status = bench.status
    assert (status.enqueued, status.backlog, status.state, status.model) == (0, 0, "idle", None)
    assert not bench.collection.exists()
    assert list(bench.collection) == []
    assert list(bench.collection.dead()) == []
    assert bench.collection.get("a") is None


def test_the_status_follows_the_work(bench: Bench) -> None:
    bench.add(*pairs(3))
    assert bench.collection.exists()
    assert (bench.status.state, bench.status.pending) == ("running", 3)
    leases = bench.claim()
    assert (bench.status.leased, bench.collection.backlog()) == (3, 3)
    bench.commit(leases)
    status = bench.status
    assert (status.state, status.embedded, status.dimensions) == ("idle", 3, 2)
    assert collection_names(bench.redis, "vec") == ["wiki"]


def test_waiting_ends_when_nothing_is_left_or_time_is_up(bench: Bench) -> None:
    bench.add(*pairs(2))
    assert bench.collection.wait(timeout=0).backlog == 2
    bench.embed_all()
    assert bench.collection.wait().embedded == 2


def test_waiting_ends_when_the_queue_is_halted(bench: Bench) -> None:
    bench.add(*pairs(2))
    throttle = Throttle(bench.settings, "m")
    client = connect(bench.settings)
    announce_worker(client, "vec", Worker("host:1:a", 8, throttle=throttle.name))
    permit = throttle.ask()
    assert isinstance(permit, Permit)
    throttle.halted(permit, "the API refuses the key")
    status = bench.collection.wait()
    assert (status.state, status.reason) == ("halted", "the API refuses the key")
    assert not bench.collection.is_open()


def test_records_are_read_in_the_order_asked_for(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "one", {"n": [1, None]}), Job("b", "two")])
    bench.commit(bench.claim(), keep_text=True)
    b, unknown, a = bench.collection.get_many(["b", "unknown", "a"])
    assert unknown is None
    assert a is not None and b is not None
    assert (a.id, a.text, a.meta, a.model) == ("a", "one", {"n": [1, None]}, "m")
    assert (b.id, b.text, b.meta, b.dimensions) == ("b", "two", None, 2)
    assert a.tobytes() == vector_of("one")
    assert bench.collection.get_many([]) == []


def test_a_vector_that_is_replaced_before_an_iteration_reaches_it_comes_once(bench: Bench) -> None:
    bench.add(*pairs(1_200))
    bench.embed_all()
    records = iter(bench.collection)
    seen = [next(records).id]
    bench.add((seen[0], "another text"), ("id1100", "another text"))
    bench.embed_all()
    seen += [record.id for record in records]
    assert seen.count("id1100") == 1
    assert seen.count(seen[0]) == 2, "the one read before it was replaced, and the new one"
    assert set(seen) == {id for id, _ in pairs(1_200)}


def test_iteration_goes_in_the_order_of_commits_over_many_pages(bench: Bench) -> None:
    texts = pairs(CHUNK_SIZE)
    bench.add(*texts)
    bench.embed_all()
    bench.add(("id1", "changed"))
    bench.embed_all()
    order = [record.id for record in bench.collection]
    assert order == [id for id, _ in texts if id != "id1"] + ["id1"]


def test_records_replaced_while_they_are_read_are_not_missed(bench: Bench) -> None:
    bench.add(*pairs(3))
    bench.embed_all()
    reading = iter(bench.collection)
    seen = {(record := next(reading)).id: record.data}
    bench.add(("id1", "changed"))
    bench.embed_all()
    seen.update({record.id: record.data for record in reading})
    assert seen.keys() == {"id0", "id1", "id2"}
    assert seen["id1"] == vector_of("changed")


def test_an_iteration_outlives_the_connection_that_reads_ahead(real_settings: Settings) -> None:
    bench = Bench(real_settings)
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    pages = bench.collection.pages()
    seen = next(pages)
    with redis.Redis.from_url(real_settings.redis_url) as client:
        client.client_pause(60_000, all=False)
        seen += next(pages)  # which asks for one more
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_unpause()
    seen += chain.from_iterable(pages)
    assert [record.id for record in seen] == [id for id, _ in pairs(CHUNK_SIZE)]


def test_an_iteration_that_is_given_up_leaves_no_answer_behind(bench: Bench) -> None:
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    for _ in range(3):
        pages = bench.collection.pages()
        assert next(pages)[0].id == "id0"
        del pages
        assert bench.status.embedded == CHUNK_SIZE


def test_a_page_that_nobody_waits_for_leaves_no_answer_behind(bench: Bench) -> None:
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    for _ in range(3):
        bench.collection._send_for_page(0)  # interrupted before it had a name
        assert bench.status.embedded == CHUNK_SIZE


def begun(bench: Bench, texts: Sequence[tuple[str, str]]) -> Iterator[list[Record]]:
    """An iteration over the vectors of `texts`, the first page of which was read."""
    bench.add(*texts)
    bench.embed_all()
    pages = bench.collection.pages()
    next(pages)
    return pages


def test_an_iteration_is_no_shorter_for_a_collection_that_is_dropped(bench: Bench) -> None:
    pages = begun(bench, pairs(CHUNK_SIZE))
    assert list(bench.collection.drop())
    with pytest.raises(CollectionError, match=f"collection {bench.collection.name} was dropped"):
        list(pages)


def test_an_iteration_is_no_shorter_for_a_drop_that_was_broken_off(bench: Bench) -> None:
    texts = pairs(3 * DROP_SIZE)
    pages = begun(bench, texts[: 2 * DROP_SIZE])
    next(bench.collection.drop())
    bench.add(*texts)
    bench.embed_all()
    with pytest.raises(CollectionError, match="was dropped"):
        list(pages)
    assert {record.id for record in bench.collection} == {id for id, _ in texts}


def test_an_iteration_is_no_shorter_for_a_redis_that_lost_its_last_moments(bench: Bench) -> None:
    pages = begun(bench, pairs(CHUNK_SIZE))
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.hset(f"vec:{{{bench.collection.name}}}:info", "commits", "10")
    with pytest.raises(CollectionError, match="or lost by Redis"):
        list(pages)


def test_an_iteration_is_no_shorter_for_a_redis_that_is_emptied(bench: Bench) -> None:
    pages = begun(bench, pairs(CHUNK_SIZE))
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.flushall()
    # Filled anew meanwhile, it is still not what was read.
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    with pytest.raises(CollectionError, match="or lost by Redis, while it was read"):
        list(pages)


def test_an_iteration_passes_over_what_was_deleted_by_hand(bench: Bench) -> None:
    texts = pairs(3 * PAGE_SIZE)
    bench.add(*texts)
    bench.embed_all()
    ids = [id for id, _ in texts]
    gone = ids[10 : 2 * PAGE_SIZE + 10]
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.delete(*[f"vec:{{{bench.collection.name}}}:doc:{id}" for id in gone])
    assert [record.id for record in bench.collection] == [id for id in ids if id not in gone]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_iteration_goes_on_in_parent_and_forked_child(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    pages = bench.collection.pages()
    seen = [record.id for record in next(pages)]
    # Each reads what it asked for itself: nobody waits until an answer counts as lost.
    monkeypatch.setattr(Step, "_send_again", lambda step: pytest.fail("an answer was lost"))

    def read_on() -> None:
        ids = [record.id for record in chain.from_iterable(pages)]
        assert seen + ids == [id for id, _ in pairs(CHUNK_SIZE)]

    assert in_child(read_on) == 0
    read_on()


def test_states_tell_which_text_is_where(bench: Bench) -> None:
    bench.add(("stored", "good"), ("dead", "bad"), ("both", "good"))
    bench.embed_all(refuse=["bad"])
    bench.add(("queued", "good"), ("both", "newer"))
    good, bad, newer = text_digest("good"), text_digest("bad"), text_digest("newer")
    stored, dead, queued, both, unknown = bench.collection.states(
        ["stored", "dead", "queued", "both", "unknown"]
    )
    assert stored == (good, None, None)
    assert dead == (None, None, bad)
    assert queued == (None, good[:8], None)
    assert both == (good, newer[:8], None)
    assert unknown == (None, None, None)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "{a}", "x" * 101, "a\n", "é"])
def test_a_name_that_is_no_name_is_an_error_that_says_what_is(name: str) -> None:
    with pytest.raises(CollectionError, match=r"must be 1 to 100 letters, digits"):
        Collection(name, settings=Settings())


def test_collections_do_not_see_each_other(settings: Settings) -> None:
    one, two = Bench(settings, "one"), Bench(settings, "two")
    one.add(("a", "of one"))
    two.add(("a", "of two"))
    one.embed_all()
    assert one.stored() == {"a": vector_of("of one")}
    assert two.counts == (0, 0, 1, 0)
    assert collection_names(one.redis, "vec") == ["one", "two"]


# Wake-ups and workers


def expire_wakeups(bench: Bench) -> None:
    """As if all wake-ups had been sent a while ago."""
    key = f"vec:{{{bench.collection.name}}}:wakeups"
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        for token in client.zrange(key, 0, -1):
            client.zincrby(key, -WAKEUP_EXPIRY * 1000 - 1, token)


def test_there_are_never_more_wakeups_than_batches_or_slots(bench: Bench) -> None:
    bench.add(*pairs(250))
    assert len(bench.collection.wake(2)) == 2
    assert len(bench.collection.wake(8)) == 1
    assert bench.collection.wake(8) == []


def test_a_wakeup_answered_makes_room_for_another_and_a_double_for_none(bench: Bench) -> None:
    bench.add(*pairs(250))
    tokens = bench.collection.wake(2)
    assert len(set(tokens)) == 2
    assert [bench.collection.answer(tokens[0]) for _ in range(2)] == [True, False]
    assert len(bench.collection.wake(2)) == 1


def test_lost_wakeups_are_replaced_when_they_have_expired(bench: Bench) -> None:
    bench.add(*pairs(250))
    first = bench.collection.wake(8)
    assert bench.collection.wake(8) == []
    expire_wakeups(bench)
    second = bench.collection.wake(8)
    assert len(second) == 3
    assert not any(bench.collection.answer(token) for token in first)
    assert all(bench.collection.answer(token) for token in second)


def test_no_wakeup_is_worth_sending_while_slices_have_it_all(bench: Bench) -> None:
    bench.add(*pairs(250))
    for consumer in ("c", "d"):
        bench.claim(consumer)
    assert bench.collection.wake(2) == []
    assert len(bench.collection.wake(8)) == 1
    bench.claim("e")
    expire_wakeups(bench)
    assert bench.collection.wake(8) == []


def test_what_dead_consumers_hold_and_what_was_released_is_worth_waking_for(bench: Bench) -> None:
    bench.add(*pairs(200))
    bench.claim("dead")
    bench.claim("tired")
    assert bench.collection.wake(8) == []
    bench.kill("dead")
    assert len(bench.collection.wake(8)) == 1
    bench.release("tired", end_slice=True)
    assert len(bench.collection.wake(8)) == 1


def test_workers_alive_are_those_seen_lately(settings: Settings) -> None:
    client = connect(settings)
    assert workers_alive(client, "vec") == (0, 0)
    one, two = Worker("host:1:a", 8), Worker("host:2:b", 16)
    announce_worker(client, "vec", one)
    announce_worker(client, "vec", two)
    announce_worker(client, "vec", two)
    assert workers_alive(client, "vec") == (2, 24)
    forget_worker(client, "vec", one)
    assert workers_alive(client, "vec") == (1, 16)
    with redis.Redis.from_url(settings.redis_url) as direct:
        direct.zincrby("vec:workers", -WORKER_SECONDS - 1, "host:2:b/16")
    assert workers_alive(client, "vec") == (0, 0)
    assert workers_alive(client, "other") == (0, 0)


def test_a_worker_says_what_it_is_at_and_an_older_one_beside_it_still_counts(
    settings: Settings,
) -> None:
    client = connect(settings)
    work = (Work("wiki", 100, False), Work("news", 0, True))
    halt = Worker("vm:1:7:a", 8, throttle="t-k", queue="q", state="halted", reason="no key")
    announce_worker(client, "vec", replace(halt, up_seconds=12.5, version="0.2.0", work=work))
    with redis.Redis.from_url(settings.redis_url) as direct:
        direct.zadd("vec:workers", {"old:2:b/4": direct.time()[0]})

    old, new = read_fleet(client, "vec")

    assert (new.host, new.pid, new.slots, new.up_seconds, new.version, new.work) == (
        "vm:1",
        "7",
        8,
        12.5,
        "0.2.0",
        work,
    )
    assert (new.throttle, new.queue, new.state, new.reason) == ("t-k", "q", "halted", "no key")
    assert (old.host, old.pid, old.slots, old.work) == ("old", "2", 4, None)
    assert (old.throttle, old.queue, old.state, old.reason) == (None, None, None, None)
    assert workers_alive(client, "vec") == (2, 12)


def test_a_worker_that_is_killed_is_remembered_as_lost(settings: Settings) -> None:
    client = connect(settings)
    announce_worker(client, "vec", Worker("host:1:a", 8))
    announce_worker(client, "vec", Worker("host:2:b", 8))
    with redis.Redis.from_url(settings.redis_url) as direct:
        direct.zincrby("vec:workers", -60, "host:1:a/8")

    alive, lost = read_fleet(client, "vec")

    assert (alive.pid, alive.alive) == ("2", True)
    assert (lost.pid, lost.alive) == ("1", False)
    assert 59 < lost.seen_seconds < 70


def test_every_key_of_a_step_lies_in_one_slot_of_a_cluster(real_settings: Settings) -> None:
    bench = Bench(real_settings)
    bench.add(("a", "good"), ("{b}", "bad"), ("c}{", "open"))
    leases = bench.claim("host{1}:c")
    bench.commit(leases[:1], leases[1:2])
    bench.collection.wake(8)
    bench.release("host{1}:c", leases[2:])
    bench.collection.keep_alive("host{1}:c")
    with redis.Redis.from_url(real_settings.redis_url) as client:
        keys = [key for key in client.scan_iter(count=1000) if b"wiki" in key]
    slots = {key_slot(key) for key in keys}
    assert len(keys) >= 9
    assert len(slots) == 1


# Vectors that leave for files


def places(bench: Bench, after: int = 0) -> list[Place]:
    return [
        Place(record.number or 0, record.id, record.digest or b"")
        for record in bench.collection.finished(after, EVICT_SIZE)
    ]


def test_finished_vectors_come_in_pages_with_all_that_was_kept(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "one", {"n": 1}), Job("b", "two"), Job("c", "three")])
    bench.commit(bench.claim(), keep_text=True)

    first, second = bench.collection.finished(0, 2)

    assert first == Record(
        "a", vector_of("one"), "m", False, "one", {"n": 1}, 1, text_digest("one")
    )
    assert (second.id, second.number, second.meta) == ("b", 2, None)
    assert [record.id for record in bench.collection.finished(2, 2)] == ["c"]


def test_evicted_vectors_leave_and_the_ledger_keeps_them(bench: Bench) -> None:
    bench.add(*pairs(5))
    bench.embed_all()

    assert bench.collection.evict("us", places(bench)[:3]) == 3
    assert bench.collection.evict("us", places(bench)[:0]) == 0

    assert sorted(bench.stored()) == ["id3", "id4"]
    assert (bench.status.embedded, bench.status.evicted, bench.status.enqueued) == (2, 3, 5)


def test_what_was_replaced_after_it_was_written_stays(bench: Bench) -> None:
    bench.add(("a", "old"), ("b", "text"))
    bench.embed_all()
    written = places(bench)
    bench.add(("a", "new"))
    bench.embed_all()

    assert bench.collection.evict("us", written) == 1

    assert bench.stored() == {"a": vector_of("new")}


def test_enqueuing_what_was_evicted_costs_nothing_and_another_text_does(bench: Bench) -> None:
    bench.add(("a", "one"), ("b", "two"))
    bench.embed_all()
    bench.collection.evict("us", places(bench))

    assert bench.add(("a", "one"), ("b", "other"), ("c", "three")) == Added(2, 1, 0, 0, 1)
    assert bench.add(("a", "one"), ("b", "two")) == Added(1, 1, 0, 0, 1, replacing=1)
    bench.embed_all()
    assert bench.stored() == {"b": vector_of("two"), "c": vector_of("three")}


def test_the_last_of_the_evicted_texts_of_an_id_counts(bench: Bench) -> None:
    for text in ("one", "two"):
        bench.add(("a", text))
        bench.embed_all()
        bench.collection.evict("us", places(bench))

    assert bench.add(("a", "two")) == Added(0, 1, 0, 0, 1)
    assert bench.add(("a", "one")) == Added(1, 0, 0, 0, 0)
    assert bench.status.evicted == 2


def test_thousands_of_evicted_texts_are_remembered_each(bench: Bench) -> None:
    many = pairs(3 * CHUNK_SIZE)
    for start in range(0, len(many), CHUNK_SIZE):
        bench.add(*many[start : start + CHUNK_SIZE])
        bench.embed_all()
        while some := places(bench):
            bench.collection.evict("us", some)

    for start in range(0, len(many), CHUNK_SIZE):
        chunk = many[start : start + CHUNK_SIZE]
        assert bench.add(*chunk) == Added(0, CHUNK_SIZE, 0, 0, CHUNK_SIZE)
    assert bench.add(*pairs(CHUNK_SIZE, "other")).evicted == 0


def test_one_exporter_evicts_at_a_time(bench: Bench) -> None:
    bench.add(*pairs(2))
    bench.embed_all()
    bench.collection.evict("us")

    with pytest.raises(ExportedByAnother, match="only one at a time"):
        bench.collection.evict("them", places(bench))
    assert bench.counts == (2, 0, 0, 0)

    bench.collection.evict("us", end=True)
    assert bench.collection.evict("them", places(bench)) == 2


def test_vectors_leave_a_redis_that_takes_nothing_more(real_settings: Settings) -> None:
    bench = Bench(real_settings)
    bench.add(*pairs(40))
    bench.embed_all()
    with redis.Redis.from_url(real_settings.redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.OutOfMemoryError):
                client.set("key", "value")
            assert bench.collection.evict("us", places(bench)[:20]) == 20
            bench.collection.renumber(places(bench)[:5], 100)
            assert [place.number for place in places(bench)][-5:] == [101, 102, 103, 104, 105]
            assert dropped(bench) == Dropped(vectors=20)
        finally:
            client.config_set("maxmemory", 0)


# The end of a collection


def dropped(bench: Bench) -> Dropped:
    so_far = []
    for gone in bench.collection.drop():
        check_ledger(bench.collection.status())
        so_far.append(gone)
    return so_far[-1]


def keys_of(bench: Bench) -> list[bytes]:
    return [key for key in bench.redis.keys("*") if b"receipt" not in key and b"alive" not in key]  # type: ignore[attr-defined]  # all of redis-py's is there


def test_a_drop_tells_what_it_deletes_and_leaves_nothing(bench: Bench) -> None:
    bench.add(*pairs(DROP_SIZE + 10))
    bench.commit(bench.claim(count=1)[:0], bench.claim(count=3))
    bench.embed_all()
    bench.add(("queued", "text"), ("leased", "text"))
    bench.claim(count=1)
    Bench(bench.settings, "other").add(("a", "text"))

    assert dropped(bench) == Dropped(vectors=DROP_SIZE + 7, queued=2, dead=3)

    assert not bench.collection.exists()
    assert collection_names(bench.redis, "vec") == ["other"]
    assert [key for key in keys_of(bench) if b"wiki" in key] == []


def test_a_drop_broken_off_leaves_a_balanced_ledger_and_can_be_gone_on_with(bench: Bench) -> None:
    bench.add(*pairs(DROP_SIZE + 10))
    bench.embed_all()
    bench.add(("queued", "text"))

    next(iter(bench.collection.drop()))

    assert bench.counts == (10, 0, 0, 0)
    assert collection_names(bench.redis, "vec") == ["wiki"]
    assert dropped(bench) == Dropped(vectors=10)
    assert collection_names(bench.redis, "vec") == []


# The pump


def test_the_pump_finds_the_collections_with_work_and_no_others(bench: Bench) -> None:
    other = Bench(bench.settings, "other")
    bench.add(*pairs(2), run="p")
    other.add(*pairs(2))
    assert busy_collections(bench.redis, "vec") == ["other", "wiki"]
    (lease, *_) = bench.claim()
    bench.commit([], [lease])
    assert busy_collections(bench.redis, "vec") == ["other", "wiki"]  # the second is leased
    bench.release(end_slice=True)
    bench.embed_all()
    assert busy_collections(bench.redis, "vec") == ["other"]
    # What was done with may be begun anew: by the same producer, another, and a retry.
    for begin in ("the same producer", "another", "a retry"):
        if begin == "a retry":
            assert bench.retry() == 1
        else:
            assert bench.add((begin, "new"), run="p" if begin != "another" else "").new == 1
        assert busy_collections(bench.redis, "vec") == ["other", "wiki"]
        bench.embed_all()
        assert busy_collections(bench.redis, "vec") == ["other"]
    assert bench.counts == (4, 0, 0, 0)


def test_a_look_at_all_collections_finds_work_that_is_not_announced(bench: Bench) -> None:
    Bench(bench.settings, "idle").add(("a", "text"))
    Bench(bench.settings, "idle").embed_all()
    bench.add(*pairs(2))
    bench.redis.delete("vec:busy")  # as the node of a cluster that was lost may have been behind
    assert busy_collections(bench.redis, "vec") == []
    announce_backlogs(bench.redis, "vec")
    assert busy_collections(bench.redis, "vec") == ["wiki"]


def test_idle_collections_cost_the_pump_nothing(
    real_settings: Settings, redis_client: redis.Redis
) -> None:
    def cost() -> int:
        before = redis_client.info("stats")["total_commands_processed"]
        busy_collections(connect(real_settings), "vec")
        return int(redis_client.info("stats")["total_commands_processed"] - before)

    without = cost()
    for number in range(30):
        bench = Bench(real_settings, f"idle-{number}")
        bench.add(("a", "text"))
        bench.embed_all()
    assert cost() > 30  # they are looked at once more, and forgotten
    assert cost() == without


def test_a_drop_forgets_what_was_remembered_of_evicted_texts(bench: Bench) -> None:
    bench.add(*pairs(200))
    bench.embed_all()
    bench.collection.evict("us", places(bench))
    bench.redis.hset("vec:{wiki}:info", "buckets", str(3 * DROP_SIZE))  # as after a million

    assert dropped(bench) == Dropped()

    assert [key for key in keys_of(bench) if b"wiki" in key and b"exporter" not in key] == []


def test_leases_of_a_dropped_collection_come_to_nothing(bench: Bench) -> None:
    bench.add(*pairs(4))
    leases = bench.claim()
    dropped(bench)

    assert bench.commit(leases[:2], leases[2:]) == Committed(0, 0, 0, 4)
    assert bench.release(end_slice=True) == 0
    assert bench.claim() == []

    assert not bench.collection.exists()
    bench.add(*pairs(4))
    assert bench.commit(leases[:2], leases[2:]) == Committed(0, 0, 0, 4)
    assert bench.counts == (0, 0, 4, 0)


def test_a_producer_that_goes_on_begins_the_collection_anew(bench: Bench) -> None:
    bench.add(*pairs(4), run="p")
    bench.embed_all()
    dropped(bench)

    assert bench.add(*pairs(2), run="p") == Added(2, 0, 0, 0)

    assert collection_names(bench.redis, "vec") == ["wiki"]
    bench.embed_all()
    assert bench.counts == (2, 0, 0, 0)


# Whatever happens in whatever order


T = TypeVar("T")

SUSPECT = 2  # owners that died of a job before it is leased to those alone who ask for such
IDS = st.sampled_from("abc")
TEXTS = st.sampled_from(["red", "green"])
CONSUMERS = st.sampled_from(["c0", "c1"])
PRODUCERS = st.sampled_from(["p0", "p1"])


class Draw(Protocol):
    def __call__(self, strategy: st.SearchStrategy[T]) -> T: ...


def seq_of(lease: Lease) -> int:
    return number_of(lease.entry)


def number_of(entry: bytes) -> int:
    return int(entry.partition(b"-")[2])


class Entry:
    """One job in the model's stream."""

    def __init__(self, id: str, text: str) -> None:
        self.id = id
        self.text = text
        self.owner: str | None = None
        self.attempts = 0
        self.lost = 0


class Fleet(RuleBasedStateMachine):
    """Producers and consumers that freeze, die, answer late and twice, beside a model of it all."""

    serial = 0
    settings_in_use: Settings
    direct: redis.Redis  # to look at what the steps left behind

    def __init__(self) -> None:
        super().__init__()
        Fleet.serial += 1
        self.bench = Bench(self.settings_in_use, f"fleet{Fleet.serial}")
        self.collection = self.bench.collection
        self.adders = {name: self.collection.adder() for name in ("p0", "p1")}
        self.since: dict[str, int] = {}
        self.answers: dict[str, tuple[Chunk, Added]] = {}
        # The model
        self.last_text: dict[str, str] = {}  # what the last enqueue of each id said
        self.seq = 0
        self.entries: dict[int, Entry] = {}
        self.latest: dict[str, int] = {}  # id -> seq, while queued
        self.vectors: dict[str, tuple[str, int]] = {}  # id -> text, seq
        self.letters: dict[str, str] = {}
        self.evicted: dict[str, str] = {}  # id -> text of its last vector that left
        self.evictions = 0
        self.aware: dict[str, bool] = {}  # whether a producer knows that vectors have left
        self.places: list[Place] = []
        self.alive: set[str] = set()
        # What the consumers think
        self.hands: dict[str, list[Lease]] = {}
        self.commits: list[tuple[list[Embedded], list[Refused]]] = []

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One event out of those that can happen now, the chain from add to commit most often.

        As rules of their own they would be switched off for whole runs, and commits be rare.
        """
        events = [self.add] * 3 + [self.beat, self.die, self.wake]
        events += [self.claim] * 4 * bool(self.entries)
        events += [self.commit] * 4 * bool(self.hands)
        events += [self.release] * bool(self.hands or self.entries)
        events += [self.send_the_last_chunk_again] * bool(self.answers)
        events += [self.commit_again] * bool(self.commits)
        events += [self.retry] * bool(self.letters)
        events += [self.evict, self.renumber] * bool(self.vectors)
        named = {event.__name__: event for event in events}
        named[data.draw(st.sampled_from([event.__name__ for event in events]))](data.draw)

    # The producers

    def add(self, draw: Draw) -> None:
        producer = draw(PRODUCERS)
        chunk = draw(st.lists(st.tuples(IDS, TEXTS), min_size=1, max_size=6))
        jobs = [Job(id, text) for id, text in chunk]
        since = self.since.setdefault(producer, self.seq)
        counts = dict(new=0, unchanged=0, duplicates=len(jobs) - len(dict(chunk)), dead=0)
        counts["evicted"] = counts["replacing"] = 0
        aware = self.aware.setdefault(producer, self.evictions > 0)
        for id, text in dict(chunk).items():
            self.last_text[id] = text
            counts["evicted"] += aware and self._is_evicted(id, text)
            before = id in self.latest or id in self.letters or id in self.vectors
            became = self._enqueue(id, text, since, aware)
            counts[became] += 1
            counts["replacing"] += before and became == "new"
        chunk_sent = self.adders[producer].chunk(jobs)
        chunk_sent.send()
        added, _ = chunk_sent.answer()
        assert added == Added(**counts)
        self.aware[producer] = self.evictions > 0
        self.answers[producer] = (chunk_sent, added)

    def _is_evicted(self, id: str, text: str) -> bool:
        """Whether the last that is known of an id is that the vector of this text has left."""
        here = id in self.latest or id in self.letters or id in self.vectors
        return not here and self.evicted.get(id) == text

    def _enqueue(self, id: str, text: str, since: int, aware: bool) -> str:
        known: str | None = None
        ours = False
        if id in self.latest:
            known, ours = self.entries[self.latest[id]].text, self.latest[id] > since
        elif id in self.letters:
            if self.letters[id] == text:
                return "dead"
            del self.letters[id]
        elif id in self.vectors:
            known, ours = self.vectors[id][0], self.vectors[id][1] > since
        elif aware and self._is_evicted(id, text):
            known = text
        if known != text:
            self._push(id, text)
        return "duplicates" if ours else "unchanged" if known == text else "new"

    def _push(self, id: str, text: str) -> None:
        self.seq += 1
        self.entries[self.seq] = Entry(id, text)
        self.latest[id] = self.seq

    def send_the_last_chunk_again(self, draw: Draw) -> None:
        producer = draw(st.sampled_from(sorted(self.answers)))
        chunk, added = self.answers[producer]
        assert chunk.answer()[0] == added

    def retry(self, draw: Draw) -> None:
        letters = draw(st.none() | st.lists(IDS, max_size=3))
        asked = list(self.letters) if letters is None else list(dict.fromkeys(letters))
        # The order among them is Redis'; only that they are the latest of their ids matters.
        found = [id for id in asked if id in self.letters]
        if letters is None and len(found) > 1:
            found = [letter.id for letter in self.collection.dead()]
        assert self.collection.retry(letters) == len(found)
        for id in found:
            self._push(id, self.letters.pop(id))

    # The consumers

    def claim(self, draw: Draw) -> None:
        """In whatever order jobs are leased: each may be, and none is left that should be."""
        consumer, count = draw(CONSUMERS), draw(st.integers(1, 3))
        if consumer not in self.alive:
            assert self.collection.claim(consumer, count) == []
            self.collection.keep_alive(consumer)
            self.alive.add(consumer)
        lost = draw(st.sampled_from([False] * 4 + [True]))
        held = [seq for seq, entry in self.entries.items() if entry.owner == consumer]
        # Its own suspects it sets aside first, as anybody does.
        again = {
            seq
            for seq in held[:count]
            if not self._is_done(seq) and self.entries[seq].lost < SUSPECT
        }
        leases = self.collection.claim(consumer, count)
        if not leases:  # so does a slice of work
            leases = self.collection.claim(consumer, count, suspects=True)
        owners = self._owners()
        given_up = self._take_leave_of(consumer, owners)
        for seq, owner in owners.items():
            self._move(seq, consumer, owner)
        leased = [seq_of(lease) for lease in leases]
        assert len(set(leased)) == len(leased) <= count
        assert again <= set(leased)
        for lease, seq in zip(leases, leased):
            entry = self.entries[seq]
            assert entry.owner == consumer
            assert not self._is_done(seq)
            told = (lease.job.id, lease.job.text, lease.attempts)
            assert told == (entry.id, entry.text, entry.attempts)
            assert lease.lost >= entry.lost
            entry.lost = lease.lost
        if not leases and given_up < 10 * count:
            # What it still holds itself is more than it asked for: no slice asks for so little.
            others = [seq for seq, entry in self.entries.items() if entry.owner != consumer]
            free = [seq for seq in others if self._is_free_for(seq, consumer)]
            assert all(self._is_done(seq) for seq in free)
        if leases and not lost:
            self.hands.setdefault(consumer, []).extend(leases)

    def _owners(self) -> dict[int, str | None]:
        """Who holds each job of the stream, as Redis has it."""
        jobs = f"vec:{{{self.collection.name}}}:jobs"
        if not self.direct.exists(jobs):
            return {}
        found = cast("list[tuple[bytes, object]]", self.direct.xrange(jobs))
        owners: dict[int, str | None] = {number_of(entry): None for entry, _ in found}
        held = self.direct.xpending_range(jobs, "workers", "-", "+", 10_000)
        for one in cast("list[dict[str, bytes]]", held):
            owners[number_of(one["message_id"])] = one["consumer"].decode()
        return owners

    def _is_done(self, seq: int) -> bool:
        """Whether a later enqueue has taken its place, or its very text is stored."""
        entry = self.entries[seq]
        stored = entry.id in self.vectors and self.vectors[entry.id][0] == entry.text
        return self.latest.get(entry.id) != seq or stored

    def _is_free_for(self, seq: int, consumer: str) -> bool:
        owner = self.entries[seq].owner
        return owner in (None, "released", consumer) or owner not in self.alive

    def _take_leave_of(self, consumer: str, owners: dict[int, str | None]) -> int:
        """Jobs that a claim took out of the stream unpaid; how many there were."""
        gone = [seq for seq in self.entries if seq not in owners]
        for seq in gone:
            assert self._is_done(seq)
            assert self._is_free_for(seq, consumer)
            entry = self.entries.pop(seq)
            if self.latest.get(entry.id) == seq:
                del self.latest[entry.id]
        return len(gone)

    def _move(self, seq: int, consumer: str, owner: str | None) -> None:
        entry = self.entries[seq]
        if owner != entry.owner:
            assert owner in (consumer, "released")
            assert self._is_free_for(seq, consumer)
            if owner == "released":  # set aside
                assert entry.owner is not None
                assert entry.owner != consumer or entry.lost >= SUSPECT
            entry.owner = owner

    def commit(self, draw: Draw) -> None:
        consumer = draw(st.sampled_from(sorted(self.hands)))
        verdicts = draw(st.lists(st.booleans(), min_size=1, max_size=4))
        hand = self.hands.pop(consumer)
        if hand[len(verdicts) :]:
            self.hands[consumer] = hand[len(verdicts) :]
        finished = hand[: len(verdicts)]
        embedded: list[Embedded] = []
        refused: list[Refused] = []
        for lease, good in zip(finished, verdicts):
            if good:
                embedded.append(Embedded(lease, vector_of(lease.job.text), False))
            else:
                refused.append(Refused(lease, "poison", "no"))
        self._commit(embedded, refused)
        self.commits.append((embedded, refused))

    def commit_again(self, draw: Draw) -> None:
        self._commit(*self.commits[draw(st.integers(0, len(self.commits) - 1))])

    def _commit(self, embedded: list[Embedded], refused: list[Refused]) -> None:
        counts = dict(stored=0, dead=0, superseded=0, fenced=0)
        leases = [(one.lease, True) for one in embedded] + [(one.lease, False) for one in refused]
        for lease, good in leases:
            seq = seq_of(lease)
            entry = self.entries.pop(seq, None)
            if entry is None:
                counts["fenced"] += 1
            elif self.latest.get(entry.id) != seq:
                counts["superseded"] += 1
            else:
                del self.latest[entry.id]
                self.vectors.pop(entry.id, None)
                if good:
                    self.vectors[entry.id] = (entry.text, seq)
                else:
                    self.letters[entry.id] = entry.text
                counts["stored" if good else "dead"] += 1
        assert self.collection.commit(embedded, refused) == Committed(**counts)

    def release(self, draw: Draw) -> None:
        consumer, failures, end = draw(CONSUMERS), draw(st.integers(0, 2)), draw(st.booleans())
        failed = self.hands.pop(consumer, [])[:failures]
        expected = [entry for entry in self.entries.values() if entry.owner == consumer]
        counted: set[int] = set()
        for lease in failed:
            seq = seq_of(lease)
            if seq in self.entries and self.entries[seq].owner == consumer and seq not in counted:
                self.entries[seq].attempts += 1
                counted.add(seq)
        # One entry once, as a slice names it, also where it was leased twice with deaths between.
        failed = list({lease.entry: lease for lease in failed}.values())
        assert self.collection.release(consumer, failed, end_slice=end) == len(expected)
        for entry in expected:
            entry.owner = "released"
        if end and self.seq:
            self.alive.discard(consumer)

    # The exporter

    def evict(self, draw: Draw) -> None:
        """Evict some that were written just now, or long ago and may have been replaced since."""
        present = self._places()
        self.places += present
        chosen = draw(st.lists(st.sampled_from(self.places), max_size=4))
        expected = {place for place in chosen if place in present}
        assert self.collection.evict("exporter", chosen) == len(expected)
        for place in expected:
            self.evicted[place.id] = self.vectors.pop(place.id)[0]
        self.evictions += len(expected)

    def renumber(self, draw: Draw) -> None:
        """As where Redis went back in time: some come behind all others."""
        present = self._places()
        self.places += present
        chosen = draw(st.lists(st.sampled_from(self.places), max_size=4, unique=True))
        above = draw(st.integers(0, 50))
        self.collection.renumber(chosen, above)
        moved = [place.id for place in chosen if place in present]
        left = [place.id for place in present if place.id not in moved]
        assert [place.id for place in self._places()] == left + moved
        assert all(place.number > above for place in self._places() if place.id in moved)

    def _places(self) -> list[Place]:
        places = []
        for record in self.collection.finished(0, 100):
            assert record.number is not None and record.digest is not None
            text, _ = self.vectors[record.id]
            assert (record.digest, record.data) == (text_digest(text), vector_of(text))
            places.append(Place(record.number, record.id, record.digest))
        assert len(places) == len(self.vectors)
        return places

    def beat(self, draw: Draw) -> None:
        consumer = draw(CONSUMERS)
        self.collection.keep_alive(consumer)
        self.alive.add(consumer)

    def die(self, draw: Draw) -> None:
        consumer = draw(CONSUMERS)
        self.bench.kill(consumer)
        self.alive.discard(consumer)

    def wake(self, draw: Draw) -> None:
        slots = draw(st.integers(0, 3))
        assert len(self.collection.wake(slots)) <= slots

    # What always holds

    @invariant()
    def the_ledger_is_exact(self) -> None:
        status = check_ledger(self.collection.status())
        owned = sum(entry.owner not in (None, "released") for entry in self.entries.values())
        seen = (status.embedded, status.dead, status.leased, status.backlog)
        assert seen == (len(self.vectors), len(self.letters), owned, len(self.entries))
        assert status.evicted == self.evictions

    @invariant()
    def every_id_is_in_one_place_with_its_last_text(self) -> None:
        for id, text in self.last_text.items():
            if id in self.latest:
                assert self.entries[self.latest[id]].text == text
            else:
                stored, _ = self.vectors.get(id, (self.evicted.get(id), 0))
                assert (self.letters.get(id) or stored) == text
        states = dict(zip("abc", self.collection.states(list("abc"))))
        for id, state in states.items():
            stored = self.vectors[id][0] if id in self.vectors else None
            queued = self.entries[self.latest[id]].text if id in self.latest else None
            assert state.stored == (text_digest(stored) if stored else None)
            assert state.dead == (text_digest(self.letters[id]) if id in self.letters else None)
            assert state.queued == (text_digest(queued)[:8] if queued else None)

    def teardown(self) -> None:
        """Drained, each id has the vector of its last text or is dead with it; nothing else is."""
        for consumer in ("c0", "c1"):
            self.bench.kill(consumer)
        while leases := self.bench.claim("last") or claim_suspects(self.bench, "last"):
            self.bench.commit(leases)
        note(f"last texts: {self.last_text}")
        dead = {letter.id: letter.text for letter in self.collection.dead()}
        stored = self.bench.stored()
        assert not self.collection.backlog()
        assert dead.keys() | stored.keys() | self.evicted.keys() == self.last_text.keys()
        assert not dead.keys() & stored.keys()
        for id, text in self.last_text.items():
            if id in dead:
                assert dead[id] == text
            elif id in stored:
                assert stored[id] == vector_of(text)
            else:
                assert self.evicted[id] == text
        if self.seq:
            keys = {key.rpartition(b":")[2] for key in self._keys() if b":doc:" not in key}
            assert not keys & {b"attempts", b"queued"}, keys
        docs = [key for key in self._keys() if b":doc:" in key]
        assert len(docs) == len(stored)

    def _keys(self) -> list[bytes]:
        return list(self.direct.scan_iter(f"vec:{{{self.collection.name}}}:*", count=1000))


def test_the_ledger_and_the_last_texts_survive_any_order_of_events(
    real_settings: Settings, redis_client: redis.Redis
) -> None:
    Fleet.settings_in_use, Fleet.direct = real_settings, redis_client
    run_state_machine_as_test(
        Fleet,
        settings=hypothesis_settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
