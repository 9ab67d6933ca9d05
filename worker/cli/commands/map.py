"""`vec map`: a picture of the vectors of a collection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from ...monitor import figures
from ..command import Command, Failure, Target, known_collection
from ..complete import collection_argument
from ..options import FILE, target_options

if TYPE_CHECKING:
    from ...store.plane import Map

MOST = 20_000  # of `worker.store.plane`, which takes a while to import


@click.command(cls=Command)
@collection_argument()
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=FILE,
    required=True,
    help="The file, NAME.html or NAME.png.",
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
    """Draw the vectors of COLLECTION as a map.

    Two principal components make the plane. In an .html file, point at a dot to see its id and,
    where texts are kept, the beginning of its text; near-duplicates and outliers are listed beside
    it. The file needs no other file and no network. A .png is a picture for a report, without
    texts.

    \b
    Example:
      vec map wiki -o wiki.html
    """
    write = _writer(output, show_text=not no_text)
    directory = Path(output).parent
    if not directory.is_dir():
        raise click.UsageError(f"-o: there is no directory {figures.plain(str(directory))}.")
    from ...export.files import replaced
    from ...store.connection import connect
    from ...store.keys import CollectionKeys
    from ...store.plane import read_map

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
        with replaced(output) as file:
            write(found, file)
    drawn = figures.count(len(found.points), "vector")
    click.echo(f"{collection}: {drawn} of {found.vectors:,} drawn to {figures.plain(output)}")


def _writer(output: str, *, show_text: bool) -> Callable[[Map, BinaryIO], object]:
    """What writes a map as the file's name says. Raises Failure if its packages are missing."""
    try:
        if output.lower().endswith(".png"):
            from ...monitor.picture import draw

            return lambda found, file: draw(found, file)
        if output.lower().endswith(".html"):
            from ...monitor.page.map import page

            return lambda found, file: file.write(page(found, show_text=show_text).encode())
    except ModuleNotFoundError as error:
        extra = {"matplotlib": "png", "jinja2": "web", "markupsafe": "web"}.get(error.name or "")
        if extra is None:
            raise
        command = f"pip install 'vector-embed-cache-client[{extra}]'"
        raise Failure(f"this map needs more packages: {command}") from None
    raise click.UsageError("-o names a file that ends in .html or .png.")
