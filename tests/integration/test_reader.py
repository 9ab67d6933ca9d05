"""What is read of a collection: its vectors, its dead letters and its ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from itertools import chain

import pytest
import redis
from forking import in_child
from servers import wait_until
from stored import Bench, pairs, vector_of

from worker.settings import Settings
from worker.store.backlog import CHUNK_SIZE
from worker.store.connection import Argument, Step
from worker.store.errors import CollectionError
from worker.store.eviction import DROP_SIZE
from worker.store.reader import PAGE_SIZE
from worker.types import (
    Job,
    Refused,
    Stored,
    text_digest,
)


def test_reading_goes_on_where_vectors_were_deleted_by_hand(bench: Bench) -> None:
    bench.add(*pairs(5))
    bench.embed_all()
    bench.redis.delete(*(f"vec:{{wiki}}:doc:id{number}" for number in (0, 1, 3)))
    assert [record.id for record in bench.collection.reader.finished(0, 2)] == ["id2"]
    assert [record.id for record in bench.collection] == ["id2", "id4"]


def test_a_dead_letter_tells_what_is_needed_to_understand_and_to_replay_it(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "naïve \U0001f600", {"page": 7})])
    bench.release("c", bench.claim())
    [lease] = bench.claim()
    bench.collection.backlog.commit([], [Refused(lease, "too_odd", "the API refuses it")])
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
        bench.collection.backlog.commit([], refused)
        bench.collection.backlog.commit([], refused)  # a second finisher, or a second copy
        bench.retry(["a"])
    assert bench.collection.reader.ledger().dead_ever == {"too_odd": 2, "worker_lost": 1}


def test_the_ledger_tells_how_long_the_oldest_text_has_waited(bench: Bench) -> None:
    assert bench.collection.reader.ledger().oldest_age == 0
    bench.add(("a", "old"))
    wait_until(lambda: bench.collection.reader.ledger().oldest_age > 0.05)
    bench.add(("b", "young"))
    assert bench.collection.reader.ledger().oldest_age > 0.05
    [old, young] = bench.claim()
    bench.commit([old])
    age = bench.collection.reader.ledger().oldest_age
    bench.commit([young])
    assert 0 <= age < 60 and bench.collection.reader.ledger().oldest_age == 0


def test_what_was_ever_embedded_is_counted_also_when_it_is_replaced(bench: Bench) -> None:
    for text in ("one", "two"):
        bench.add(("a", text))
        bench.commit(bench.claim())
    ledger = bench.collection.reader.ledger()
    assert (ledger.embedded, ledger.embedded_ever, ledger.cached_ever) == (1, 2, 0)


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
    seen = {(record := next(reading)).id: record.tobytes()}
    bench.add(("id1", "changed"))
    bench.embed_all()
    seen.update({record.id: record.tobytes() for record in reading})
    assert seen.keys() == {"id0", "id1", "id2"}
    assert seen["id1"] == vector_of("changed")


def test_an_iteration_outlives_the_connection_that_reads_ahead(settings: Settings) -> None:
    bench = Bench(settings)
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    pages = bench.collection.reader.pages()
    seen = next(pages)
    with redis.Redis.from_url(settings.redis_url) as client:
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
        pages = bench.collection.reader.pages()
        assert next(pages)[0].id == "id0"
        del pages
        assert bench.status.embedded == CHUNK_SIZE


def test_a_page_that_nobody_waits_for_leaves_no_answer_behind(bench: Bench) -> None:
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    for _ in range(3):
        keys = bench.collection.keys
        args: list[Argument] = [keys.doc_prefix, 0, PAGE_SIZE]
        Step(bench.redis, "store/finished", [keys.done, keys.info], args).send()
        assert bench.status.embedded == CHUNK_SIZE


def begun(bench: Bench, texts: Sequence[tuple[str, str]]) -> Iterator[list[Stored]]:
    """An iteration over the vectors of `texts`, the first page of which was read."""
    bench.add(*texts)
    bench.embed_all()
    pages = bench.collection.reader.pages()
    next(pages)
    return pages


def test_an_iteration_is_no_shorter_for_a_collection_that_is_dropped(bench: Bench) -> None:
    pages = begun(bench, pairs(CHUNK_SIZE))
    assert bench.collection.drop().vectors
    with pytest.raises(CollectionError, match=f"collection {bench.collection.name} was dropped"):
        list(pages)


def test_an_iteration_is_no_shorter_for_a_drop_that_was_broken_off(bench: Bench) -> None:
    texts = pairs(3 * DROP_SIZE)
    pages = begun(bench, texts[: 2 * DROP_SIZE])
    bench.collection.drop_in_part()
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
    bench: Bench,
) -> None:
    bench.add(*pairs(CHUNK_SIZE))
    bench.embed_all()
    pages = bench.collection.reader.pages()
    seen = [record.id for record in next(pages)]

    def read_on() -> None:
        ids = [record.id for record in chain.from_iterable(pages)]
        assert seen + ids == [id for id, _ in pairs(CHUNK_SIZE)]

    began = time.monotonic()
    assert in_child(read_on) == 0
    read_on()
    # Each reads what it asked for. An answer that the other one took counts as lost after 30 s.
    assert time.monotonic() - began < 29


def test_states_tell_which_text_is_where(bench: Bench) -> None:
    bench.add(("stored", "good"), ("dead", "bad"), ("both", "good"))
    bench.embed_all(refuse=["bad"])
    bench.add(("queued", "good"), ("both", "newer"))
    good, bad, newer = text_digest("good"), text_digest("bad"), text_digest("newer")
    stored, dead, queued, both, unknown = bench.collection.reader.states(
        ["stored", "dead", "queued", "both", "unknown"]
    )
    assert stored == (good, None, None)
    assert dead == (None, None, bad)
    assert queued == (None, good[:8], None)
    assert both == (good, newer[:8], None)
    assert unknown == (None, None, None)


def test_finished_vectors_come_in_pages_with_all_that_was_kept(bench: Bench) -> None:
    bench.collection.adder().add([Job("a", "one", {"n": 1}), Job("b", "two"), Job("c", "three")])
    bench.commit(bench.claim(), keep_text=True)

    first, second = bench.collection.reader.finished(0, 2)

    assert first == Stored(
        "a", vector_of("one"), "m", False, "one", {"n": 1}, 1, text_digest("one")
    )
    assert (second.id, second.number, second.meta) == ("b", 2, None)
    assert [record.id for record in bench.collection.reader.finished(2, 2)] == ["c"]
