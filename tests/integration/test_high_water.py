"""Who waits for room: texts that overtake others do not wait behind them, in a call or in a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count as count_from
from typing import cast

import pytest
import redis
from stored import Store

from worker import BacklogFull, Receipt, enqueue
from worker.settings import Settings

HIGH_WATER = 1000
FEW, MANY = 1, 1000  # texts of a call, and of a run
Put = Callable[..., Receipt]


@pytest.fixture
def wiki(settings: Settings) -> Store:
    return Store("wiki", settings=settings)


@pytest.fixture
def put(settings: Settings) -> Put:
    """Enqueue texts that begin with a word; it waits for nothing."""
    full = dataclasses.replace(settings, high_water=HIGH_WATER)

    def enqueue_some(priority: str, count: int, word: str = "") -> Receipt:
        texts = [f"{word or priority} {number}" for number in range(count)]
        return enqueue(texts, "wiki", priority=priority, timeout=0, settings=full)

    return enqueue_some


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize(
    ("before", "priority", "enters"),
    [
        ("bulk", "bulk", False),
        ("bulk", "normal", True),
        ("bulk", "interactive", True),
        ("normal", "bulk", False),
        ("normal", "normal", False),
        ("normal", "interactive", True),
        ("interactive", "bulk", False),
        ("interactive", "normal", False),
        ("interactive", "interactive", False),
    ],
)
def test_above_the_high_water_what_overtakes_all_that_waits_enters(
    before: str, priority: str, enters: bool, count: int, put: Put, wiki: Store
) -> None:
    put(before, HIGH_WATER)
    if enters:
        assert put(priority, count, "more").new == count
    else:
        with pytest.raises(BacklogFull, match="because 1,000 texts are queued already"):
            put(priority, count, "more")
    assert wiki.status().enqueued == HIGH_WATER + enters * count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_what_overtakes_waits_behind_what_goes_with_it(count: int, put: Put, wiki: Store) -> None:
    for priority in ("bulk", "normal", "interactive"):
        put(priority, HIGH_WATER)
    for priority in ("bulk", "normal", "interactive"):
        with pytest.raises(BacklogFull):
            put(priority, count, "more")
    assert wiki.status().enqueued == 3 * HIGH_WATER


@pytest.mark.parametrize("count", [FEW, MANY])
def test_interactive_texts_do_not_wait_behind_normal_ones_that_overtake_bulk(
    count: int, put: Put
) -> None:
    put("bulk", HIGH_WATER)
    put("normal", HIGH_WATER)
    with pytest.raises(BacklogFull, match="because 1,000 texts are queued already"):
        put("normal", count, "more")
    assert put("interactive", count).new == count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_what_has_left_unseen_takes_no_room(
    count: int, put: Put, wiki: Store, redis_client: redis.Redis
) -> None:
    put("bulk", 1)
    put("interactive", HIGH_WATER)
    _, *entries = cast("list[tuple[bytes, object]]", redis_client.xrange(wiki.keys.jobs))
    for entry, _ in entries:  # as workers of an earlier version do
        redis_client.xdel(wiki.keys.jobs, entry)
    assert put("interactive", count, "more").new == count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_normal_texts_wait_with_the_others_once_no_bulk_is_in_front(
    count: int, put: Put, wiki: Store
) -> None:
    put("bulk", 100)
    put("normal", HIGH_WATER - 100)
    assert put("normal", FEW, "behind bulk").new == FEW
    wiki.backlog.keep_alive("worker:1")
    assert len(wiki.backlog.claim("worker:1", 1100)) == HIGH_WATER + FEW  # in hand, and still there
    with pytest.raises(BacklogFull):
        put("normal", count, "more")
    assert put("interactive", count).new == count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_text_that_waits_is_raised_above_the_high_water(count: int, put: Put) -> None:
    put("bulk", HIGH_WATER, "the same")
    assert put("interactive", count, "the same").unchanged == count
    with pytest.raises(BacklogFull):
        put("bulk", count, "the same")


def fill(client: redis.Redis, share: float) -> None:
    """Let what Redis uses be this part of its limit."""
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", int(used / share))


@pytest.fixture
def nearly_full(
    redis_client: redis.Redis, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Redis is 65 % full, of so much that a few connections make no difference; all calls look."""
    monkeypatch.setattr("worker.producer.lane.LOOK_SECONDS", 0)
    enqueue(["text"], "wiki", priority="bulk", settings=settings)
    redis_client.setrange("others", 20_000_000, b"x")
    fill(redis_client, 0.65)
    yield
    redis_client.config_set("maxmemory", 0)


@pytest.mark.usefixtures("nearly_full")
@pytest.mark.parametrize("count", [FEW, 110])
def test_what_overtakes_may_use_memory_that_others_leave_but_not_all(
    count: int, put: Put, wiki: Store, redis_client: redis.Redis
) -> None:
    with pytest.raises(BacklogFull, match="because Redis is 6.% full"):
        put("bulk", count)
    assert put("normal", count).new == count  # bulk waits
    assert put("interactive", count).new == count
    fill(redis_client, 0.75)
    for priority in ("bulk", "normal", "interactive"):
        with pytest.raises(BacklogFull, match="because Redis is 7.% full"):
            put(priority, count, "more")
    assert wiki.status().enqueued == 1 + 2 * count


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_wait_is_one_line_of_the_log_however_its_number_changes(
    count: int, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"crowded-{count}"  # of which no other test has said that it waits
    full = dataclasses.replace(settings, high_water=HIGH_WATER)
    enqueue([f"text {number}" for number in range(HIGH_WATER)], name, settings=full, timeout=0)
    with ThreadPoolExecutor(1) as pool:
        more = [f"more {number}" for number in range(count)]
        waiting = pool.submit(enqueue, more, name, settings=full, timeout=0.8)
        for number in count_from(0):
            if waiting.done():
                break
            enqueue([f"other {number}"], name, settings=settings)

        with pytest.raises(BacklogFull):
            waiting.result()

    [line] = [line for line in caplog.messages if "waits for room" in line]
    assert line.startswith(f"enqueue waits for room in {name}: 1,")
    assert line.endswith(" texts are queued already")
