"""Growth: what a text costs when many are queued already, and what idle collections cost.

    python -m tests.bench.bench_growth --sizes 10000 100000 1000000 5000000

At each size: adding a tenth more texts, and leasing and giving back 5,000. A table in Redis that
has outgrown its size moves to a larger one bit by bit, with the commands that use it, so the
dearest 100,000 on the way are told too. Five million texts take 2.5 GB in Redis. Idle collections
are measured beside one idle worker: the commands that Redis is sent, and the processor time of the
worker, a second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from stored import Store

from worker import enqueue
from worker.store.adder import Adder
from worker.store.backlog import BATCH_SIZE, CHUNK_SIZE
from worker.types import Job

from .stack import Stack, stack, usage
from .table import Table, machine

NAME = "bench"
TEXT = "It was about as long as the paragraphs that people keep in their corpora, so they say. " * 3
PIECE = 100_000
CLAIMS = 50
COLUMNS = ("add us/text", "dearest", "claim us/text", "bytes/text")


def add(adder: Adder, first: int, last: int) -> float:
    """Microseconds a text, to add those from `first` to before `last`."""
    seconds = 0.0
    for start in range(first, last, CHUNK_SIZE):
        numbers = range(start, min(start + CHUNK_SIZE, last))
        jobs = [Job(f"doc-{i:08d}", f"{i:08d} {TEXT}") for i in numbers]
        begun = time.perf_counter()
        adder.add(jobs)
        seconds += time.perf_counter() - begun
    return seconds * 1e6 / (last - first)


def grown(on: Stack, store: Store, queued: int, size: int, empty: int) -> dict[str, float]:
    """What a text costs with `size` queued, of which `queued` are already. `empty` is what Redis
    took without any."""
    adder, backlog = store.adder(), store.backlog
    pieces = range(queued, size, PIECE)
    dearest = max(add(adder, first, min(first + PIECE, size)) for first in pieces)
    fifth = size // 50
    added = [add(adder, size + n * fifth, size + (n + 1) * fifth) for n in range(5)]
    begun = time.perf_counter()
    for _ in range(CLAIMS):
        backlog.keep_alive("bench")
        backlog.claim("bench")
        backlog.release("bench", end_slice=True)
    claimed = time.perf_counter() - begun
    return {
        "add us/text": statistics.median(added),
        "dearest": dearest,
        "claim us/text": claimed * 1e6 / (CLAIMS * BATCH_SIZE),
        "bytes/text": (on.used_memory() - empty) / backlog.size(),
    }


def idle(on: Stack, collections: int, seconds: float) -> dict[str, float]:
    """What that many idle collections cost beside one worker."""
    on.flush()
    url, _ = on.api(0.0)
    settings = on.settings()
    names = [f"idle-{i}" for i in range(collections)]
    with on.workers(1, 4, {"VECTOR_EMBED_BASE_URL": url}) as (pid,):
        for name in names:
            enqueue([f"a text of {name}"], name, settings=settings)
        while any(Store(name, settings=settings).backlog.size() for name in names[-20:]):
            time.sleep(0.1)
        time.sleep(2)
        commands, used = _commands(on), usage(pid).cpu_seconds
        time.sleep(seconds)
        return {
            "commands/s": (_commands(on) - commands) / seconds,
            "worker cpu ms/s": (usage(pid).cpu_seconds - used) * 1000 / seconds,
        }


def _commands(on: Stack) -> int:
    return int(on.client.info("stats")["total_commands_processed"])


def bench(sizes: Sequence[int], collections: Sequence[int], runs: int, seconds: float) -> None:
    with stack() as on:
        table = Table("texts queued", COLUMNS)
        for _ in range(runs):
            on.flush()
            queued, empty = 0, on.used_memory()
            store = Store(NAME, settings=on.settings())
            for size in sorted(sizes):
                table.add(f"{size:,}", **grown(on, store, queued, size, empty))
                queued = size + size // 10
        table.ratios("add us/text", f"{min(sizes):,}")
        table.show()
        table = Table("idle collections", ("commands/s", "worker cpu ms/s"))
        for count in collections:
            table.add(f"{count:,}", **idle(on, count, seconds))
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--collections", type=int, nargs="+", default=[1, 1000])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="idle collections are watched")
    asked = parser.parse_args()
    steps = zip([0, *sorted(asked.sizes)], sorted(asked.sizes))
    if any(size < max(1000, queued * 1.2) for queued, size in steps):
        parser.error("--sizes: each 1,000 at least, and a fifth more than the one before")
    print(machine())
    bench(asked.sizes, asked.collections, asked.runs, asked.seconds)


if __name__ == "__main__":
    main()
