"""`vec drop`: the end of a collection."""

from __future__ import annotations

import sys

import click

from ...monitor import figures
from ...types import Dropped
from ..command import Command, Failure, Target, all_names, known_collection
from ..complete import collection_argument
from ..options import target_options


@click.command(cls=Command)
@collection_argument()
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options
def drop(collection: str, yes: bool, target: Target) -> None:
    """Delete COLLECTION: its vectors, its queue and its dead letters.

    Shows how much that is and asks first. Exported files stay. If it is interrupted, run it again.

    \b
    Example:
      vec drop wiki
    """
    from ...collection import Collection

    with target.open() as (settings, screen):
        if collection in all_names(settings):  # an interrupted drop may leave only the name
            known = Collection(collection, settings=settings)
        else:
            known = known_collection(collection, settings)
        status = known.status()
        doomed = _parts(Dropped(status.embedded, status.backlog, status.dead))
        if status.evicted:  # if enqueued again, they are paid again
            doomed += f", and what is known of {status.evicted:,} evicted"
        if not yes:
            if sys.stdin is None or not sys.stdin.isatty():
                raise Failure(f"cannot ask whether to delete {collection} ({doomed}): use --yes")
            # Not abort=True: a "no" is an answer, not an error.
            if not click.confirm(f"{collection}: delete {doomed}?", err=True):
                screen.say(f"{collection}: nothing is deleted")
                raise SystemExit(1)
        with screen.bar(collection, status.embedded) as bar:

            def show(gone: Dropped) -> None:
                bar.update(gone.vectors, status.embedded, shown=f"{gone.vectors:,} deleted")

            gone = known.drop(show)
    click.echo(f"{collection}: dropped, {_parts(gone)}")


def _parts(size: Dropped) -> str:
    return f"{figures.count(size.vectors, 'vector')}, {size.queued:,} queued, {size.dead:,} dead"
