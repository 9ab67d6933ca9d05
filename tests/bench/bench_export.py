"""Exporting: vectors a second from Redis into a file, against a pipelined read of the same keys.

    python -m tests.bench.bench_export --vectors 1000000

`vec export` is timed as a whole process. The limit reads every vector, 500 in a pipeline, and does
nothing with it; that of `.jsonl` is orjson, one vector at a time into a file, on a tenth of them. A
million vectors take 4 GB in Redis, and 10 GB on disk as `.jsonl`.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy
import orjson

from .stack import Stack, stack
from .table import Table, machine

NAME = "bench"
FILL_LUA = """
local info, done = KEYS[1], KEYS[2]
redis.call('HSET', info, 'model', 'nomic-v1.5', 'dimensions', #ARGV[4] / 4)
for i = tonumber(ARGV[2]), tonumber(ARGV[3]) do
  local id, vector = string.format('document-%08d', i), ARGV[4 + i % (#ARGV - 3)]
  redis.call('HSET', ARGV[1] .. id, 'vector', vector, 'hash', '0123456789abcdef' .. i .. ' ' .. i)
  redis.call('XADD', done, i .. '-0', 'id', id)
end
redis.call('HSET', info, 'commits', ARGV[3], 'enqueued', ARGV[3])
"""
COLUMNS = ("vectors/s", "MB/s", "peak MB")


def fill(on: Stack, count: int, dimensions: int = 768) -> None:
    """A collection of that many vectors, as commits would leave it."""
    rows = [row[:dimensions].tobytes() for row in _rows()]
    script = on.client.register_script(FILL_LUA)
    keys = [f"vec:{{{NAME}}}:info", f"vec:{{{NAME}}}:done"]
    on.client.sadd("vec:collections", NAME)
    for first in range(1, count + 1, 1000):
        script(keys, [f"vec:{{{NAME}}}:doc:", first, min(count, first + 999), *rows])


def read(on: Stack, count: int) -> dict[str, float]:
    """The limit: every vector through a pipeline."""
    begun = time.perf_counter()
    for first in range(1, count + 1, 500):
        pipeline = on.client.pipeline(transaction=False)
        for i in range(first, min(count, first + 499) + 1):
            pipeline.hget(f"vec:{{{NAME}}}:doc:document-{i:08d}", "vector")
        pipeline.execute()
    return _row(count, time.perf_counter() - begun)


def encode(on: Stack, count: int) -> dict[str, float]:
    """The limit of JSON lines: orjson and a file."""
    rows, some = _rows(), count // 10
    path = on.directory / "limit.jsonl"
    begun = time.perf_counter()
    with path.open("wb") as file:
        for i in range(some):
            file.write(orjson.dumps(rows[i % len(rows)], option=orjson.OPT_SERIALIZE_NUMPY))
        file.flush()
        os.fsync(file.fileno())
    row = _row(some, time.perf_counter() - begun)
    path.unlink()
    return row


def _rows() -> list[numpy.ndarray[Any, Any]]:
    rng = numpy.random.default_rng(1)
    return list(rng.normal(0, 0.04, (100, 768)).astype(numpy.float32))


def export(on: Stack, count: int, suffix: str) -> dict[str, float]:
    """`vec export`, the whole process."""
    output = on.directory / f"vectors{suffix}"
    ran = on.run("vec", "export", NAME, "-o", str(output))
    assert f"{count:,}" in ran.said, ran.said
    output.unlink()
    return {**_row(count, ran.seconds), "peak MB": ran.peak_megabytes}


def _row(count: int, seconds: float) -> dict[str, float]:
    return {"vectors/s": count / seconds, "MB/s": count * 3072 / 1e6 / seconds}


def bench(vectors: int, runs: int) -> None:
    with stack() as on:
        fill(on, vectors)
        table = Table(f"{vectors:,} x 768", COLUMNS)
        for _ in range(runs):
            table.add("a pipelined read", **read(on, vectors))
            table.add("orjson into a file", **encode(on, vectors))
            for suffix in (".npz", ".parquet", ".jsonl"):
                table.add(f"vec export {suffix}", **export(on, vectors, suffix))
        table.ratios("vectors/s", "a pipelined read")
        table.ratios("vectors/s", "orjson into a file")
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_export", description=__doc__)
    parser.add_argument("--vectors", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.vectors, asked.runs)


if __name__ == "__main__":
    main()
