"""`vec pause`: no more requests until somebody resumes."""

from __future__ import annotations

import click

from .. import figures
from ..command import Command, Target, chosen_collections, sharing, target_options
from ..complete import collection_argument


@click.command(cls=Command)
@collection_argument(required=False)
@click.option("--reason", metavar="TEXT", help="Why, for those who look.")
@target_options
def pause(collection: str | None, reason: str | None, target: Target) -> None:
    """Send nothing more, for COLLECTION or for all, until vec resume.

    Requests under way are finished; texts can still be queued. Collections that use the same key
    and model are paused and resumed together.

    \b
    Example:
      vec pause --reason "the provider asked us to"
    """
    from ...connection import connect
    from ...throttle import pause as hold

    clean = True
    with target.open() as (settings, screen):
        for one in chosen_collections(collection, settings):
            if one.throttle is None:
                screen.say(f"{one.name}: no worker has seen it yet, so there is nothing to pause")
                clean = False
        throttles = sharing(collection, settings)
        for throttle, names in throttles.items():
            why = f"by hand: {reason}" if reason else "by hand"
            hold(connect(settings), settings.prefix, throttle, why)
            click.echo(f"{figures.names(names)}: paused")
        if throttles:
            screen.say(f"To go on: {target.command('resume', *filter(None, [collection]))}")
    if not clean:
        raise SystemExit(1)
