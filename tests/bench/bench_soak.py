"""A soak: the memory of one worker over the batches of an hour, against an API without latency.

    python -m tests.bench.bench_soak --batches 130000

8 threads before an API of 200 ms do 130,000 batches in an hour; without latency they take some
twenty minutes. The same 200,000 ids come again and again with other texts, so Redis does not grow
either. Shown is what is resident at the end of each tenth, and the peak until then.
"""

from __future__ import annotations

import argparse
import time

from stored import Store

from worker import enqueue

from .stack import stack, usage, wait_until
from .table import Table, machine

NAME = "bench"
IDS = 200_000
TENTHS = 10


def bench(batches: int, threads: int) -> None:
    with stack() as on:
        url, _ = on.api(0.0)
        settings = on.settings(base_url=url, max_in_flight=15)
        collection = Store(NAME, settings=settings)
        environ = {"VECTOR_EMBED_BASE_URL": url, "VECTOR_EMBED_MAX_IN_FLIGHT": "15"}
        table = Table(f"{threads} threads", ("batches/s", "resident MB", "peak MB", "Redis MB"))
        with on.workers(1, threads, environ) as (pid,):
            sent = 0
            for tenth in range(1, TENTHS + 1):
                begun, before = time.monotonic(), sent
                while sent < batches * 100 * tenth // TENTHS:
                    some = min(IDS, batches * 100 * tenth // TENTHS - sent)
                    numbers = range(sent, sent + some)
                    texts = ((f"document-{i % IDS:08d}", f"text number {i}") for i in numbers)
                    enqueue(texts, NAME, settings=settings)
                    sent += some
                    wait_until(
                        lambda: collection.backlog.size() == 0, 600, "the backlog to be done"
                    )
                rate = (sent - before) / 100 / (time.monotonic() - begun)
                now = usage(pid)
                table.add(
                    f"{sent // 100:,} batches",
                    **{
                        "batches/s": rate,
                        "resident MB": now.rss_megabytes,
                        "peak MB": now.peak_megabytes,
                        "Redis MB": on.used_memory() / 1e6,
                    },
                )
        table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_soak", description=__doc__)
    parser.add_argument("--batches", type=int, default=130_000)
    parser.add_argument("--threads", type=int, default=16)
    asked = parser.parse_args()
    print(machine())
    bench(asked.batches, asked.threads)


if __name__ == "__main__":
    main()
