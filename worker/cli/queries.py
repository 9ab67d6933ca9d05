"""Queries: the options that make a corpus of the rows of a database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..corpus import Source

VARIABLE = "VECTOR_EMBED_DATABASE_URL"

sql_option = click.option(
    "--sql",
    metavar="SELECT",
    help="Read the rows of this query, in place of CORPUS. Needs --collection.",
)
database_option = click.option(
    "--database",
    metavar="URL",
    help="With --sql: the database, such as postgresql://HOST/NAME. To hide its password from "
    f"other users of the machine, set {VARIABLE} in its place.",
)


def sources_of(paths: Sequence[str], sql: str | None, database: str | None) -> list[Source]:
    """The corpora that a command line names. Raises UsageError and CorpusError."""
    from ..corpus import Query, find_source

    if sql is None:
        if database is not None:
            raise click.UsageError("--database goes with --sql.")
        if not paths:
            context = click.get_current_context()
            (argument,) = (one for one in context.command.params if isinstance(one, click.Argument))
            raise click.MissingParameter(ctx=context, param=argument)
        return [find_source(path) for path in paths]
    if paths:
        raise click.UsageError("--sql is the corpus: leave out CORPUS.")
    database = database or os.environ.get(VARIABLE, "").strip()
    if not database:
        raise click.UsageError(f"Name the database with --database or {VARIABLE}.")
    return [Query(sql, database)]
