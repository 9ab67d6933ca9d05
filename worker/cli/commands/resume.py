"""`vec resume`: the end of a halt or a pause."""

from __future__ import annotations

import click

from .. import figures
from ..command import Command, Target, chosen_collections, sharing, target_options
from ..complete import collection_argument


@click.command(cls=Command)
@collection_argument(required=False)
@target_options
def resume(collection: str | None, target: Target) -> None:
    """End a halt or a pause, of COLLECTION or of all.

    Collections that use the same key and model are halted and resumed together.

    \b
    Example:
      vec resume
    """
    from ...connection import connect
    from ...throttle import resume as end

    resumed = False
    with target.open() as (settings, _):
        models = {one.model or "" for one in chosen_collections(None, settings)}
        for throttle, names in sharing(collection, settings).items():
            if end(connect(settings), settings.prefix, throttle, models):
                resumed = True
                click.echo(f"{figures.names(names)}: resumed")
        for one in chosen_collections(collection, settings):
            if one.resume():  # halted alone, whatever its key
                resumed = True
                click.echo(f"{one.name}: resumed")
    if not resumed:
        click.echo(f"{collection or 'all collections'}: nothing was halted or paused")
