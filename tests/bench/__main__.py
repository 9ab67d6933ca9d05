"""All benchmarks, one after the other: `python -m tests.bench`; `--full` takes the full sizes.

Each is a command of its own as well, with its sizes as options.
"""

from __future__ import annotations

import argparse

from . import (
    bench_calls,
    bench_client,
    bench_corpus,
    bench_drain,
    bench_enqueue,
    bench_export,
    bench_growth,
    bench_kept,
    bench_latency,
    bench_many,
    bench_priorities,
    bench_search,
    bench_soak,
    bench_store,
    bench_tenants,
)
from .table import machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="the sizes of which the README tells")
    asked = parser.parse_args()
    print(machine())
    if asked.full:
        bench_enqueue.bench(texts=1_000_000, runs=3)
        bench_corpus.bench(megabytes=1000, runs=3, bomb=1000)
        bench_drain.bench(batches=1_000, runs=3, threads=[8, 16], zero=True)
        bench_store.bench(texts=100_000, runs=5)
        bench_export.bench(vectors=1_000_000, runs=3)
        bench_search.bench(1_000_000, 3, bench_search.Sizes(100_000, 100_000))
        bench_kept.bench(count=100_000, asked=1000)
        bench_latency.bench(samples=50, producers=100)
        bench_tenants.bench(collections=10_000, threads=8, runs=3)
        bench_calls.bench(count=4000, runs=5)
        bench_priorities.bench(1_000_000, threads=16, latency=0.5, seconds=60, runs=1)
        sizes = [10_000, 100_000, 1_000_000, 5_000_000]
        bench_growth.bench(sizes=sizes, collections=[1, 1000], runs=3, seconds=30)
        bench_many.bench(collections=[20, 1000, 10_000], runs=5, seconds=30)
        bench_client.bench(requests=40, runs=7)
        bench_soak.bench(batches=130_000, threads=16)
    else:
        bench_enqueue.bench(texts=200_000, runs=3)
        bench_corpus.bench(megabytes=60, runs=3, bomb=200)
        bench_drain.bench(batches=400, runs=3, threads=[8, 16], zero=True)
        bench_store.bench(texts=10_000, runs=3)
        bench_export.bench(vectors=50_000, runs=3)
        bench_search.bench(50_000, 3, bench_search.Sizes(5_000, 5_000))
        bench_kept.bench(count=10_000, asked=1000)
        bench_latency.bench(samples=20, producers=100)
        bench_tenants.bench(collections=1_000, threads=8, runs=3)
        bench_calls.bench(count=2000, runs=3)
        bench_priorities.bench(150_000, threads=16, latency=0.5, seconds=15, runs=1)
        sizes = [10_000, 100_000, 300_000]
        bench_growth.bench(sizes=sizes, collections=[1, 1000], runs=1, seconds=5)
        bench_many.bench(collections=[20, 1000], runs=3, seconds=5)
        bench_client.bench(requests=20, runs=5)
        bench_soak.bench(batches=2_000, threads=16)


if __name__ == "__main__":
    main()
