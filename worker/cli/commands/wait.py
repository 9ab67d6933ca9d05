"""`vec wait`: until nothing is left to do."""

from __future__ import annotations

import time

import click

from .. import report
from ..command import Command, Target, known_collection
from ..complete import collection_argument
from ..options import SECONDS, target_options


@click.command(cls=Command)
@collection_argument()
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="Stop waiting after this time, and exit with 1.",
)
@target_options
def wait(collection: str, timeout: float | None, target: Target) -> None:
    """Wait until nothing is left to do for COLLECTION.

    Exits with 0 if all its texts have their vectors; with 1 if some are dead, the collection is
    halted, or the time is up.

    \b
    Example:
      vec wait wiki --timeout 3600
    """
    from ..follow import Follower

    end = None if timeout is None else time.monotonic() + timeout
    with target.open(work=True) as (settings, screen):
        known = known_collection(collection, settings)
        follower = Follower(known, settings, target, screen)
        status = follower.follow(0, end)
        click.echo(report.waited(status, target.command("dead", collection)))
        follower.tell_unfinished(status)
    if status.backlog or status.dead:
        raise SystemExit(1)
