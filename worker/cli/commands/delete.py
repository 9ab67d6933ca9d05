"""`vec delete`: single ids leave a collection."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import click

from ...monitor import figures
from .. import report
from ..command import Command, Failure, Target, known_collection, reader_of
from ..complete import collection_argument
from ..options import export_option, target_options

if TYPE_CHECKING:
    from ...store.reader import Reader


@click.command(cls=Command)
@collection_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--prefix", metavar="TEXT", help="Delete all ids that begin so.")
@export_option("With --prefix: look")
@target_options
def delete(
    collection: str,
    ids: tuple[str, ...],
    prefix: str | None,
    folders: tuple[str, ...],
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
    if bool(ids) == (prefix is not None) or prefix == "" or folders and ids:
        raise click.UsageError("Name ids, or - for standard input, or what they begin with.")
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        unnamed = 0  # evicted ids that no folder names
        if prefix is not None:
            reader = reader_of(collection, settings)
            unnamed = reader.ledger().remembered
            # A wrong folder is an error before the first id goes.
            next(_evicted(reader, folders), None)

            def in_folders() -> Iterator[str]:
                nonlocal unnamed
                for id in _evicted(reader, folders):
                    unnamed -= 1
                    yield id

            names = chain(reader.names(), in_folders())
            asked: Iterable[str] = (id for id in names if id.startswith(prefix))
        else:
            asked = _lines() if ids == ("-",) else ids
        number = known.delete(asked)
        if unnamed > 0:
            screen.say(f"{collection}: {report.unnamed(unnamed)}")
    click.echo(f"{collection}: {figures.count(number, 'id')} deleted")


def _evicted(reader: Reader, folders: Sequence[str]) -> Iterator[str]:
    """The ids in the folders."""
    if folders:
        from ...export.sinks import read_sinks

        yield from (position.id for position in read_sinks(folders, reader) if position.digest)


def _lines() -> Iterator[str]:
    """The ids on standard input."""
    if sys.stdin is None:
        raise Failure("standard input is closed: name the ids instead of -")
    for line in sys.stdin.buffer:
        if id := line.decode(errors="replace").rstrip("\r\n"):
            yield id
