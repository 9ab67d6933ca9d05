"""`vec resume`: the end of a halt or a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .. import figures
from ..command import Command, Target, chosen_collections, target_options
from ..complete import collection_argument

if TYPE_CHECKING:
    from ...collection import Collection
    from ...settings import Settings


@click.command(cls=Command)
@collection_argument(required=False)
@target_options
def resume(collection: str | None, target: Target) -> None:
    """End a halt or a pause, of COLLECTION or of all.

    A halt is of a key: where one ends, it ends for all collections. What follows is one request
    first.

    \b
    Example:
      vec resume
    """
    from ...store.connection import connect
    from ...throttle.holds import ALL, holding, read_holds, release

    with target.open() as (settings, screen):
        client = connect(settings)
        chosen = chosen_collections(collection, settings)
        every = [one.name for one in chosen_collections(None, settings)]
        held = release(client, settings.prefix, collection or ALL)
        held += [one.name for one in chosen if one.resume()]  # halted alone, whatever its key
        ended = _end_halts(chosen, settings)
        resumed = every if ended or ALL in held else [name for name in every if name in held]
        if resumed or held:
            click.echo(f"{figures.names(resumed) or 'all collections'}: resumed")
        else:
            click.echo(f"{collection or 'all collections'}: nothing was halted or paused")
        if collection and holding(read_holds(client, settings.prefix), collection) is not None:
            all_go_on = target.command("resume")
            screen.say(f"{collection} is paused with all collections. To go on: {all_go_on}")
            raise SystemExit(1)


def _end_halts(chosen: list[Collection], settings: Settings) -> bool:
    """End the halts and pauses of all keys, and of the models of these collections under them."""
    from ...store.connection import connect
    from ...throttle import known_throttles, resume

    client = connect(settings)
    models = {one.model or "" for one in chosen}
    older = {one.older_throttle or "" for one in chosen} - {""}
    names = {*known_throttles(client, settings.prefix), *older}
    return any([resume(client, settings.prefix, name, models) for name in names])
