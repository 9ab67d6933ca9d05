"""Producers and readers in an asyncio loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest
import redis
from servers import TcpProxy
from stored import Bench, pairs

from worker import Receipt, Settings, UnknownCollection, aenqueue
from worker.store.eviction import DROP_SIZE
from worker.store.waiter import THREADS


@pytest.mark.heavy
async def test_a_thousand_calls_of_one_text_share_a_handful_of_connections(
    bench: Bench, redis_client: redis.Redis
) -> None:
    def opened() -> int:
        return int(redis_client.info("stats")["total_connections_received"])

    before = opened()
    receipts = await asyncio.gather(
        *(aenqueue([pair], "wiki", settings=bench.settings) for pair in pairs(1000))
    )
    assert sum(receipt.new for receipt in receipts) == 1000
    assert opened() - before <= 16  # of four threads, two for Redis and one for the broker each
    assert bench.status.pending == 1000


async def test_loads_that_wait_for_room_keep_no_one_else_waiting(bench: Bench) -> None:
    settings = replace(bench.settings, high_water=1000)

    def put(count: int, word: str, priority: str) -> Coroutine[None, None, Receipt]:
        texts = [f"{word} {n}" for n in range(count)]
        return aenqueue(texts, "wiki", priority=priority, timeout=60, settings=settings)

    await put(1000, "first", "bulk")
    loads = [asyncio.create_task(put(101, f"load {n}", "bulk")) for n in range(THREADS)]
    await asyncio.sleep(0)  # all have begun
    urgent = await asyncio.wait_for(put(101, "urgent", "interactive"), 20)
    status = await asyncio.wait_for(urgent.astatus(), 20)
    assert (status.waiting, any(load.done() for load in loads)) == (101, False)
    bench.collection.drop()
    assert [receipt.new for receipt in await asyncio.gather(*loads)] == [101] * THREADS


async def test_the_loop_is_free_while_redis_does_not_answer(
    bench: Bench, redis_client: redis.Redis
) -> None:
    redis_client.client_pause(1500, all=True)
    calls = [aenqueue([pair], "wiki", settings=bench.settings) for pair in pairs(20)]
    waiting = asyncio.gather(*calls)
    longest, last = 0.0, time.monotonic()
    while not waiting.done():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    assert longest < 0.75
    assert bench.status.pending == 20


async def test_a_redis_that_was_away_is_found_again(
    bench: Bench, settings: Settings, proxy: Callable[[str], TcpProxy]
) -> None:
    line = proxy(settings.redis_url)
    far = Settings(redis_url=line.url, broker_url=line.url, model="m")
    await aenqueue(["before"], "wiki", settings=far)
    line.refuse()
    for _ in range(8):
        with pytest.raises(redis.ConnectionError):
            await aenqueue(["during"], "wiki", settings=far)
    line.refuse(False)
    calls = [aenqueue([f"after {number}"], "wiki", settings=far) for number in range(8)]
    assert [receipt.new for receipt in await asyncio.gather(*calls)] == [1] * 8
    assert bench.status.pending == 9


async def test_vectors_are_read_as_they_are_without_asyncio(bench: Bench) -> None:
    wiki = bench.collection
    with pytest.raises(UnknownCollection):
        await wiki.await_done()
    with pytest.raises(UnknownCollection):
        async for _ in wiki:
            pass
    bench.add(*pairs(DROP_SIZE))
    assert (await wiki.await_done(timeout=0.3)).backlog == DROP_SIZE
    bench.embed_all()
    assert (await wiki.await_done()).embedded == DROP_SIZE
    assert [record async for record in wiki] == list(wiki)
    assert await wiki.aget("id7") == wiki.get("id7")
    assert await wiki.aget_many(["id7", "no"]) == wiki.get_many(["id7", "no"])
