"""`vec resume`: the end of a halt or a pause."""

from __future__ import annotations

import click

from ..command import Command, Target, all_names, known_collection, target_options


@click.command(cls=Command)
@click.argument("collection", required=False)
@target_options
def resume(collection: str | None, target: Target) -> None:
    """End a halt or a pause, of COLLECTION or of all.

    Collections that use the same key and model are halted and resumed together.

    \b
    Example:
      vec resume
    """
    from ...collection import Collection
    from ...connection import connect
    from ...throttle import resume as end

    with target.open() as (settings, _):
        if collection is None:
            chosen = [Collection(name, settings=settings) for name in all_names(settings)]
        else:
            chosen = [known_collection(collection, settings)]
        resumed: set[str] = set()
        for one in chosen:
            throttle = one.throttle
            if throttle is None:
                continue
            if throttle in resumed or end(connect(settings), settings.prefix, throttle):
                resumed.add(throttle)
                click.echo(f"{one.name}: resumed")
        if not resumed:
            click.echo(f"{collection or 'all collections'}: nothing was halted or paused")
