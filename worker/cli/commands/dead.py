"""`vec dead`: which texts could not be embedded, and why."""

from __future__ import annotations

import click

from .. import report
from ..command import Command, Target, known_collection, print_lines, target_options


@click.command(cls=Command)
@click.argument("collection")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the texts.")
@target_options
def dead(collection: str, as_json: bool, target: Target) -> None:
    """List the texts of COLLECTION that could not be embedded, and why.

    \b
    Example:
      vec dead wiki
    """
    with target.open() as (settings, _):
        letters = known_collection(collection, settings).dead()
        if as_json:
            print_lines(report.dead_array(letters))
        else:
            print_lines(report.dead_table(letters, target.command("retry", collection)))
