"""`vec delete`: single ids leave a collection."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import click

from ...monitor import figures
from ..command import Command, Failure, Target, known_collection, target_options
from ..complete import collection_argument


@click.command(cls=Command)
@collection_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--prefix", metavar="TEXT", help="Delete all ids that begin so.")
@target_options
def delete(collection: str, ids: tuple[str, ...], prefix: str | None, target: Target) -> None:
    """Delete IDs of COLLECTION: vectors, queued texts, dead letters.

    - reads the ids from standard input, one per line. A text in flight does not come back. An id
    that is enqueued again is new. If it is interrupted, run it again.

    \b
    Example:
      vec delete wiki q42 q64
    """
    if bool(ids) == (prefix is not None) or prefix == "":
        raise click.UsageError("Name ids, or - for standard input, or what they begin with.")
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        if prefix is not None:
            from ...store.connection import connect
            from ...store.keys import CollectionKeys
            from ...store.reader import Reader

            reader = Reader(connect(settings), CollectionKeys(settings.prefix, collection))
            asked: Iterable[str] = (id for id in reader.names() if id.startswith(prefix))
            if evicted := known.status().evicted:
                screen.say(
                    f"{collection}: {figures.count(evicted, 'evicted id')} not looked at: "
                    "Redis does not know their names"
                )
        else:
            asked = _lines() if ids == ("-",) else ids
        number = known.delete(asked)
    click.echo(f"{collection}: {figures.count(number, 'id')} deleted")


def _lines() -> Iterator[str]:
    """The ids on standard input."""
    if sys.stdin is None:
        raise Failure("standard input is closed: name the ids instead of -")
    for line in sys.stdin.buffer:
        if id := line.decode(errors="replace").rstrip("\r\n"):
            yield id
