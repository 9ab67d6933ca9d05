"""`vec pause`: no more requests until vec resume."""

from __future__ import annotations

import click

from ...monitor import figures
from ..command import Command, Target, chosen_collections, reader_of
from ..complete import collection_argument
from ..options import target_options


@click.command(cls=Command)
@collection_argument(required=False)
@click.option("--reason", metavar="TEXT", help="Why: vec status shows it.")
@target_options
def pause(collection: str | None, reason: str | None, target: Target) -> None:
    """Send no requests for COLLECTION or for all until vec resume.

    Requests under way are finished; texts can still be queued. A pause holds for every worker
    and key, also for workers that start later. A pause of all collections holds for new ones too.

    \b
    Example:
      vec pause --reason "the provider asked us to"
    """
    from ...store.connection import connect
    from ...throttle import pause as pause_older
    from ...throttle.holds import ALL, hold

    why = f"by hand: {reason}" if reason else "by hand"
    with target.open() as (settings, screen):
        client = connect(settings)
        chosen = chosen_collections(collection, settings)
        hold(client, settings.prefix, collection or ALL, why)
        # Workers of an earlier version do not read the holds.
        for throttle in {reader_of(one.name, settings).info().throttle for one in chosen}:
            if throttle is not None:
                pause_older(client, settings.prefix, throttle, why)
        names = figures.names([one.name for one in chosen])
        click.echo(f"{names or 'all collections'}: paused")
        screen.say(f"To continue: {target.command('resume', *filter(None, [collection]))}")
