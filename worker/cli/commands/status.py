"""`vec status`: how far a collection is, at one glance."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from ...settings import Settings
from ...types import Status
from .. import report
from ..command import Command, Target, chosen_collections, print_lines, target_options
from ..complete import collection_argument

SAID = ("halted", "paused", "no worker")  # the state and the last line say these


@click.command(cls=Command)
@collection_argument(required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def status(collection: str | None, as_json: bool, target: Target) -> None:
    """Show the progress of COLLECTION, or of all collections.

    enqueued = embedded + evicted + dead + pending + leased, at every moment.

    \b
    Example:
      vec status wiki
    """
    with target.open() as (settings, _):
        every = [one.status() for one in chosen_collections(collection, settings)]
        stalls = stalls_of(every, settings, target, () if as_json else SAID)
    if as_json:
        objects = [report.status_object(one, stalls.get(one.collection)) for one in every]
        click.echo(json.dumps(objects if collection is None else objects[0], indent=2))
        return
    if not every:
        click.echo("no collections yet")
        return
    if collection is None:
        print_lines(report.status_table(every, target.command("resume"), stalls))
    else:
        dead, resume = (target.command(verb, collection) for verb in ("dead", "resume"))
        print_lines(report.status_page(every[0], dead, resume, stalls.get(collection, "")))
    if not target.local and not stalls:  # with --local, workers run only while a command does
        click.echo(report.workers_line(every[0].workers))


def stalls_of(
    every: Sequence[Status], settings: Settings, target: Target, said: Sequence[str] = SAID
) -> dict[str, str]:
    """What blocks each collection that is stalled, by name, except the kinds in `said`."""
    from ...monitor.obstacle import obstacle
    from ...monitor.scene import read_scene

    found = {
        status.collection: obstacle(read_scene(status, settings, local=target.local))
        for status in every
        if status.is_stalled
    }
    return {name: one.line for name, one in found.items() if one and one.kind not in said}
