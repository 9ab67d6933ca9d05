"""The bare read: as many small hashes as there are collections, pipelined, with redis-py alone.

    python -m tests.bench.hashes REDIS_URL --hashes 10000

It is the least that a reader of all collections pays: the start of Python, the import of redis, and
one command a collection.
"""

from __future__ import annotations

import argparse

import redis

KEY = "bare:{}"
CHUNK = 500


def write(client: redis.Redis, hashes: int) -> None:
    """Write them: each is as large as the info of a collection."""
    names = ("model", "born", "seq", "ms", "enqueued", "unchanged", "commits", "dimensions")
    said = ("nomic-v1.5", "1795900972.179660", "2", "1795900972017", "2", "0", "2", "2")
    for first in range(0, hashes, CHUNK):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + CHUNK, hashes)):
            pipeline.hset(KEY.format(number), mapping=dict(zip(names, said)))
        pipeline.execute()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hashes", description=__doc__)
    parser.add_argument("redis_url")
    parser.add_argument("--hashes", type=int, required=True)
    asked = parser.parse_args()
    client = redis.Redis.from_url(asked.redis_url)
    enqueued = 0
    for first in range(0, asked.hashes, CHUNK):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + CHUNK, asked.hashes)):
            pipeline.hgetall(KEY.format(number))
        enqueued += sum(int(fields[b"enqueued"]) for fields in pipeline.execute())
    print(f"{enqueued:,} enqueued", flush=True)


if __name__ == "__main__":
    main()
