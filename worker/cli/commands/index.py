"""`vec index`: an index in Redis, for searches that do not compare all vectors."""

from __future__ import annotations

import time

import click

from ...monitor import figures
from ..command import Command, Failure, Target, known_collection, reader_of
from ..complete import collection_argument
from ..options import target_options


@click.command(cls=Command)
@collection_argument()
@click.option(
    "--kind",
    type=click.Choice(["hnsw", "flat", "set"]),
    help="hnsw or flat: an index of the query engine; set: a vector set.  [default: the first that "
    "this Redis has]",
)
@click.option("--drop", is_flag=True, help="Drop the index; the vectors stay.")
@target_options
def index(collection: str, kind: str | None, drop: bool, target: Target) -> None:
    """Make an index of COLLECTION in Redis; vec search uses it.

    With the query engine (Redis 8, Redis Stack) the index follows the collection by itself. A
    vector set takes less memory and does not follow: what is newer is compared one by one, until
    this command is run again.

    \b
    Example:
      vec index wiki
      vec index wiki --drop
    """
    from ...store.connection import connect
    from ...store.index import NAMES, Index
    from ...store.keys import CollectionKeys

    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        made = Index(connect(settings), CollectionKeys(settings.prefix, collection))
        if drop:
            there = made.drop()
            click.echo(f"{collection}: {'the index is dropped' if there else 'has no index'}")
            return
        now, info = made.indexed(), reader_of(collection, settings).info()
        kind = made.choose(kind, now)
        if now is not None and now.kind != kind:
            remove = target.command("index", collection)
            raise Failure(f"{collection} has {NAMES[now.kind]}: drop it first with {remove} --drop")
        vectors, begun = len(known), time.monotonic()
        needed = made.memory(kind, info, vectors)
        size = f"{figures.count(vectors, 'vector')} of {info.dimensions} numbers"
        screen.say(f"{collection}: {NAMES[kind]}, {size}, takes about {needed / 1e6:,.1f} MB")
        with screen.bar(collection, vectors) as bar:

            def show(share: float) -> None:
                bar.update(int(share * vectors), vectors, shown=f"{share:.0%} indexed")

            made.make(kind, info, show)
    took = figures.duration(time.monotonic() - begun)
    click.echo(f"{collection}: {NAMES[kind]} of {figures.count(vectors, 'vector')}, in {took}")
