"""`vec dead`: which texts could not be embedded, and why."""

from __future__ import annotations

import click

from .. import report
from ..command import Command, Target, known_collection, print_lines
from ..complete import collection_argument
from ..options import target_options


@click.command(cls=Command)
@collection_argument()
@click.option("--code", metavar="CODE", help="Only dead letters with this code.")
@click.option("--count", is_flag=True, help="Print how many there are of each reason.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the texts.")
@target_options
def dead(collection: str, code: str | None, count: bool, as_json: bool, target: Target) -> None:
    """List the texts of COLLECTION that cannot be embedded, and why.

    \b
    Example:
      vec dead wiki
    """
    with target.open() as (settings, _):
        letters = known_collection(collection, settings).dead(code)
        if count and as_json:
            click.echo(report.reasons_array(letters))
        elif count:
            print_lines(report.reasons_table(letters, code))
        elif as_json:
            print_lines(report.dead_array(letters))
        else:
            again = target.command("retry", collection, code=code)
            print_lines(report.dead_table(letters, again, code))
