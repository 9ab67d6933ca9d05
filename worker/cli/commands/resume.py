"""`vec resume`: the end of a halt or a pause."""

from __future__ import annotations

import click

from ...monitor import figures
from ...settings import Settings
from ..command import Command, Target, all_names, chosen_collections, reader_of
from ..complete import collection_argument
from ..options import target_options


@click.command(cls=Command)
@collection_argument(required=False)
@target_options
def resume(collection: str | None, target: Target) -> None:
    """End a halt or a pause, of COLLECTION or of all.

    A halt belongs to an API key, so it ends for all collections. One request goes first; the others
    follow if it passes.

    \b
    Example:
      vec resume
    """
    from ...store.backlog import Backlog
    from ...store.connection import connect
    from ...store.keys import CollectionKeys
    from ...throttle.holds import ALL, holding, read_holds, release

    with target.open() as (settings, screen):
        client = connect(settings)
        chosen = [one.name for one in chosen_collections(collection, settings)]
        every = all_names(settings)
        held = release(client, settings.prefix, collection or ALL)
        # Halted alone, whatever the API key:
        keys = {name: CollectionKeys(settings.prefix, name) for name in chosen}
        held += [name for name in chosen if Backlog(client, keys[name]).resume()]
        ended = _end_halts(chosen, settings)
        resumed = every if ended or ALL in held else [name for name in every if name in held]
        if resumed or held:
            click.echo(f"{figures.names(resumed) or 'all collections'}: resumed")
        else:
            click.echo(f"{collection or 'all collections'}: nothing was halted or paused")
        if collection and holding(read_holds(client, settings.prefix), collection) is not None:
            again = target.command("resume")
            screen.say(f"{collection} is paused with all collections. To continue: {again}")
            raise SystemExit(1)


def _end_halts(chosen: list[str], settings: Settings) -> bool:
    """End the halts and pauses of all API keys, and of these collections' models under them."""
    from ...store.connection import connect
    from ...throttle import known_throttles, resume

    client = connect(settings)
    infos = [reader_of(name, settings).info() for name in chosen]
    models = {info.model or "" for info in infos}
    older = {info.throttle for info in infos if info.throttle is not None}
    names = {*known_throttles(client, settings.prefix), *older}
    return any([resume(client, settings.prefix, name, models) for name in names])
