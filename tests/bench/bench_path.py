"""The path of one text: what code it passes through, and what it asks of Redis.

    python -m tests.bench.bench_path

Counted, not timed, on an idle system: enqueue() of one text, and the slice of work that embeds it,
in one process. Redis counts its commands, those in its scripts too. A crossing is a call from one
of our modules into another. The median of several texts leaves out the heartbeat's commands.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import redis

from .stack import ROOT, Stack, stack
from .table import Table, machine

OURS = (f"{ROOT}/worker/", f"{ROOT}/vector_embed_client/")
COLUMNS = ("modules", "functions", "crossings", "script calls", "commands")


class Calls:
    """The calls of one thread within and between our modules."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.functions: set[tuple[str, int]] = set()
        self.crossings = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count for as long as the block."""
        sys.setprofile(self._call)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _call(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(OURS):
            return
        self.modules.add(code.co_filename)
        self.functions.add((code.co_filename, code.co_firstlineno))
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename.startswith(OURS):
            self.crossings += caller.f_code.co_filename != code.co_filename


def measure(client: redis.Redis, step: Callable[[], object]) -> dict[str, float]:
    """What `step` passes through, and what Redis did for it."""
    calls = Calls()
    before = _commands(client)
    with calls.counted():
        step()
    made = {name: count - before.get(name, 0) for name, count in _commands(client).items()}
    made["info"] = made.get("info", 0) - 1  # our own question
    return {
        "modules": len(calls.modules),
        "functions": len(calls.functions),
        "crossings": calls.crossings,
        "script calls": made.get("evalsha", 0) + made.get("eval", 0),
        "commands": sum(made.values()),
    }


def _commands(client: redis.Redis) -> dict[str, int]:
    stats = client.info("commandstats")
    return {name[len("cmdstat_") :]: int(stat["calls"]) for name, stat in stats.items()}


def bench(texts: int) -> None:
    with stack() as on:
        url, _ = on.api(0.0)
        os.environ.update(on.environ)
        os.environ["VECTOR_EMBED_BASE_URL"] = url
        _bench(on, texts)


def _bench(on: Stack, texts: int) -> None:
    from worker import enqueue
    from worker.celery import settings
    from worker.tasks import drain

    table = Table("one text", COLUMNS)
    for number in range(-1, texts):
        produced = measure(
            on.client,
            lambda: enqueue([f"text {number}"], "one", settings=settings),  # noqa: B023
        )
        token = next(iter(dict(on.client.zscan_iter("vec:{one}:wakeups")))).decode()
        drained = measure(on.client, lambda: drain.run("one", token))  # noqa: B023
        if number >= 0:  # connections and imports are made at the first
            table.add("enqueue", **produced)
            table.add("drain", **drained)
    assert on.client.xlen("vec:{one}:jobs") == 0
    table.show()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_path", description=__doc__)
    parser.add_argument("--texts", type=int, default=9)
    asked = parser.parse_args()
    print(machine())
    bench(asked.texts)


if __name__ == "__main__":
    main()
