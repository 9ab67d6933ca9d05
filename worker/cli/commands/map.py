"""`vec map`: a picture of the vectors of a collection."""

from __future__ import annotations

from pathlib import Path

import click

from ...monitor import figures
from ..command import Command, Failure, Target, known_collection
from ..complete import collection_argument
from ..options import FILE, target_options

MOST = 20_000  # of `worker.store.plane`, which takes a while to import


@click.command(cls=Command)
@collection_argument()
@click.option(
    "-o", "--output", metavar="FILE", type=FILE, required=True, help="The file, NAME.html."
)
@click.option("--color", "field", metavar="FIELD", help="Colour by a kept field, not by clusters.")
@click.option(
    "--sample",
    metavar="NUMBER",
    type=click.IntRange(3, MOST),
    default=MOST,
    show_default=True,
    help="How many vectors to draw, evenly over the collection.",
)
@click.option("--no-text", is_flag=True, help="Leave out the texts, where they are kept.")
@target_options
def map(
    collection: str, output: str, field: str | None, sample: int, no_text: bool, target: Target
) -> None:
    """Draw the vectors of COLLECTION as a map, into an .html file.

    Two principal components make the plane. Point at a dot to see its id and, where texts are kept,
    the beginning of its text. Near-duplicates and outliers are listed beside it. The file needs no
    other file and no network.

    \b
    Example:
      vec map wiki -o wiki.html
    """
    if not output.endswith(".html"):
        raise click.UsageError("-o names a file that ends in .html.")
    from ...monitor.server import INSTALL, MODULES
    from ...store.connection import connect
    from ...store.keys import CollectionKeys
    from ...store.plane import read_map

    try:
        from ...monitor.page.map import page
    except ModuleNotFoundError as error:
        if error.name not in MODULES:
            raise
        raise Failure(f"a map needs more packages: {INSTALL}") from None
    with target.open() as (settings, screen):
        known_collection(collection, settings)
        keys = CollectionKeys(settings.prefix, collection)
        with screen.bar(collection, None) as bar:
            found = read_map(
                connect(settings),
                keys,
                sample,
                field,
                lambda done, total: bar.update(done, total, shown=f"{done:,}/{total:,}"),
            )
        Path(output).write_text(page(found, show_text=not no_text), "utf-8")
    drawn = figures.count(len(found.points), "vector")
    click.echo(f"{collection}: {drawn} of {found.vectors:,} drawn to {figures.plain(output)}")
