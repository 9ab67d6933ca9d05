"""One worker process with several API keys, and with several endpoints: what it gets of each.

    python -m tests.bench.bench_keys --seconds 30 --runs 3

* keys: each has a limit of its own. The limit of a row is what all limiters let through in the time
  that is counted, after a time in which the throttle finds them.
* endpoints: each takes a few requests at once. The limit of a row is a bare client with as many
  threads as there are places, just before.

Few dimensions, so that what is measured is the throttle and the choice of a key.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from servers import API

from vector_embed_client import Client
from worker import enqueue

from .stack import Stack, stack
from .table import Table, machine

COLUMNS = ("requests/s", "limit/s", "share %", "429s %")
PLACES, PLACE_SECONDS = 4, 0.2


class Key(NamedTuple):
    """An API key with its limit: `rate` requests per `per` seconds."""

    name: str
    limiter: str
    rate: int
    per: float


KEYS = (
    Key("vec_window", "window", 30, 5.0),
    Key("vec_bucket", "bucket", 10, 1.0),
    Key("vec_aligned", "aligned", 40, 5.0),
)


class Run(NamedTuple):
    """A worker process with the keys of a file, for so many seconds."""

    on: Stack
    lines: Sequence[str]
    apis: Sequence[API]
    settling: float
    seconds: float
    threads: int

    def measure(self, limit: float, **environ: str) -> dict[str, float]:
        """What it got, beside `limit` requests a second."""
        self.on.flush()
        file = Path(self.on.directory, "keys")
        file.write_text("".join(f"{line}\n" for line in self.lines))
        requests = round(limit * (self.settling + self.seconds) * 1.3) + 100
        settings = self.on.settings(base_url=self.apis[0].base_url)
        enqueue(((f"t{n}", f"text {n}") for n in range(requests * 100)), "k", settings=settings)
        keys = {"VECTOR_EMBED_API_KEY": "", "VECTOR_EMBED_KEYS_FILE": str(file)}
        address = {"VECTOR_EMBED_BASE_URL": self.apis[0].base_url}
        with self.on.workers(1, self.threads, {**address, **keys, **environ}):
            time.sleep(self.settling)
            before, begun = self._answers(), time.monotonic()
            time.sleep(self.seconds)
            after, took = self._answers(), time.monotonic() - begun
        passed, refused = (after.get(one, 0) - before.get(one, 0) for one in (200, 429))
        return {
            "requests/s": passed / took,
            "limit/s": limit,
            "share %": 100 * passed / took / limit,
            "429s %": 100 * refused / max(1, passed + refused),
        }

    def _answers(self) -> Mapping[int, int]:
        total: dict[int, int] = {}
        for api in self.apis:
            for counts in api.log().by_key.values():
                for status, count in counts.items():
                    total[status] = total.get(status, 0) + count
        return total


def keys(on: Stack, api: API, asked: argparse.Namespace, table: Table) -> None:
    for some in (KEYS[:1], KEYS[1:2], KEYS[2:], KEYS[:2], KEYS):
        api.reset()
        limits = {
            one.name: {"limiter": one.limiter, "rate": one.rate, "per": one.per} for one in some
        }
        api.faults(latency=0.05, limits=limits, retry_after=asked.retry_after)
        lines = [one.name for one in some]
        limit = sum(one.rate / one.per for one in some)
        run = Run(on, lines, [api], asked.settling, asked.seconds, asked.threads)
        names = " + ".join(one.name.partition("_")[2] for one in some)
        table.add(names, **run.measure(limit))


def bare(apis: Sequence[API], seconds: float) -> float:
    """The requests a second of the client library alone, with a thread for each place."""
    end = time.monotonic() + seconds

    def send(place: int) -> int:
        count = 0
        with Client("vec_bare", apis[place % len(apis)].base_url) as client:
            while time.monotonic() < end:
                client.embed_batch_array([f"bare {place} {count} {n}" for n in range(100)])
                count += 1
        return count

    with ThreadPoolExecutor(PLACES * len(apis)) as threads:
        return sum(threads.map(send, range(PLACES * len(apis)))) / seconds


def endpoints(on: Stack, apis: Sequence[API], asked: argparse.Namespace, table: Table) -> None:
    for count in range(1, len(apis) + 1):
        for api in apis:
            api.reset()  # what it has in its cache takes no time
            api.faults(latency=PLACE_SECONDS)
        lines = [f"vec_key{n}  {api.base_url}" for n, api in enumerate(apis[:count])]
        run = Run(on, lines, apis[:count], min(5.0, asked.settling), asked.seconds, asked.threads)
        limit = bare(apis[:count], asked.seconds)
        row = f"{count} of {PLACES} places"
        table.add(row, **run.measure(limit, VECTOR_EMBED_MAX_IN_FLIGHT=str(PLACES)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_keys")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--settling", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--retry-after", default="none")
    parser.add_argument("--only", nargs="+", choices=["keys", "endpoints"], default=None)
    asked = parser.parse_args(arguments)
    print(machine(), flush=True)
    tables = {
        "keys": Table("one process, keys with limits of their own", COLUMNS),
        "endpoints": Table("one process, endpoints", COLUMNS),
    }
    with stack() as on, ExitStack() as ending:
        apis = [API(on.directory / f"api-{n}.log", "--dimensions", "4") for n in range(2)]
        for api in apis:
            ending.callback(api.stop)
        for _ in range(asked.runs):
            if "keys" in (asked.only or tables):
                keys(on, apis[0], asked, tables["keys"])
            if "endpoints" in (asked.only or tables):
                endpoints(on, apis, asked, tables["endpoints"])
    for name in asked.only or tables:
        tables[name].show()


if __name__ == "__main__":
    main()
