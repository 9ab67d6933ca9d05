"""`vec status`: how far a collection is, at one glance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from ...settings import Settings
from ...types import Status
from .. import key_lines, report
from ..command import Command, Target, known_collection, print_lines
from ..complete import collection_argument
from ..options import target_options
from ..pattern import is_pattern, some_matching

if TYPE_CHECKING:
    from ...monitor.scene import Surroundings

SAID = ("halted", "paused", "no worker")  # the state and the last line say these
BLOCK = 1000  # collections that are looked at and shown together


@click.command(cls=Command)
@collection_argument(required=False)
@click.option("--all", "show_all", is_flag=True, help="Show every collection, however many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def status(collection: str | None, show_all: bool, as_json: bool, target: Target) -> None:
    """Show the progress of COLLECTION, or of all collections.

    enqueued = embedded + evicted + dead + pending + leased, at every moment.

    COLLECTION may be a pattern, such as 'tenant-*'. Of more than 20 collections, their sums and a
    screenful are shown: those with work left first. --json prints all of them, one on a line.

    \b
    Example:
      vec status wiki
    """
    from ...monitor.service import read_statuses
    from ...store.connection import connect
    from ..summary import FEW

    with target.open() as (settings, _):
        if collection is not None and not is_pattern(collection):
            _show_one(collection, settings, target, as_json)
            return
        names = some_matching(collection, settings, target)
        statuses = read_statuses(connect(settings), settings.prefix, settings.queue, names)
        if as_json:
            _show_json(statuses, settings, target)
        elif show_all or len(names) <= FEW:
            _show_all(statuses, settings, target)
        else:
            _show_summary(statuses, collection, settings, target)


def stalls_of(
    every: Sequence[Status], around: Surroundings, said: Sequence[str] = SAID
) -> dict[str, str]:
    """What blocks each collection that is stalled, by name, except the kinds in `said`."""
    found = around.obstacles(every)
    return {name: one.line for name, one in found.items() if one.kind not in said}


def surroundings(settings: Settings, target: Target) -> Surroundings:
    """What surrounds the collections, to ask what blocks them."""
    from ...monitor.scene import Surroundings

    return Surroundings(settings, target.command)


def _show_one(name: str, settings: Settings, target: Target, as_json: bool) -> None:
    one = known_collection(name, settings).status()
    stalls = stalls_of([one], surroundings(settings, target), () if as_json else SAID)
    if as_json:
        click.echo(json.dumps(report.status_object(one, stalls.get(name)), indent=2))
        return
    dead, resume = (target.command(verb, name) for verb in ("dead", "resume"))
    print_lines(report.status_page(one, dead, resume, stalls.get(name, "")))
    print_lines(key_lines.each_line(one.keys, one.key_fault))
    _show_workers([one], target, stalls)


def _show_all(statuses: Iterator[Status], settings: Settings, target: Target) -> None:
    """A row for each, a block of them after the other."""
    last: Sequence[Status] = ()
    around = surroundings(settings, target)
    while block := list(islice(statuses, BLOCK)):
        last, stalls = block, stalls_of(block, around)
        print_lines(report.status_table(block, target.command, stalls))
    if last:
        _show_workers(last, target, stalls)
        print_lines(key_lines.short_line(last[0], target.command))
    else:
        click.echo("no collections yet")


def _show_summary(
    statuses: Iterator[Status], pattern: str | None, settings: Settings, target: Target
) -> None:
    """Their sums, and those to look at first."""
    from ...monitor.overview import overview
    from ..summary import status_summary

    lines = shutil.get_terminal_size().lines
    seen = overview(statuses, lines)
    stalls = stalls_of(seen.first, surroundings(settings, target))
    names = [] if pattern is None else [pattern]
    more = f"{target.command('status', *names)} --all"
    print_lines(status_summary(seen, target.command, stalls, lines, more))
    _show_workers(seen.first, target, stalls)
    if seen.first:
        print_lines(key_lines.short_line(seen.first[0], target.command))


def _show_workers(statuses: Sequence[Status], target: Target, stalls: Mapping[str, str]) -> None:
    """How many workers are alive. With --local, they run only while a command does."""
    if statuses and not target.local and not stalls:
        click.echo(report.workers_line(statuses[0].workers, target.command))


def _show_json(statuses: Iterator[Status], settings: Settings, target: Target) -> None:
    """All of them, as they are read."""
    from ..summary import status_array

    around = surroundings(settings, target)

    def rows() -> Iterator[tuple[Status, str | None]]:
        while block := list(islice(statuses, BLOCK)):
            stalls = stalls_of(block, around, ())
            yield from ((status, stalls.get(status.collection)) for status in block)

    print_lines(status_array(rows()))
