"""`vec shrink`: the stored vectors of a collection become smaller, in place."""

from __future__ import annotations

import sys

import click

from ...monitor import figures
from ...types import Shrunk
from ..command import Command, Failure, Target, known_collection
from ..complete import collection_argument
from ..options import layout_options, target_options


@click.command(cls=Command)
@collection_argument()
@layout_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options
def shrink(
    collection: str,
    dimensions: int | None,
    dtype: str | None,
    force: bool,
    yes: bool,
    target: Target,
) -> None:
    """Make the stored vectors of COLLECTION smaller.

    With --dimensions they get fewer numbers, with --dtype smaller ones, and so do all that are
    stored from now on. Shows how much memory that frees and asks first: what is cut away is gone;
    vec compare shows how much that is. Nothing is embedded again. Workers and readers continue
    meanwhile. If it is interrupted, run it again.

    \b
    Example:
      vec shrink wiki --dimensions 256 --dtype float16
    """
    from ...store.connection import connect
    from ...store.keys import CollectionKeys
    from ...store.memory import read_footprint
    from ...store.reader import Reader
    from ...store.shrinking import Shrinking, shown, smaller

    if dimensions is None and dtype is None:
        raise click.UsageError("Say --dimensions, --dtype, or both.")
    with target.open() as (settings, screen):
        status = known_collection(collection, settings).status()
        client, keys = connect(settings), CollectionKeys(settings.prefix, collection)
        info, before = Reader(client, keys).info(), read_footprint(client, keys)
        layout = smaller(info, dimensions, dtype, force=force)
        if layout != info.layout and not yes:
            freed = before.all - before.vectors * before.of(layout, info.dimensions or 0)
            doomed = (
                f"store {figures.count(before.vectors, 'vector')} as {shown(info, layout)}, not as "
                f"{shown(info, info.layout)} (frees about {figures.size(freed)} of "
                f"{figures.size(before.all)})"
            )
            if sys.stdin is None or not sys.stdin.isatty():
                raise Failure(f"cannot ask whether to {doomed}: use --yes")
            if not click.confirm(f"{collection}: {doomed}? What is cut away is gone", err=True):
                screen.say(f"{collection}: nothing is changed")
                raise SystemExit(1)
        if status.evicted:
            evicted = figures.count(status.evicted, "vector")
            screen.say(f"{collection}: {evicted} evicted before: unchanged in files")
        with screen.bar(collection, before.vectors) as bar:

            def show(done: Shrunk) -> None:
                bar.update(done.vectors, before.vectors, shown=f"{done.shrunk:,} made smaller")

            done = Shrinking(client, keys).shrink(layout, show)
        now = read_footprint(client, keys)
    line = f"{collection}: {figures.count(done.shrunk, 'vector')} made smaller"
    click.echo(f"{line}, {figures.size(before.all)} before, {figures.size(now.all)} now")
