"""Storing: what a vector costs in Redis, and a commit of 100 against a bare fenced Lua.

    python -m tests.bench.bench_store

The bare Lua makes the same writes with one fence an entry, and nothing else: no look at what is
stored already, no superseded jobs, no dead letters. Bytes are what Redis' memory grew by, divided
by the vectors, after everything was drained: keys, hashes, the order of commits and all.
"""

from __future__ import annotations

import argparse
import random
import struct
import time
from collections.abc import Iterator

from stored import Store

from worker import enqueue
from worker.types import Embedded, Lease, text_digest

from .stack import Stack, stack
from .table import Table, machine

NAME = "bench"
DIMENSIONS = 768
# KEYS jobs, queued, info, done; ARGV doc prefix, then per vector: entry, id, digest, vector.
BARE_LUA = """
local jobs, queued, info, done = unpack(KEYS)
for i = 2, #ARGV, 4 do
  local entry, id, digest, vector = unpack(ARGV, i, i + 3)
  if redis.call('XACK', jobs, 'workers', entry) == 1 then
    redis.call('XDEL', jobs, entry)
    redis.call('HDEL', queued, id)
    local at = redis.call('HINCRBY', info, 'commits', 1)
    local hash = digest .. string.match(entry, '-(%d+)$') .. ' ' .. at
    redis.call('HSET', ARGV[1] .. id, 'vector', vector, 'hash', hash)
    redis.call('XADD', done, at .. '-0', 'id', id)
  end
end
"""


def vectors(count: int) -> list[bytes]:
    rng = random.Random(1)
    return [struct.pack("<768f", *(rng.gauss(0, 0.04) for _ in range(768))) for _ in range(count)]


def leases(on: Stack, ids: list[str]) -> Iterator[list[Lease]]:
    """A collection with `ids` queued, and all of them leased, 100 at a time."""
    on.flush()
    settings = on.settings(high_water=10**9)
    text = "of about the length of a sentence " * 5
    enqueue(((id, f"text number {i}, {text}") for i, id in enumerate(ids)), NAME, settings=settings)
    collection = Store(NAME, settings=settings)
    collection.backlog.keep_alive("bench")
    while claimed := collection.backlog.claim("bench"):
        collection.backlog.keep_alive("bench")
        yield claimed


def commit(on: Stack, ids: list[str], cached: bool) -> dict[str, float]:
    """Our commit of all `ids`, and what Redis holds in the end."""
    rows = vectors(100)
    collection = Store(NAME, settings=on.settings())
    seconds = 0.0
    for claimed in leases(on, ids):
        outcomes = [Embedded(lease, row, cached) for lease, row in zip(claimed, rows)]
        begun = time.perf_counter()
        collection.backlog.commit(outcomes)
        seconds += time.perf_counter() - begun
    return {"commits/s": len(ids) / 100 / seconds, "bytes/vector": _bytes(on, len(ids))}


def bare(on: Stack, ids: list[str]) -> dict[str, float]:
    """The bare Lua on the same claims."""
    rows = vectors(100)
    script = on.client.register_script(BARE_LUA)
    keys = [f"vec:{{{NAME}}}:{key}" for key in ("jobs", "queued", "info", "done")]
    seconds = 0.0
    for claimed in leases(on, ids):
        begun = time.perf_counter()
        args: list[bytes | str] = [f"vec:{{{NAME}}}:doc:"]
        for lease, row in zip(claimed, rows):
            args += (lease.entry, lease.job.id, text_digest(lease.job.text), row)
        script(keys, args)
        seconds += time.perf_counter() - begun
    return {"commits/s": len(ids) / 100 / seconds, "bytes/vector": _bytes(on, len(ids))}


def _bytes(on: Stack, count: int) -> float:
    used = on.used_memory()
    on.flush()
    return (used - on.used_memory()) / count


def bench(texts: int, runs: int) -> None:
    with stack() as on:
        for name, form in (
            ("12-byte ids", "docum-{:06d}"),
            ("64-byte ids", "{:064x}"),
        ):
            ids = [form.format(i) for i in range(texts)]
            table = Table(f"commit of 100, {name}", ("commits/s", "bytes/vector"))
            for _ in range(runs):
                table.add("a bare fenced Lua", **bare(on, ids))
                table.add("commit", **commit(on, ids, cached=False))
                table.add("commit, cached", **commit(on, ids, cached=True))
            table.ratios("commits/s", "a bare fenced Lua")
            table.show()
        print(f"the limit: {4 * DIMENSIONS:,} + 1,000 bytes a vector")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_store", description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.texts, asked.runs)


if __name__ == "__main__":
    main()
