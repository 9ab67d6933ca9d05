"""Many collections: what it takes to look at all of them, and what an idle one costs.

    python -m tests.bench.bench_many --collections 1000 10000

Of 20 collections 17 are idle, one has a backlog, one a dead letter, one is halted. A look is a
process from its start to its end (of `vec watch`: to its first line), or a scrape of an exporter
that runs already, or its page. Bytes are all that Redis keeps of a collection beside its vectors:
as Redis says of the keys of 17 idle ones, and what all of them took of its memory, for each. An
idle fleet is one worker.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import httpx
from stored import Store

from worker.cli.command import Target
from worker.local.child import Child
from worker.monitor.page.snapshot import read_snapshot
from worker.store.connection import connect
from worker.store.registry import busy_collections
from worker.types import Embedded, Job, Refused

from . import hashes
from .stack import ROOT, Stack, stack, usage
from .table import Table, machine

LOOKS = {
    "vec status": ("status",),
    "vec status 'tenant-0*'": ("status", "tenant-0*"),
    "vec status --json": ("status", "--json"),
    "vec status --all": ("status", "--all"),
    "vec watch, first line": ("watch",),
}
BARE, SCRAPE = "bare read of hashes", "a scrape"
PAGE, READING = "the page, of what was read", "a reading for the page"
VEC = "from worker.cli import vec; vec()"
VECTOR = struct.pack("<2f", 1.0, 2.0)


class Took(NamedTuple):
    """What a look came to."""

    seconds: float
    cpu: float


def fill(on: Stack, collections: int) -> None:
    """Make them, by the steps that producers and workers take."""
    settings = on.settings()
    for number in range(collections):
        store, kind = Store(f"tenant-{number:05d}", settings=settings), number % 20
        store.adder().add([Job(f"doc-{n}", f"text {n} of {number}") for n in range(2)])
        if kind == 17:
            continue
        store.backlog.keep_alive("bench")
        one, other = store.backlog.claim("bench")
        refused = [Refused(other, "poison", "the API refuses it")] if kind == 18 else []
        embedded = [Embedded(one, VECTOR, False)]
        embedded += [] if refused else [Embedded(other, VECTOR, False)]
        store.backlog.commit(embedded, refused)
        store.backlog.release("bench", end_slice=True)
        if kind == 19:
            store.backlog.halt("another-key", "the API refuses the key")


def bytes_of_idle(on: Stack, most: int) -> float:
    """The bytes of the keys of an idle collection beside its vectors, as Redis says of each."""
    sizes = [
        sum(
            on.client.memory_usage(key, samples=0) or 0
            for key in on.client.scan_iter(f"vec:{{tenant-{number:05d}}}:*", count=100_000)
            if b":doc:" not in key
        )
        for number in range(most)
    ]
    return sum(sizes) / len(sizes)


def timed(on: Stack, arguments: Sequence[str], *, first_line: bool = False) -> Took:
    """Run Python to its end, or until it has printed a line."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **on.environ, "COLUMNS": "80", "LINES": "24"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as output:
        if first_line:
            output.readline()
            process.terminate()
        else:
            output.read()
        seconds = time.perf_counter() - begun
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    return Took(seconds, used.ru_utime + used.ru_stime)


@contextmanager
def exporter(on: Stack) -> Iterator[tuple[str, int]]:
    """The URL of an exporter, and its process."""
    command = [sys.executable, "-c", VEC, "exporter", "--port", "0"]
    env = {**os.environ, **on.environ}
    child = Child("the exporter", command, on.directory / "exporter.log", env=env, cwd=ROOT)
    try:
        yield child.wait_for(r"serving (\S+),", 60)[1], child.pid
    finally:
        child.stop()


def asked(url: str, pid: int) -> Took:
    """One request to the exporter."""
    begun, used = time.perf_counter(), usage(pid).cpu_seconds
    httpx.get(url, timeout=60).raise_for_status()
    return Took(time.perf_counter() - begun, usage(pid).cpu_seconds - used)


def look(on: Stack, collections: int, runs: int) -> None:
    """A table of the looks, in turns."""
    table = Table(f"{collections:,} collections", ("seconds", "cpu s"))
    hashes.write(on.client, collections)
    bare = ["-m", "tests.bench.hashes", on.redis_url, "--hashes", str(collections)]
    with exporter(on) as (url, pid):
        for _ in range(runs):
            _add(table, BARE, timed(on, bare))
            for row, words in LOOKS.items():
                _add(table, row, timed(on, ["-c", VEC, *words], first_line="watch" in words))
            _add(table, SCRAPE, asked(url, pid))
            _add(table, PAGE, asked(url.replace("/metrics", "/"), pid))
            begun, used = time.perf_counter(), time.process_time()
            read_snapshot(on.settings(), Target(None, False).command)
            took = Took(time.perf_counter() - begun, time.process_time() - used)
            _add(table, READING, took)
        megabytes = usage(pid).peak_megabytes
    table.ratios("seconds", BARE)
    table.ratios("cpu s", BARE)
    table.show()
    print(f"the exporter, at most: {megabytes:.0f} MB")
    on.client.delete(*(hashes.KEY.format(number) for number in range(collections)))


def weigh(on: Stack, collections: int) -> Table:
    """Fill Redis, and say what an idle collection weighs: 2,048 bytes are the most it may."""
    on.flush()
    table = Table(f"{collections:,}: bytes of an idle one", ("of its keys", "in Redis"))
    empty = on.used_memory()
    fill(on, collections)
    documents = sum(
        on.client.memory_usage(key, samples=0) or 0
        for key in on.client.scan_iter("vec:*:doc:*", count=10_000)
    )
    for row in ("while it has work", "idle"):
        in_redis = (on.used_memory() - empty - documents) / collections
        table.add(row, **{"of its keys": bytes_of_idle(on, 17), "in Redis": in_redis})
        busy_collections(connect(on.settings()), "vec")  # as the pump does once a second
    table.add("the most", **{"of its keys": 2048, "in Redis": 2048})
    return table


def idle(on: Stack, seconds: float) -> dict[str, float]:
    """What all of them cost beside one worker, a second."""
    url, _ = on.api(0.0)
    with on.workers(1, 4, {"VECTOR_EMBED_BASE_URL": url}) as (pid,):
        while busy_collections(connect(on.settings()), "vec"):
            time.sleep(1)
        time.sleep(3)
        commands, used = _commands(on), usage(pid).cpu_seconds
        time.sleep(seconds)
        return {
            "commands/s": (_commands(on) - commands) / seconds,
            "worker cpu ms/s": (usage(pid).cpu_seconds - used) * 1000 / seconds,
        }


def _add(table: Table, row: str, took: Took) -> None:
    table.add(row, **{"seconds": took.seconds, "cpu s": took.cpu})


def _commands(on: Stack) -> int:
    return int(on.client.info("stats")["total_commands_processed"])


def bench(collections: Sequence[int], runs: int, seconds: float) -> None:
    with stack() as on:
        fleet = Table("one worker beside", ("commands/s", "worker cpu ms/s"))
        for count in collections:
            weighed = weigh(on, count)
            look(on, count, runs)
            weighed.show()
            fleet.add(f"{count:,} collections", **idle(on, seconds))
        fleet.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_many", description=__doc__)
    parser.add_argument("--collections", type=int, nargs="+", default=[20, 1000, 10_000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="an idle fleet is watched")
    asked = parser.parse_args()
    print(machine())
    bench(asked.collections, asked.runs, asked.seconds)


if __name__ == "__main__":
    main()
