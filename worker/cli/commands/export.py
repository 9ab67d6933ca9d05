"""`vec export`: vectors to a file."""

from __future__ import annotations

import click

from .. import report
from ..command import Command, Target, known_collection, target_options
from ..follow import write_vectors


@click.command(cls=Command)
@click.argument("collection")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    help="A .jsonl, .npz or .parquet file, or - for JSON lines on standard output.",
)
@target_options
def export(collection: str, output: str, target: Target) -> None:
    """Write the vectors of COLLECTION to a file.

    \b
    Example:
      vec export wiki -o wiki.npz
    """
    from ...export import check_output

    check_output(output)
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        written = write_vectors(known, output, screen)
        status = known.status()
    line = f"{collection}: {report.written(written, output)}"
    missing = [f"{status.backlog:,} not embedded yet"] if status.backlog else []
    missing += [f"{status.dead:,} dead"] if status.dead else []
    click.echo(f"{line} ({', '.join(missing)})" if missing else line, err=output == "-")
