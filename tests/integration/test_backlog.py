"""The steps of a backlog, one by one, on a real redis-server: the ledger is exact after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from redis.crc import key_slot
from stored import Bench, check_ledger, claim_quarantined, ids, pairs, positions, vector_of

from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE, LEASE_SECONDS, WAKEUP_EXPIRY
from worker.store.errors import CollectionError, DimensionsDiffer
from worker.types import (
    Added,
    Committed,
    Embedded,
    Job,
    Lease,
    Refused,
)

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
    assert bench.collection.model() == "m"


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
    assert (record.id, record.tobytes()) == (id, vector_of("text"))


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
    bench.collection.backlog.keep_alive("c")
    key = f"vec:{{{bench.collection.name}}}:alive:c"
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        client.expire(key, 1000)
        bench.collection.backlog.keep_alive("c")
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


def quarantine(bench: Bench) -> None:
    """Two owners of all that is queued die, and somebody has seen it."""
    for consumer in ("first", "second"):
        bench.claim(consumer)
        bench.kill(consumer)
    bench.claim("heir")
    bench.release("heir", end_slice=True)


def test_texts_whose_owners_died_twice_are_leased_to_those_alone_who_ask_for_them(
    bench: Bench,
) -> None:
    bench.add(*pairs(12))
    quarantine(bench)
    bench.add(("new", "text"))
    assert ids(bench.claim()) == ["new"]
    assert bench.collection.backlog.has_quarantined()
    some = claim_quarantined(bench)
    assert ids(some) == [id for id, _ in pairs(10)]
    bench.commit(some)
    assert ids(claim_quarantined(bench)) == ["id10", "id11"]
    assert not bench.collection.backlog.has_quarantined()


def test_texts_whose_owners_died_thrice_are_leased_alone_those_that_died_least_first(
    bench: Bench,
) -> None:
    bench.add(*pairs(13))
    quarantine(bench)
    assert len(claim_quarantined(bench, "dies")) == 10
    bench.kill("dies")
    assert bench.claim() == []
    bench.commit(claim_quarantined(bench))
    assert ids(claim_quarantined(bench, "dies")) == ["id0"]
    bench.kill("dies")
    assert bench.claim() == []
    claims = []
    while leases := claim_quarantined(bench):
        claims.append([(lease.job.id, lease.lost) for lease in leases])
        bench.commit(leases)
    assert claims == [[(f"id{n}", 3)] for n in range(1, 10)] + [[("id0", 4)]]


def test_a_quarantined_text_that_leaves_unpaid_hides_no_work_behind_it(bench: Bench) -> None:
    bench.add(("a", "home"))
    bench.embed_all()
    bench.add(("a", "away"), ("b", "text"))
    quarantine(bench)
    bench.add(("a", "home"))
    assert bench.claim() == []
    assert ids(claim_quarantined(bench)) == ["b"]


def test_quarantined_texts_whose_claim_was_lost_are_given_again_and_no_others(bench: Bench) -> None:
    bench.add(("a", "text"))
    quarantine(bench)
    assert bench.claim("b") == []
    lost = claim_quarantined(bench)
    assert ids(lost) == ["a"]
    bench.add(*pairs(3))
    assert claim_quarantined(bench) == lost


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
    settings: Settings, redis_client: redis.Redis
) -> None:
    bench = Bench(settings)
    bench.add(*pairs(3))
    leases = bench.claim()
    key = "vec:{wiki}:alive:c"
    redis_client.pexpire(key, 1000)
    redis_client.config_set("maxmemory", 1)
    try:
        bench.collection.backlog.keep_alive("c")
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
    assert bench.collection.backlog.wake(8) == []
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


def test_a_server_that_forgot_the_steps_is_sent_them_again(settings: Settings) -> None:
    bench = Bench(settings)
    bench.add(*pairs(3))
    with redis.Redis.from_url(settings.redis_url) as client:
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


def meta_of(bench: Bench, id: str) -> object:
    record = bench.collection.get(id)
    assert record is not None
    return record.meta


@pytest.mark.parametrize("where", ["queued", "leased", "stored", "queued over a stored one"])
def test_an_unchanged_text_gets_the_latest_meta_without_being_paid_for_again(
    bench: Bench, where: str
) -> None:
    add = bench.collection.adder().add
    add([Job("a", "text", {"page": 1}), Job("b", "text", {"page": 1})])
    if where == "leased":
        bench.claim()
    elif where != "queued":
        bench.embed_all()
    if where == "queued over a stored one":
        bench.add(("a", "other"))
    before = positions(bench)
    added = bench.collection.adder().add([Job("a", "text", {"page": 2})])
    assert added.new == (1 if where == "queued over a stored one" else 0)
    paid = [] if "stored" not in where else ids(bench.claim())
    assert paid == []
    bench.kill("c")
    bench.embed_all()
    assert (meta_of(bench, "a"), meta_of(bench, "b")) == ({"page": 2}, {"page": 1})
    assert bench.stored() == dict.fromkeys("ab", vector_of("text"))
    assert bench.counts == (2, 0, 0, 0)
    assert bench.status.enqueued == 2
    if before:  # it is exported again
        assert [one.id for one in positions(bench, after=before[-1].number)] == ["a"]


def with_pages(bench: Bench, *pages: int, text: str = "text") -> None:
    """The same text again and again, with other kept fields."""
    for page in pages:
        bench.collection.adder().add([Job("a", text, {"page": page})])


@pytest.mark.parametrize("later", ["queued", "leased", "released", "replaced twice"])
def test_a_text_in_flight_that_comes_again_with_another_meta_is_paid_for_once(
    bench: Bench, later: str
) -> None:
    bench.add(("b", "before"), ("a", "before"))
    bench.embed_all()
    with_pages(bench, 1)
    leases = bench.claim("slow")
    bench.add(("c", "text"), ("d", "text"))
    with_pages(bench, 2)
    twice = bench.claim("quick") if later in ("leased", "released") else []
    if later == "released":
        bench.release("quick", end_slice=True)
    elif later == "replaced twice":
        with_pages(bench, 9, text="another")
        with_pages(bench, 2)
    assert bench.commit(leases) == Committed(stored=1, dead=0, superseded=0, fenced=0)
    assert bench.commit(leases) == Committed(stored=0, dead=0, superseded=0, fenced=1)
    assert meta_of(bench, "a") == {"page": 2}
    assert bench.stored()["a"] == vector_of("text")
    if later == "leased":
        assert bench.commit(twice) == Committed(stored=2, dead=0, superseded=0, fenced=1)
    paid = ids(bench.claim("quick"))
    assert paid == ([] if later == "leased" else ["c", "d"])
    bench.kill("quick")
    bench.embed_all()
    assert bench.counts == (4, 0, 0, 0)
    assert not bench.redis.exists("vec:{wiki}:attempts", "vec:{wiki}:queued")


@pytest.mark.parametrize("latest", ["leased too", "queued"])
def test_of_several_jobs_with_one_text_in_one_commit_one_is_stored(
    bench: Bench, latest: str
) -> None:
    with_pages(bench, 1)
    leases = bench.claim("slow")
    with_pages(bench, 2)
    leases += bench.claim("quick")
    if latest == "queued":
        with_pages(bench, 3)
    assert bench.commit(leases[::-1]) == Committed(stored=1, dead=0, superseded=1, fenced=0)
    assert meta_of(bench, "a") == {"page": 3 if latest == "queued" else 2}
    assert bench.counts == (1, 0, 0, 0)


def test_a_text_in_flight_that_is_refused_leaves_the_verdict_to_its_latest_job(
    bench: Bench,
) -> None:
    with_pages(bench, 1)
    leases = bench.claim()
    with_pages(bench, 2)
    assert bench.commit([], leases) == Committed(stored=0, dead=0, superseded=1, fenced=0)
    bench.embed_all()
    assert meta_of(bench, "a") == {"page": 2}


@pytest.mark.parametrize("where", ["stored", "leased"])
def test_a_text_that_leaves_unpaid_counts_as_enqueued_when_its_latest_job_was(
    bench: Bench, where: str
) -> None:
    with_pages(bench, 1)
    leases = bench.claim()
    if where == "stored":
        bench.commit(leases)
    known = bench.collection.reader.known(["a"])
    bench.add(("a", "other"))
    with_pages(bench, 1)
    if where == "leased":
        bench.commit(leases)
    bench.embed_all()
    assert bench.collection.removal.remove([("a", b"")], known.born, known.seq) == 0
    assert bench.stored() == {"a": vector_of("text")}


def test_a_meta_stays_if_the_text_comes_again_without_one_or_with_the_same(bench: Bench) -> None:
    meta = {"page": 1, "title": "é"}
    for job in (Job("a", "text", meta), Job("a", "text", meta), Job("a", "text")):
        bench.collection.adder().add([job])
        bench.embed_all()
        assert meta_of(bench, "a") == meta
    assert [one.number for one in positions(bench)] == [1]


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
        bench.collection.backlog.commit(wrong, [Refused(second, "poison", "no")])
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
        bench.collection.backlog.commit(mixed)
    assert bench.counts == (0, 0, 0, 2)
    assert bench.status.dimensions is None


def test_cached_answers_are_counted(bench: Bench) -> None:
    bench.add(*pairs(3))
    first, *others = bench.claim()
    bench.collection.backlog.commit([Embedded(first, vector_of("x"), True)])
    bench.commit(others)
    assert bench.status.cached == 1
    records = bench.collection.get_many(["id0", "id1"])
    assert [record is not None and record.cached for record in records] == [True, False]
    assert [record.cached for record in bench.collection.reader.finished(0, 10)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("length", [12, 64])
def test_a_stored_vector_costs_at_most_1000_bytes_over_its_numbers(
    settings: Settings, redis_client: redis.Redis, length: int
) -> None:
    bench = Bench(settings)
    if not redis_client.info("memory")["mem_allocator"].startswith("jemalloc"):
        pytest.skip("sizes are those of jemalloc, as Redis is built")
    count = 1000
    bench.add(*((f"{number:0{length}d}", f"text {number}") for number in range(count)))
    while leases := bench.claim():
        vectors = [vector_of(lease.job.text, 768) for lease in leases]
        # The dearest: answered from the API's cache.
        bench.collection.backlog.commit([Embedded(*pair, True) for pair in zip(leases, vectors)])
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
    bench.collection.backlog.commit(
        [Embedded(lease, vector_of("one"), True) for lease in (a, b, c)]
    )
    assert bench.add(("a", "one"), ("c", "two"), run="p") == Added(0, 0, 2, 0)
    bench.embed_all()
    assert [place[:2] for place in positions(bench)] == [
        (2**52 + 1, "a"),
        (2**52 + 2, "b"),
        (2**52 + 4, "c"),
    ]
    bench.collection.eviction.renumber(positions(bench)[:1], 2**52 + 100)
    assert [place[:2] for place in positions(bench)] == [
        (2**52 + 2, "b"),
        (2**52 + 4, "c"),
        (2**52 + 101, "a"),
    ]
    assert [(record.id, record.cached) for record in bench.collection] == [
        ("b", True),
        ("c", False),
        ("a", True),
    ]
    assert bench.collection.eviction.evict("us", positions(bench)) == 3
    assert check_ledger(bench.status).evicted == 3


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


# Retry


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
    bench.collection.backlog.commit(
        [], [Refused(lease, code, "") for lease, code in zip(leases, codes)]
    )
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


# Wake-ups


def expire_wakeups(bench: Bench) -> None:
    """As if all wake-ups had been sent a while ago."""
    key = f"vec:{{{bench.collection.name}}}:wakeups"
    with redis.Redis.from_url(bench.settings.redis_url) as client:
        for token in client.zrange(key, 0, -1):
            client.zincrby(key, -WAKEUP_EXPIRY * 1000 - 1, token)


def test_there_are_never_more_wakeups_than_batches_or_slots(bench: Bench) -> None:
    bench.add(*pairs(250))
    assert len(bench.collection.backlog.wake(2)) == 2
    assert len(bench.collection.backlog.wake(8)) == 1
    assert bench.collection.backlog.wake(8) == []


def test_a_wakeup_answered_makes_room_for_another_and_a_double_for_none(bench: Bench) -> None:
    bench.add(*pairs(250))
    tokens = bench.collection.backlog.wake(2)
    assert len(set(tokens)) == 2
    assert [bench.collection.backlog.acknowledge(tokens[0]) for _ in range(2)] == [True, False]
    assert len(bench.collection.backlog.wake(2)) == 1


def test_lost_wakeups_are_replaced_when_they_have_expired(bench: Bench) -> None:
    bench.add(*pairs(250))
    first = bench.collection.backlog.wake(8)
    assert bench.collection.backlog.wake(8) == []
    expire_wakeups(bench)
    second = bench.collection.backlog.wake(8)
    assert len(second) == 3
    assert not any(bench.collection.backlog.acknowledge(token) for token in first)
    assert all(bench.collection.backlog.acknowledge(token) for token in second)


def test_no_wakeup_is_worth_sending_while_slices_have_it_all(bench: Bench) -> None:
    bench.add(*pairs(250))
    for consumer in ("c", "d"):
        bench.claim(consumer)
    assert bench.collection.backlog.wake(2) == []
    assert len(bench.collection.backlog.wake(8)) == 1
    bench.claim("e")
    expire_wakeups(bench)
    assert bench.collection.backlog.wake(8) == []


def test_what_dead_consumers_hold_and_what_was_released_is_worth_waking_for(bench: Bench) -> None:
    bench.add(*pairs(200))
    bench.claim("dead")
    bench.claim("tired")
    assert bench.collection.backlog.wake(8) == []
    bench.kill("dead")
    assert len(bench.collection.backlog.wake(8)) == 1
    bench.release("tired", end_slice=True)
    assert len(bench.collection.backlog.wake(8)) == 1


def test_every_key_of_a_step_lies_in_one_slot_of_a_cluster(settings: Settings) -> None:
    bench = Bench(settings)
    bench.add(("a", "good"), ("{b}", "bad"), ("c}{", "open"))
    leases = bench.claim("host{1}:c")
    bench.commit(leases[:1], leases[1:2])
    bench.collection.backlog.wake(8)
    bench.release("host{1}:c", leases[2:])
    bench.collection.backlog.keep_alive("host{1}:c")
    with redis.Redis.from_url(settings.redis_url) as client:
        keys = [key for key in client.scan_iter(count=1000) if b"wiki" in key]
    slots = {key_slot(key) for key in keys}
    assert len(keys) >= 9
    assert len(slots) == 1
