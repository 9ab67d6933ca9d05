"""Benchmark: what the fleet gets out of a server that limits requests, and what it is refused.

    python -m tests.bench.bench_throttle
    python -m tests.bench.bench_throttle --workers 1 2 4 --limits 50/5s bucket-20 --retry-after none
    python -m tests.bench.bench_throttle --only steps quota job fairness

Real worker processes, a private Redis, the local API over HTTP with its limiter. Few dimensions, so
that what is measured is the throttle.

* `limits`: the first two windows (of a bucket: ten seconds) are not counted, for that is when the
  limit is found. `allowed` is what the limit lets through in the time that is counted.
* `steps`: the limit changes in mid-run. The three windows after the change are not counted.
* `quota`: 1,234 texts a day, of 3,000 that wait.
* `job`: 4,700 texts at 3 requests per 6 s, and the least time that they could take.
* `fairness`: one text enqueued behind 20,000 of another collection, at 2 requests a second.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from servers import API, APILog, wait_until

from worker import Collection, enqueue

from .stack import Stack, stack
from .table import machine

API_SECONDS = 0.02
THREADS = 8


class Limit(NamedTuple):
    """`rate` requests per `per` seconds, as the limiter `kind` counts them."""

    kind: str
    rate: int
    per: float
    capacity: int | None
    window: float  # seconds, by which it is judged
    windows: int

    def faults(self, form: str) -> dict[str, object]:
        """What the local API is told."""
        return {
            "limiter": self.kind,
            "rate": self.rate,
            "per": self.per,
            "capacity": self.capacity,
            "retry_after": form,
            "latency": API_SECONDS,
        }


LIMITS = {
    "50/5s": Limit("window", 50, 5.0, None, 5.0, 9),
    "50/5s-aligned": Limit("aligned", 50, 5.0, None, 5.0, 9),
    "50/5s-sliding": Limit("sliding", 50, 5.0, None, 5.0, 9),
    "600/min": Limit("aligned", 600, 60.0, None, 60.0, 4),
    "bucket-20": Limit("bucket", 20, 1.0, 20, 10.0, 4),
    "bucket-20-small": Limit("bucket", 20, 1.0, 5, 10.0, 7),
    "bucket-50": Limit("bucket", 50, 1.0, 50, 10.0, 3),
}
STEPS = {"50/5s-aligned": (25, 100), "50/5s-sliding": (25, 100), "bucket-20": (10, 40)}
FORMS = ("none", "seconds", "fraction", "date")
LINE = "{:24} {:11} {:>7} {:>8} {:>6} {:>7} {:>5} {:>8} {:>5} {:>8}  {}"
HEAD = ("workers", "allowed", "got", "share", "429s", "at most", "dead", "attempts", "verdict")


class Bench:
    """A stack, the local API, and what a run of workers before it comes to."""

    def __init__(self, running: Stack, api: API) -> None:
        self.running = running
        self.api = api
        self.settings = running.settings(base_url=api.base_url)
        self.environ = {"VECTOR_EMBED_BASE_URL": api.base_url}

    def begin(self, texts: int, **faults: object) -> Collection:
        """Everything empty, the API with its faults, and so many texts in the backlog."""
        self.running.flush()
        self.api.reset()
        self.api.faults(**faults)
        enqueue(((f"t{n}", f"text {n}") for n in range(texts)), "bench", settings=self.settings)
        return Collection("bench", settings=self.settings)

    def first_request(self, limit: Limit) -> float:
        """When it was answered, in the API's time; the begin of its window where that is known."""
        begin = wait_until(lambda: self.api.log().recent, 30, "a first request")[0][0]
        return begin - begin % limit.per if limit.kind == "aligned" else begin

    def wait(self, until: float) -> APILog:
        """What the API answered up to that time, its own."""
        wait_until(lambda: _last(self.api.log()) >= until, until - time.time() + 30, "the end", 0.5)
        return self.api.log()

    def harm(self, collection: Collection) -> tuple[int, int]:
        """Dead letters, and texts to which an attempt was counted."""
        attempts = self.running.client.hlen("vec:{bench}:attempts")
        return collection.status().dead, int(attempts)

    def limit(self, limit: Limit, form: str, workers: int) -> list[str]:
        """What was got of a limit that stays as it is."""
        seconds = limit.window * limit.windows
        requests = math.ceil(limit.rate / limit.per * seconds) + limit.rate + 50
        collection = self.begin(requests * 100, **limit.faults(form))
        with self.running.workers(workers, THREADS, self.environ):
            begin = self.first_request(limit)
            log = self.wait(begin + seconds)
            harm = self.harm(collection)
        first = 1 if limit.kind == "bucket" else 2
        return self._judge(
            limit, limit.rate, log, begin, range(first, limit.windows), harm, workers
        )

    def step(self, limit: Limit, rate: int, form: str, workers: int) -> list[str]:
        """What was got of a limit that changes to `rate`."""
        settled, counted = limit.window * 5.5, limit.window * 8
        requests = limit.rate / limit.per * settled + rate / limit.per * counted + limit.rate + rate
        collection = self.begin(math.ceil(requests) * 100, **limit.faults(form))
        with self.running.workers(workers, THREADS, self.environ):
            begin = self.first_request(limit)
            self.wait(begin + settled)
            self.api.faults(**limit._replace(rate=rate, capacity=rate).faults(form))
            log = self.wait(begin + settled + counted)
            harm = self.harm(collection)
        return self._judge(limit, rate, log, begin, range(9, 13), harm, workers)

    def _judge(
        self,
        limit: Limit,
        rate: int,
        log: APILog,
        begin: float,
        counted: range,
        harm: tuple[int, int],
        workers: int,
    ) -> list[str]:
        passed: Counter[int] = Counter()
        refused: Counter[int] = Counter()
        for at, _, _, status in log.recent:
            (passed if status == 200 else refused)[int((at - begin) // limit.window)] += 1
        allowed = rate / limit.per * limit.window * len(counted)
        got, missed = sum(passed[n] for n in counted), sum(refused[n] for n in counted)
        most = 0.01 * (got + missed)
        if limit.kind != "bucket":
            most = max(most, 2 * len(counted))
        good = got >= 0.97 * allowed and missed <= most and not any(harm)
        return [
            *(str(workers), f"{allowed:.0f}", str(got), f"{got / allowed:.1%}", str(missed)),
            *(f"{most:.0f}", str(harm[0]), str(harm[1]), "ok" if good else "MISSED"),
        ]

    def quota(self, workers: int) -> str:
        """How a quota is used up."""
        quota = 1234
        collection = self.begin(3000, quota=quota, latency=API_SECONDS)
        with self.running.workers(workers, THREADS, self.environ):
            begun = time.monotonic()
            wait_until(lambda: self.api.log().charged >= quota, 120, "the quota's end", 0.05)
            seconds = time.monotonic() - begun
            wait_until(lambda: collection.status().state == "paused", 60, "the queue to be parked")
            status, log, harm = collection.status(), self.api.log(), self.harm(collection)
        refused = log.statuses.get(429, 0)
        return (
            f"{workers} workers: {log.charged:,} of {quota:,} texts charged in {seconds:.1f} s, "
            f"{status.embedded:,} embedded, {refused} requests refused, {harm[0]} dead, "
            f"{harm[1]} attempts; then: {status.state}: {status.reason}"
        )

    def job(self, form: str, workers: int) -> str:
        """How long a whole job takes under a low limit."""
        limit = Limit("aligned", 3, 6.0, None, 6.0, 0)
        texts = 4700
        collection = self.begin(texts, **limit.faults(form))
        with self.running.workers(workers, THREADS, self.environ):
            begin = wait_until(lambda: self.api.log().recent, 30, "a first request")[0][0]
            wait_until(lambda: collection.status().embedded >= texts, 300, "the job's end", 0.2)
            log, harm = self.api.log(), self.harm(collection)
        end = max(at for at, _, _, status in log.recent if status == 200)
        requests = math.ceil(texts / 100)
        # As many windows as it takes, of which we come in the midst of the first.
        least = (math.ceil(requests / limit.rate) - 1) * limit.per - begin % limit.per
        took, bound = end - begin, least + 2 * limit.per
        return (
            f"{workers} workers, retry-after {form}: {took:.1f} s, at least {least:.1f}, asked "
            f"{bound:.1f}; {log.statuses.get(429, 0)} refused, {harm[0]} dead, {harm[1]} attempts: "
            + ("ok" if took <= bound and not any(harm) else "MISSED")
        )

    def fairness(self, workers: int) -> str:
        """How long one text waits behind another collection's."""
        self.begin(20_000, rate=2, per=1.0, limiter="bucket", capacity=2, retry_after="none")
        with self.running.workers(workers, THREADS, self.environ):
            wait_until(lambda: len(self.api.log().recent) > 20, 60, "the huge job under way")
            begun = time.monotonic()
            enqueue(["a small job"], "small", settings=self.settings)
            small = Collection("small", settings=self.settings)
            wait_until(lambda: small.status().embedded == 1, 120, "the small job", 0.05)
            took = time.monotonic() - begun
        slices = took / self.settings.slice_seconds
        return f"{workers} workers: {took:.1f} s, which is {slices:.2f} slices"


def _last(log: APILog) -> float:
    return log.recent[-1][0] if log.recent else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_throttle")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--limits", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--retry-after", nargs="+", choices=FORMS, default=["none", "seconds"])
    parts = ["limits", "steps", "quota", "job", "fairness"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    asked = parser.parse_args(arguments)
    print(machine(), flush=True)
    with stack() as running:
        api = API(running.directory / "api.log", "--dimensions", "4")
        try:
            show(Bench(running, api), asked)
        finally:
            api.stop()


def show(bench: Bench, asked: argparse.Namespace) -> None:
    """Run what is asked for, and print each result as it comes."""
    chosen = [(name, LIMITS[name]) for name in asked.limits]
    runs = [(form, workers) for form in asked.retry_after for workers in asked.workers]
    if "limits" in asked.only or "steps" in asked.only:
        print(LINE.format("limit", "retry-after", *HEAD), flush=True)
    if "limits" in asked.only:
        for name, limit in chosen:
            for form, workers in runs:
                print(LINE.format(name, form, *bench.limit(limit, form, workers)), flush=True)
    if "steps" in asked.only:
        for name, limit in chosen:
            for rate in STEPS.get(name, ()):
                for form, workers in runs:
                    cells = bench.step(limit, rate, form, workers)
                    print(LINE.format(f"{name} -> {rate}", form, *cells), flush=True)
    for workers in asked.workers:
        if "quota" in asked.only:
            print("quota,", bench.quota(workers), flush=True)
        if "fairness" in asked.only:
            print("fairness,", bench.fairness(workers), flush=True)
    if "job" in asked.only:
        for form, workers in runs:
            print("job,", bench.job(form, workers), flush=True)


if __name__ == "__main__":
    main()
