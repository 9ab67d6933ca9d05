"""`vec workers`: which workers are alive, where, since when, and what they do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from ...monitor import figures
from ...monitor.crew import doing, state_of
from .. import key_lines, report
from ..command import Command, Target, print_lines
from ..options import target_options

if TYPE_CHECKING:
    from ...monitor.fleet import Worker
    from ...monitor.obstacle import CommandLine


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def workers(as_json: bool, target: Target) -> None:
    """List the workers: where they run and what they do.

    A worker that was killed or cut off from Redis is listed as lost for an hour. The others take
    over its texts.

    \b
    Example:
      vec workers
    """
    from ...monitor.fleet import read_fleet
    from ...store.connection import connect
    from ...throttle import read_throttles

    with target.open() as (settings, _):
        queue, client = settings.queue, connect(settings)
        fleet = read_fleet(client, settings.prefix)
        names = sorted({name for worker in fleet if worker.alive for name in worker.keys})
        keys = list(read_throttles(client, settings.prefix, names).values())
    if as_json:
        states = {key.name: key.state for key in keys}
        click.echo(json.dumps([_object(worker, states) for worker in fleet], indent=2))
    else:
        print_lines(workers_table(fleet, queue, target.command))
        faults = [worker.key_fault for worker in fleet if worker.alive and worker.key_fault]
        print_lines(key_lines.each_line(keys, next(iter(faults), None)))


def workers_table(fleet: Sequence[Worker], queue: str, command: CommandLine) -> Iterator[str]:
    """The workers, a row each, and below it what the worker does, or why it does nothing."""
    rows = [
        report.Row(
            [
                figures.plain(worker.host),
                figures.plain(worker.pid),
                state_of(worker),
                "?" if worker.up_seconds is None else figures.duration(worker.up_seconds),
                f"{worker.threads:,}",
                figures.plain(worker.version or "?"),
            ],
            figures.plain(doing(worker, queue, command)),
        )
        for worker in fleet
    ]
    header = ["host", "pid", "state", "up", "threads", "version"]
    yield from report.table(header, rows, right=[1, 3, 4])
    alive = [worker for worker in fleet if worker.alive]
    if not alive:
        yield report.workers_line(0, command)
        return
    threads = sum(worker.threads for worker in alive)
    yield f"{report.workers_line(len(alive), command)}, {figures.count(threads, 'thread')}"


def _object(worker: Worker, states: Mapping[str, str]) -> dict[str, object]:
    names = ("host", "pid", "alive", "state", "reason", "queue", "key_fault")
    return {
        **{name: getattr(worker, name) for name in names},
        "seen_seconds": round(worker.seen_seconds, 1),
        "up_seconds": worker.up_seconds,
        "threads": worker.threads,
        "version": worker.version,
        "keys": [{"name": name, "state": states.get(name)} for name in worker.keys],
        "work": None if worker.work is None else [work._asdict() for work in worker.work],
    }
