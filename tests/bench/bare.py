"""The bare loop: what a worker would be without a queue, and so the limit of one.

Each thread posts 100 texts with httpx, reads the answer with orjson, makes float32 of it with numpy
and writes the batch to Redis in one MSET. No ledger, no fence, no retries, no check of the answer.
Tuned: one client with enough connections, one write a batch.

    python -m tests.bench.bare URL REDIS_URL --threads 16 --batches 400
"""

from __future__ import annotations

import argparse
import itertools
import resource
import threading
import time

import httpx
import numpy
import orjson
import redis

PATH = "/v1/embed/batch"
TEXTS = [f"text number {i}, of about the length of a sentence " * 5 for i in range(100)]
BODY = {"texts": TEXTS, "model": "nomic-v1.5"}
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer vec_bench"}


def run(url: str, redis_url: str, threads: int, batches: int) -> list[float]:
    """The times at which the batches were finished."""
    limits = httpx.Limits(max_connections=threads, max_keepalive_connections=threads)
    http = httpx.Client(limits=limits, timeout=30)
    store = redis.Redis.from_url(redis_url)
    numbers = itertools.count()
    finished: list[float] = []
    address = url + PATH

    def work() -> None:
        while (number := next(numbers)) < batches:
            body = orjson.dumps(BODY)
            answer = orjson.loads(http.post(address, content=body, headers=HEADERS).content)
            rows = numpy.array(answer["embeddings"], dtype=numpy.float32)
            store.mset({f"bare:{number}:{i}": row.tobytes() for i, row in enumerate(rows)})
            finished.append(time.monotonic())

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return finished


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bare", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("redis_url")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True)
    asked = parser.parse_args()
    finished = run(asked.url, asked.redis_url, asked.threads, asked.batches)
    # All threads are under way between the first tenth and the last.
    first, last = len(finished) // 10, len(finished) * 9 // 10
    rate = (last - first) / (finished[last] - finished[first])
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"rate {rate:.3f} cpu {used.ru_utime + used.ru_stime:.3f} peak {used.ru_maxrss / 1000:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
