"""Small calls: one text each, alone, from many threads and from many tasks of asyncio.

    python -m tests.bench.bench_calls

The limit is a bare client that sends an XADD and an LPUSH in one pipeline for each text, in as many
threads or tasks as we have. Round trips are counted by a proxy beside: pieces of requests that it
got, of calls one after the other, for each call; the wake-ups are among them. Connections are those
that were opened while a row was measured, by one process in all its threads.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import redis
import redis.asyncio
from servers import TcpProxy

from worker import aenqueue, enqueue
from worker.settings import Settings

from .stack import Stack, stack, usage
from .table import Table, machine

NAME = "bench"
TEXT = "It was about as long as the paragraphs that people keep in their corpora, so they say. " * 3
MESSAGE = "x" * 600  # as long as a wake-up
COLUMNS = (
    "calls/s",
    "cpu us/call",
    "cpu us/call of Redis",
    "p50 ms",
    "p99 ms",
    "connections",
)


class Row:
    """Calls of one kind, until `count` are done; measures them."""

    def __init__(self, on: Stack, count: int) -> None:
        self._on = on
        self._count = count
        self._opened = self._connections()
        self._used = [usage(pid).cpu_seconds for pid in self._pids()]
        self._took: list[float] = []
        self._begun = time.perf_counter()

    def timed(self, call: Callable[[], object]) -> None:
        begun = time.perf_counter()
        call()
        self._took.append(time.perf_counter() - begun)

    async def atimed(self, call: Awaitable[object]) -> None:
        begun = time.perf_counter()
        await call
        self._took.append(time.perf_counter() - begun)

    def end(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._begun
        used = [usage(pid).cpu_seconds for pid in self._pids()]
        ours, its = ((now - before) * 1e6 for now, before in zip(used, self._used))
        took = sorted(self._took)
        return {
            "calls/s": self._count / seconds,
            "cpu us/call": ours / self._count,
            "cpu us/call of Redis": its / self._count,
            "p50 ms": took[len(took) // 2] * 1000,
            "p99 ms": took[len(took) * 99 // 100] * 1000,
            "connections": self._connections() - self._opened,
        }

    def _pids(self) -> tuple[int, int]:
        return os.getpid(), self._on.redis_pid

    def _connections(self) -> int:
        return int(self._on.client.info("stats")["total_connections_received"])


def bare(client: redis.Redis, id: str) -> None:
    """The limit."""
    pipeline = client.pipeline(transaction=False)
    pipeline.xadd("bare", {"id": id, "text": TEXT})
    pipeline.lpush("messages", MESSAGE)
    pipeline.execute()


async def abare(client: redis.asyncio.Redis, id: str) -> None:
    """The limit for asyncio."""
    pipeline = client.pipeline(transaction=False)
    pipeline.xadd("bare", {"id": id, "text": TEXT})
    pipeline.lpush("messages", MESSAGE)
    await pipeline.execute()


def in_threads(on: Stack, count: int, threads: int, call: Callable[[str], object]) -> Row:
    each = max(1, count // threads)
    row = Row(on, each * threads)

    def work(thread: int) -> None:
        for number in range(each):
            row.timed(partial(call, f"{thread}-{number}"))

    if threads == 1:
        work(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    return row


async def in_tasks(
    on: Stack, count: int, tasks: int, call: Callable[[str], Awaitable[None]]
) -> Row:
    each = max(1, count // tasks)
    row = Row(on, each * tasks)

    async def work(task: int) -> None:
        for number in range(each):
            await row.atimed(call(f"{task}-{number}"))

    await asyncio.gather(*map(work, range(tasks)))
    return row


def threads_row(on: Stack, count: int, threads: int, *, ours: bool) -> dict[str, float]:
    on.flush()
    if ours:
        settings = on.settings()
        enqueue(["first"], NAME, settings=settings)
        row = in_threads(
            on, count, threads, lambda id: enqueue([(id, TEXT)], NAME, settings=settings)
        )
        return row.end()
    with redis.Redis.from_url(on.redis_url, max_connections=1000) as client:
        client.ping()
        return in_threads(on, count, threads, lambda id: bare(client, id)).end()


def tasks_row(on: Stack, count: int, tasks: int, *, ours: bool) -> dict[str, float]:
    on.flush()

    async def measured() -> dict[str, float]:
        if ours:
            settings = on.settings()

            async def call(id: str) -> None:
                await aenqueue([(id, TEXT)], NAME, settings=settings)

            await aenqueue(["first"], NAME, settings=settings)
            return (await in_tasks(on, count, tasks, call)).end()
        # Beyond a hundred, more connections make it slower, and the server refuses some.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            on.redis_url, max_connections=100, timeout=60
        )
        async with redis.asyncio.Redis(connection_pool=pool) as client:
            await client.ping()
            return (await in_tasks(on, count, tasks, lambda id: abare(client, id))).end()

    return asyncio.run(measured())


class Counted(TcpProxy):
    """Counts the pieces of requests that pass."""

    pieces = 0
    _counting = threading.Lock()

    def _carry_requests(self, line):  # type: ignore[no-untyped-def]
        receive = line.client.recv

        def counted(size: int) -> bytes:
            data: bytes = receive(size)
            with self._counting:
                self.pieces += bool(data)
            return data

        line.client = _Counted(line.client, counted)
        super()._carry_requests(line)


class _Counted:
    """A socket whose `recv` is another."""

    def __init__(self, socket: object, recv: Callable[[int], bytes]) -> None:
        self._socket = socket
        self.recv = recv

    def __getattr__(self, name: str) -> object:
        return getattr(self._socket, name)


def round_trips(on: Stack, calls: int, collections: int) -> float:
    """Of a call, in the middle of a process's life: each with a pause behind it."""
    on.flush()
    line = Counted(on.redis_url)
    try:
        settings = Settings(redis_url=line.url, broker_url=line.url)
        for number in range(collections):
            enqueue(["first"], f"{NAME}-{number}", settings=settings)
        time.sleep(0.2)
        before = line.pieces
        for number in range(calls):
            name = f"{NAME}-{number % collections}"
            on.client.delete(f"vec:{{{name}}}:wakeups")  # as if a worker had answered it
            enqueue([f"text {number}"], name, settings=settings)
            time.sleep(0.1)
        return (line.pieces - before) / calls
    finally:
        line.close()


def bench(count: int, runs: int) -> None:
    with stack() as on:
        for title, row, sizes in (
            ("a text a call, in threads", threads_row, (1, 20, 100)),
            ("a text a call, in tasks of asyncio", tasks_row, (1, 200, 1000)),
        ):
            for size in sizes:
                table = Table(f"{title}: {size}", COLUMNS)
                for _ in range(runs):
                    table.add("XADD + LPUSH", **row(on, count, size, ours=False))
                    table.add("enqueue", **row(on, count, size, ours=True))
                table.ratios("calls/s", "XADD + LPUSH")
                table.show()
        table = Table("round trips, the wake-up's among them", ("a call",))
        table.add("one collection", **{"a call": round_trips(on, 20, 1)})
        table.add("ten collections", **{"a call": round_trips(on, 20, 10)})
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_calls", description=__doc__)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    print(machine())
    bench(asked.calls, asked.runs)


if __name__ == "__main__":
    main()
