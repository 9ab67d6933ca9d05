"""`vec compare`: what smaller vectors would keep, and what they would take."""

from __future__ import annotations

import json

import click

from ...monitor import figures
from ...types import Comparison, Kept
from .. import report
from ..command import Command, Target, known_collection, print_lines
from ..complete import collection_argument
from ..options import layout_options, target_options


@click.command(cls=Command)
@collection_argument()
@layout_options
@click.option(
    "--sample",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How many vectors to compare, evenly over the collection; a larger number than there are "
    "is all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def compare(
    collection: str,
    dimensions: int | None,
    dtype: str | None,
    force: bool,
    sample: int,
    as_json: bool,
    target: Target,
) -> None:
    """Measure what smaller vectors of COLLECTION keep.

    TOP 10 KEPT is measured on its own vectors: how many of the 10 nearest to a vector are still its
    10 nearest, for up to 1,000 of them. Without --dimensions or --dtype, all are compared that the
    model allows. Beside it is the memory that they take. Nothing is changed.

    \b
    Example:
      vec compare wiki --dimensions 256 --dtype float16
    """
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        with screen.bar(collection, None) as bar:
            found = known.compare(
                dimensions,
                dtype,
                sample=sample,
                force=force,
                progress=lambda done, total: bar.update(done, total, shown=f"{done:,}/{total:,}"),
            )
        if sample < found.vectors:
            size = f"--sample {found.vectors}"
            screen.say(f"{collection}: of all vectors less is kept than of a sample: {size}")
    if as_json:
        click.echo(json.dumps(_object(collection, found), indent=2))
        return
    compared = figures.count(found.compared, "vector")
    click.echo(f"{collection}: {compared} of {found.vectors:,} compared with {found.queries:,}")
    header = ["dimensions", "dtype", "top 10 kept", "bytes a vector", "all vectors", ""]
    own, *others = (_cells(one, found.vectors) for one in found.layouts)
    rows = map(report.Row, [[*own, "now"], *([*cells, ""] for cells in others)])
    print_lines(report.table(header, rows, right=[0, 2, 3, 4]))


def _cells(one: Kept, vectors: int) -> list[str]:
    size = figures.size(one.bytes * vectors)
    return [str(one.dimensions), one.dtype, f"{one.kept:.4f}", f"{one.bytes:,.0f}", size]


def _object(collection: str, found: Comparison) -> dict[str, object]:
    layouts = [
        {**one._asdict(), "bytes_of_all": one.bytes * found.vectors} for one in found.layouts
    ]
    return {"collection": collection, **found._asdict(), "layouts": layouts}
