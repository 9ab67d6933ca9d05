"""Enqueuing: texts a second from a file into Redis, against raw Lua XADD and against Celery.

    python -m tests.bench.bench_enqueue --texts 1000000

`vec-enqueue` is timed as a whole process, from its start to its end. The limit is one client that
sends chunks of 1,000 to a script that does nothing but XADD; its chunks are made beforehand. The
peer sends one Celery message for each text; celery-batches gets its work in the very same way.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .stack import Stack, stack, usage
from .table import Table, machine

NAME = "bench"
TEXT = "It was about as long as the paragraphs that people keep in their corpora, so they say. " * 3
XADD_LUA = """
for i = 1, #ARGV, 2 do redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'text', ARGV[i + 1]) end
"""
COLUMNS = ("texts/s", "seconds", "cpu us/text", "peak MB", "bytes/text", "over text + 2 ids")


def records(texts: int, hashes: bool) -> Iterator[tuple[str, str]]:
    for i in range(texts):
        yield f"{i:064x}" if hashes else f"doc-{i:08d}", f"{i:08d} {TEXT}"


def write_corpus(path: Path, texts: int, hashes: bool) -> None:
    with path.open("w") as file:
        for id, text in records(texts, hashes):
            file.write(json.dumps({"id": id, "text": text}) + "\n")


def raw(on: Stack, texts: int) -> dict[str, float]:
    """The limit: Lua XADD chunks from one client."""
    on.flush()
    before = on.used_memory()
    script = on.client.register_script(XADD_LUA)
    seconds = 0.0
    args: list[str] = []
    for id, text in records(texts, False):
        args += (id, text)
        if len(args) == 2000:
            begun = time.perf_counter()
            script(["stream"], args)
            seconds += time.perf_counter() - begun
            args = []
    return {"texts/s": texts / seconds, "seconds": seconds, **_bytes(on, before, texts, 12)}


def enqueue(on: Stack, corpus: Path, texts: int, id_bytes: int) -> dict[str, float]:
    """`vec-enqueue`, the whole process."""
    on.flush()
    before = on.used_memory()
    ran = on.run(
        "vec-enqueue", str(corpus), "--collection", NAME, VECTOR_EMBED_HIGH_WATER=str(10**9)
    )
    assert f"{texts:,} new" in ran.said, ran.said
    return {
        "texts/s": texts / ran.seconds,
        "seconds": ran.seconds,
        "cpu us/text": ran.cpu_seconds * 1e6 / texts,
        "peak MB": ran.peak_megabytes,
        **_bytes(on, before, texts, id_bytes),
    }


def celery(on: Stack, texts: int) -> dict[str, float]:
    """The peer: one message for each text."""
    on.flush()
    before = on.used_memory()
    from . import peers

    begun = time.perf_counter()
    used = usage(os.getpid()).cpu_seconds
    with peers.producer(on.redis_url) as producer:
        for id, text in records(texts, False):
            peers.app.send_task("embed_one", args=[id, text], producer=producer)
    seconds = time.perf_counter() - begun
    used = usage(os.getpid()).cpu_seconds - used
    return {
        "texts/s": texts / seconds,
        "seconds": seconds,
        "cpu us/text": used * 1e6 / texts,
        **_bytes(on, before, texts, 12),
    }


def _bytes(on: Stack, before: int, texts: int, id_bytes: int) -> dict[str, float]:
    each = (on.used_memory() - before) / texts
    return {"bytes/text": each, "over text + 2 ids": each - len(f"{0:08d} {TEXT}") - 2 * id_bytes}


def bench(texts: int, runs: int) -> None:
    with stack() as on:
        corpora = {"12-byte ids": (False, 12), "64-byte ids": (True, 64)}
        for name, (hashes, _) in corpora.items():
            write_corpus(on.directory / f"{name}.jsonl", texts, hashes)
        table = Table(f"{texts:,} lines of {len(TEXT) + 9} characters", COLUMNS)
        for _ in range(runs):
            table.add("raw Lua XADD", **raw(on, texts))
            for name, (_, id_bytes) in corpora.items():
                path = on.directory / f"{name}.jsonl"
                table.add(f"vec-enqueue, {name}", **enqueue(on, path, texts, id_bytes))
            table.add("a Celery message each", **celery(on, max(100, texts // 100)))
        table.ratios("texts/s", "raw Lua XADD")
        table.ratios("texts/s", "a Celery message each")
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.bench_enqueue", description=__doc__
    )
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    print(machine())
    bench(asked.texts, asked.runs)


if __name__ == "__main__":
    main()
