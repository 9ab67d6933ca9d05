"""`vec retry`: dead letters back into the backlog."""

from __future__ import annotations

import click

from ...monitor import figures
from ..command import Command, Target, known_collection
from ..complete import collection_argument
from ..options import target_options


@click.command(cls=Command)
@collection_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--code", metavar="CODE", help="Only dead letters with this code.")
@target_options
def retry(collection: str, ids: tuple[str, ...], code: str | None, target: Target) -> None:
    """Put dead letters of COLLECTION back into the backlog.

    All of them, or those of the IDs named. With --local it also waits until they are done.

    \b
    Example:
      vec retry wiki
    """
    from ..follow import Follower

    with target.open(work=True) as (settings, screen):
        known = known_collection(collection, settings)
        asked = set(ids)
        number = known.retry(asked or None, code=code)
        click.echo(f"{collection}: {figures.count(number, 'dead letter')} put back")
        clean = number >= len(asked)
        if not clean:
            gone = figures.count(len(asked) - number, "id")
            screen.say(f"{collection}: {gone} named without a dead letter")
        if number and target.local:
            follower = Follower(known, settings, target, screen)
            status = follower.follow(number)
            follower.tell_unfinished(status)
            if status.dead and not status.backlog:
                look = target.command("dead", collection)
                screen.say(f"{collection}: {status.dead:,} dead (see {look})")
            clean &= not (status.backlog or status.dead)
    if not clean:
        raise SystemExit(1)
