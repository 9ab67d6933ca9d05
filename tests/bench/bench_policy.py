"""Benchmark: what a simulated fleet gets out of a server that limits requests, and its refusals.

    python -m tests.bench.bench_policy
    python -m tests.bench.bench_policy --only bucket --beginnings 5

No server and no Redis: the policy in Lua under a virtual clock (`tests/simulation.py`). The same
policy prints the same table, so `diff` of two tables shows what a change of a rule moved.

* `got`: the share of what the limit lets through. `refused`: requests in a window (of a bucket: ten
  seconds). The first two windows are not counted: in them the limit is found.
* `-> 100`: the limit changes in mid-run. The three windows after the change are not counted.
* `small`: a bucket that holds a quarter of a second's requests.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from faulty_api.limiter import Limiter
from simulation import Fleet, Steps

FORMS = ("none", "seconds", "fraction", "date")
LINE = "{:22} {:9} {:>6} {:>8}"


class Scenario(NamedTuple):
    """`rate` requests per `per` seconds, as the limiter `kind` counts them; `then`: a new rate."""

    kind: str
    rate: int
    per: float
    window: float  # seconds, by which it is judged
    capacity: int | None = None
    then: int | None = None

    def limiter(self, rate: int) -> Limiter:
        """One that lets this rate through."""
        return Limiter(self.kind, rate, self.per, self.capacity)

    def run(self, form: str, seed: int) -> tuple[float, float]:
        """The share that was got, and the refusals in a window."""
        begin = 0.37 * seed * self.per % self.per + 2 * self.window
        last = self.rate if self.then is None else self.then
        limits = Steps((0.0, self.limiter(self.rate)))
        if self.then is not None:
            step = begin + 8 * self.window
            limits = Steps((0.0, self.limiter(self.rate)), (step, self.limiter(self.then)))
            begin = step + 3 * self.window
        fleet = Fleet(limits, retry_after=form, jitter=0.005, seed=seed)
        end = begin + 10 * self.window
        run = fleet.go(end)
        got = sum(begin <= at < end for at in run.passes)
        refused = sum(begin <= at < end for at in run.refusals)
        return got / (last / self.per * (end - begin)), refused / 10


SCENARIOS = {
    "50/5s": Scenario("window", 50, 5.0, 5.0),
    "50/5s aligned": Scenario("aligned", 50, 5.0, 5.0),
    "50/5s sliding": Scenario("sliding", 50, 5.0, 5.0),
    "600/min": Scenario("window", 600, 60.0, 60.0),
    "600/min aligned": Scenario("aligned", 600, 60.0, 60.0),
    "600/min sliding": Scenario("sliding", 600, 60.0, 60.0),
    "3/6s aligned": Scenario("aligned", 3, 6.0, 6.0),
    "3/min aligned": Scenario("aligned", 3, 60.0, 60.0),
    "bucket 5": Scenario("bucket", 5, 1.0, 10.0),
    "bucket 20": Scenario("bucket", 20, 1.0, 10.0),
    "bucket 20 small": Scenario("bucket", 20, 1.0, 10.0, capacity=5),
    "bucket 50": Scenario("bucket", 50, 1.0, 10.0),
    "bucket 50 small": Scenario("bucket", 50, 1.0, 10.0, capacity=12),
    "50/5s -> 25": Scenario("aligned", 50, 5.0, 5.0, then=25),
    "50/5s -> 100": Scenario("aligned", 50, 5.0, 5.0, then=100),
    "50/5s sliding -> 25": Scenario("sliding", 50, 5.0, 5.0, then=25),
    "50/5s sliding -> 100": Scenario("sliding", 50, 5.0, 5.0, then=100),
    "bucket 20 -> 10": Scenario("bucket", 20, 1.0, 10.0, then=10),
    "bucket 20 -> 40": Scenario("bucket", 20, 1.0, 10.0, then=40),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_policy")
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--retry-after", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--beginnings", type=int, default=3, help="runs of each, of which the mean")
    asked = parser.parse_args(arguments)
    print(LINE.format("limit", "retry", "got", "refused"))
    for name, scenario in SCENARIOS.items():
        for form in asked.retry_after if asked.only in name else ():
            runs = [scenario.run(form, seed) for seed in range(asked.beginnings)]
            got, refused = (mean(values) for values in zip(*runs))
            print(LINE.format(name, form, f"{got:.1%}", f"{refused:.1f}"), flush=True)


if __name__ == "__main__":
    main()
