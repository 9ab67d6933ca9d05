"""`vec delete`: single ids leave a collection."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import click

from ...monitor import figures
from .. import report
from ..command import (
    FOLDER,
    Command,
    Failure,
    Target,
    known_collection,
    reader_of,
    target_options,
)
from ..complete import collection_argument

if TYPE_CHECKING:
    from ...store.reader import Reader


@click.command(cls=Command)
@collection_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--prefix", metavar="TEXT", help="Delete all ids that begin so.")
@click.option(
    "--export",
    "folder",
    metavar="FOLDER",
    type=FOLDER,
    help="With --prefix: look into this folder of exported vectors too.",
)
@target_options
def delete(
    collection: str,
    ids: tuple[str, ...],
    prefix: str | None,
    folder: str | None,
    target: Target,
) -> None:
    """Delete IDs of COLLECTION: vectors, queued texts, dead letters.

    - reads the ids from standard input, one per line. A document that was split is deleted with
    its pieces. A text in flight does not come back. An id that is enqueued again is new. If it is
    interrupted, run it again.

    \b
    Example:
      vec delete wiki q42 q64
    """
    if bool(ids) == (prefix is not None) or prefix == "" or folder and ids:
        raise click.UsageError("Name ids, or - for standard input, or what they begin with.")
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        if prefix is not None:
            reader = reader_of(collection, settings)
            next(_evicted(reader, folder), None)  # a wrong folder is an error before the first goes
            names = chain(reader.names(), _evicted(reader, folder))
            asked: Iterable[str] = (id for id in names if id.startswith(prefix))
            if folder is None and (evicted := reader.ledger().remembered):
                screen.say(f"{collection}: {report.unnamed(evicted)}")
        else:
            asked = _lines() if ids == ("-",) else ids
        number = known.delete(asked)
    click.echo(f"{collection}: {figures.count(number, 'id')} deleted")


def _evicted(reader: Reader, folder: str | None) -> Iterator[str]:
    """The ids in a folder."""
    if folder is not None:
        from ...export.folder import read_folder

        yield from (position.id for position in read_folder(folder, reader) if position.digest)


def _lines() -> Iterator[str]:
    """The ids on standard input."""
    if sys.stdin is None:
        raise Failure("standard input is closed: name the ids instead of -")
    for line in sys.stdin.buffer:
        if id := line.decode(errors="replace").rstrip("\r\n"):
            yield id
