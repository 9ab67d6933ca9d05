"""Draining: batches a second from the backlog through the API into Redis, against the bare loop.

    python -m tests.bench.bench_drain

The API answers 100 texts with 1.6 MB after 200 ms, or at once. Rates and processor time
are those between the first tenth of the work and the last; the time is of the worker's processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from worker import enqueue
from worker.monitor.fleet import read_fleet
from worker.settings import Settings
from worker.store.connection import connect

from . import peers
from .stack import Stack, stack, usage, wait_until
from .table import Table, machine

NAME = "bench"
MOST_IN_FLIGHT = 15  # one more, and a server freezes
COLUMNS = ("batches/s", "cpu ms/batch", "redis ms/batch", "peak MB")


def bare(on: Stack, url: str, threads: int, batches: int) -> dict[str, float]:
    """One run of the bare loop."""
    on.flush()
    redis_before = usage(on.redis_pid).cpu_seconds
    child = on.start(
        "bare", url, on.redis_url, "--threads", str(threads), "--batches", str(batches)
    )
    said = child.wait_for(r"rate (\S+) cpu (\S+) peak (\S+)\n", 600)
    redis_used = usage(on.redis_pid).cpu_seconds - redis_before
    return _row(float(said[1]), float(said[2]), redis_used, batches, float(said[3]))


def drain(
    on: Stack,
    url: str,
    threads: int,
    batches: int,
    processes: int = 1,
    in_flight: int = MOST_IN_FLIGHT,
) -> dict[str, float]:
    """One run of the worker, from a backlog that is there before it starts."""
    on.flush()
    settings = on.settings(base_url=url, max_in_flight=in_flight, high_water=10**9)
    texts = batches * 100
    text = "of about the length of a sentence " * 5
    enqueue(
        ((f"document-{i:08d}", f"text number {i}, {text}") for i in range(texts)),
        NAME,
        settings=settings,
    )
    redis_before = usage(on.redis_pid).cpu_seconds
    environ = {"VECTOR_EMBED_BASE_URL": url, "VECTOR_EMBED_MAX_IN_FLIGHT": str(in_flight)}
    with on.workers(processes, threads, environ) as pids:
        wait_until(lambda: _at_work(settings) == processes or _done(on) == texts, 60, "all workers")
        rate = None  # too few batches: by now there is nothing left to measure
        measured: float = batches
        begun = ended = [usage(pid) for pid in pids]
        first = max(texts // 10, _done(on) + texts // 20)
        if first <= texts * 8 // 10:
            done_first, at_first = _wait(on, first)
            begun = [usage(pid) for pid in pids]
            done_last, at_last = _wait(on, texts * 9 // 10)
            ended = [usage(pid) for pid in pids]
            measured = (done_last - done_first) / 100
            rate = measured / (at_last - at_first)
        _wait(on, texts)
        if rate is None:
            ended = [usage(pid) for pid in pids]
        redis_used = usage(on.redis_pid).cpu_seconds - redis_before
    used = sum(end.cpu_seconds - begin.cpu_seconds for end, begin in zip(ended, begun))
    peak = max(end.peak_megabytes for end in ended)
    return _row(rate, used * batches / measured, redis_used, batches, peak)


def peer(on: Stack, url: str, threads: int, task: str, texts: int) -> dict[str, float]:
    """One run of Celery with one message for each text, each embedded alone, or by celery-batches.

    Its rate is from the first vector to the last: what it prefetches comes in lumps.
    """
    on.flush()
    with peers.producer(on.redis_url) as producer:
        for i in range(texts):
            peers.app.send_task(task, args=[str(i), f"text number {i}"], producer=producer)
    redis_before = usage(on.redis_pid).cpu_seconds
    with on.celery("tests.bench.peers", threads, url) as pid:
        done = 0
        while not done:
            done, first_at = int(on.client.get("peer-done") or 0), time.monotonic()
            time.sleep(0.005)
        begun = usage(pid).cpu_seconds
        wait_until(lambda: int(on.client.get("peer-done") or 0) >= texts, 300, task, every=0.005)
        seconds, ended = time.monotonic() - first_at, usage(pid)
    redis_used = usage(on.redis_pid).cpu_seconds - redis_before
    batches = (texts - done) / 100
    used = ended.cpu_seconds - begun
    return _row(batches / seconds, used, redis_used, batches, ended.peak_megabytes)


def _done(on: Stack) -> int:
    return int(on.client.xlen(f"vec:{{{NAME}}}:done"))


def _at_work(settings: Settings) -> int:
    return sum(1 for worker in read_fleet(connect(settings), settings.prefix) if worker.work)


def _wait(on: Stack, count: int) -> tuple[int, float]:
    """The number of vectors once there are `count`, and when that was."""
    wait_until(lambda: _done(on) >= count, 600, f"{count} vectors", every=0.01)
    return _done(on), time.monotonic()


def _row(
    rate: float | None, used: float, redis_used: float, batches: float, peak: float
) -> dict[str, float]:
    measured = {} if rate is None else {"batches/s": rate}
    return {
        **measured,
        "cpu ms/batch": used * 1000 / batches,
        "redis ms/batch": redis_used * 1000 / batches,
        "peak MB": peak,
    }


def bench(batches: int, runs: int, threads: Sequence[int], zero: bool) -> None:
    with stack() as on:
        slow, _ = on.api(0.2)
        quick, _ = on.api(0.0)
        for count in threads:
            table = Table(f"200 ms, {count} threads", COLUMNS)
            for _ in range(runs):
                table.add("the bare loop", **bare(on, slow, count, batches))
                if count > MOST_IN_FLIGHT:
                    row = f"the bare loop, {MOST_IN_FLIGHT} threads"
                    table.add(row, **bare(on, slow, MOST_IN_FLIGHT, batches))
                table.add("worker", **drain(on, slow, count, batches))
                table.add("two workers", **drain(on, slow, count, batches, processes=2))
                table.add("Celery", **peer(on, slow, count, "embed_one", batches * 2))
                if hasattr(peers, "embed_some"):
                    table.add("celery-batches", **peer(on, slow, count, "embed_some", batches * 50))
            table.ratios("batches/s", "the bare loop")
            table.ratios("batches/s", "worker")
            table.show()
        if zero:
            table = Table("0 ms, 8 threads", COLUMNS)
            more = batches * 3  # about as many seconds
            for _ in range(runs):
                table.add("the bare loop", **bare(on, quick, 8, more))
                table.add("worker", **drain(on, quick, 8, more))
                table.add("two workers", **drain(on, quick, 8, more, processes=2))
            table.ratios("batches/s", "the bare loop")
            table.ratios("batches/s", "worker")
            table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_drain", description=__doc__)
    parser.add_argument("--batches", type=int, default=400, help="of 100 texts, in each run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--no-zero", action="store_true", help="leave out the API without latency")
    asked = parser.parse_args()
    print(machine())
    bench(asked.batches, asked.runs, asked.threads, not asked.no_zero)


if __name__ == "__main__":
    main()
