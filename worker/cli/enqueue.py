"""`vec-enqueue`: the texts of files into a collection."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from ..settings import parse_rate
from ..types import PRIORITIES, Rate
from .command import AS_HELP, Command, Target, collection_option, version_option
from .options import (
    FILE,
    SECONDS,
    export_option,
    layout_options,
    long_options,
    reading_options,
    sink_option,
    target_options,
)
from .queries import database_option, sources_of, sql_option

if TYPE_CHECKING:
    from ..corpus import Reading
    from ..corpus.long import Long


def _rate(ctx: click.Context, option: click.Parameter, said: str | None) -> Rate | None:
    if said is None:
        return None
    try:
        return parse_rate(said)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=Command, context_settings=AS_HELP)
@click.argument("corpora", metavar="CORPUS...", nargs=-1, type=FILE)
@sql_option
@database_option
@collection_option
@reading_options
@long_options
@click.option(
    "--keep",
    metavar="FIELD",
    multiple=True,
    help="Store this field beside the vectors; repeatable.",
)
@click.option("--keep-text", is_flag=True, help="Store the texts beside the vectors from now on.")
@click.option("--model", metavar="MODEL", help="Model of the collection's vectors.")
@layout_options
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    default="normal",
    show_default=True,
    help="Of the texts that wait, interactive ones go first, and bulk last.",
)
@click.option("--wait", is_flag=True, help="Wait until these texts are done.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=FILE,
    help="Wait, then write the vectors, as vec export does.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=SECONDS,
    help="With --wait: stop waiting after this time, and exit with 1.",
)
@click.option(
    "--web", is_flag=True, help="With --local or --wait: serve a page of the work meanwhile."
)
@click.option("--prune", is_flag=True, help="At the end, delete the ids that no CORPUS has.")
@click.option("--yes", is_flag=True, help="With --prune: do not ask.")
@export_option("With --prune: look")
@sink_option("--to", "sink", "Keep this folder or database true to CORPUS: --wait and --prune too.")
@click.option("--evict", is_flag=True, help="With --to: delete from Redis what is safe there.")
@click.option("--dry-run", is_flag=True, help="Only show what it would cost; send nothing.")
@click.option(
    "--quota",
    metavar="TEXTS",
    type=click.IntRange(min=1),
    help="With --dry-run: show how many days it takes with this daily quota.",
)
@click.option(
    "--rate",
    metavar="RATE",
    callback=_rate,
    help="With --dry-run: show how long it takes at this rate, such as 600/min or 20000 "
    "texts/hour.  [default: VECTOR_EMBED_RATE]",
)
@target_options
@version_option()
def vec_enqueue(
    corpora: tuple[str, ...],
    sql: str | None,
    database: str | None,
    collection: str | None,
    keep: tuple[str, ...],
    long: Long,
    keep_text: bool,
    model: str | None,
    dimensions: int | None,
    dtype: str | None,
    force: bool,
    priority: str,
    wait: bool,
    output: str | None,
    timeout: float | None,
    web: bool,
    prune: bool,
    yes: bool,
    folders: tuple[str, ...],
    sink: str | None,
    evict: bool,
    dry_run: bool,
    quota: int | None,
    rate: Rate | None,
    reading: Reading,
    target: Target,
) -> None:
    """Queue the texts of each CORPUS to be embedded by the workers.

    A corpus is a .jsonl, .json (an array), .csv, .tsv, .txt (one text per line), .parquet, .arrow
    or .feather file; or a .md or .html file, which is one text; each also with .gz, .bz2, .xz or
    .zst; a folder of such files, where each .txt is one text too; a pattern such as
    'shards/*.parquet'; an address of these, such as s3://bucket/docs/; or - for JSON lines on
    standard input. Folders and patterns need --collection.

    With --sql, the corpus is what a SELECT gives: its columns are the fields.

    What is already stored or queued costs nothing. Lines that cannot be embedded go to
    STEM.rejected.jsonl beside the corpus, those of a folder, a pattern, a query or standard input
    to NAME.rejected.jsonl; if that cannot be written, they are shown.

    With --local everything happens on this machine: the command embeds with a local model, writes
    STEM.vectors.jsonl into the current directory, and stops what it started. With --web it prints
    the address of a page that shows the work until then.

    With --dimensions or --dtype, a new collection stores smaller vectors: the first numbers of
    each, or numbers of fewer bytes.

    With --dry-run nothing is sent, and neither Redis nor a key is needed.

    With --prune, ids of the collection that no CORPUS has are deleted at the end. If that is more
    than a tenth, the command asks first. If a CORPUS could not be read to its end, nothing is
    deleted. With --dry-run too, it says how many ids would go, and needs Redis.

    \b
    Example:
      vec-enqueue wiki.jsonl --id-field title --wait
      vec-enqueue --sql "SELECT id, body AS text FROM docs" --collection docs
    """
    from vector_embed_client import __version__

    from ..corpus import Corpus
    from ..layout import asked as asked_layout
    from .asked import Asked
    from .dry_run import dry_run as show_costs
    from .run import enqueue
    from .sources import collections_of

    if not dry_run and (quota or rate):
        raise click.UsageError("--quota and --rate go with --dry-run.")
    if evict and sink is None:
        raise click.UsageError("--evict goes with --to.")
    if sink is not None and output is not None:
        raise click.UsageError("-o and --to both name where the vectors go: choose one.")
    prune = prune or sink is not None
    if not prune and (yes or folders):
        raise click.UsageError("--yes and --export go with --prune.")
    sources = sources_of(corpora, sql, database)
    names = collections_of(sources, collection)
    if output is not None and len(set(names)) > 1:
        raise click.UsageError(
            "-o writes one collection: name one for all with --collection, or use "
            f"{target.command('export')}."
        )
    if sink is not None and len(set(names)) > 1:
        raise click.UsageError("--to takes one collection: name one for all with --collection.")
    wait = wait or target.local or output is not None or sink is not None
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    if web and not wait:
        raise click.UsageError("--web goes with --local or --wait.")
    outputs = {}
    if target.local and sink is None:
        outputs = {name: f"{name}.vectors.jsonl" for name in names}
    reading = replace(reading, keep=keep, long=long)
    smaller = dimensions is not None or dtype is not None
    if force and not smaller:
        raise click.UsageError("--force goes with --dimensions.")
    asked = Asked(
        target,
        sources,
        names,
        outputs if output is None else {names[0]: output},
        partial(Corpus, reading=reading),
        model,
        keep_text or target.local,
        prune,
        yes,
        sink,
        evict,
        folders,
        long.splits,
        repr((__version__, reading, model, keep_text, *([dimensions, dtype] if smaller else []))),
        partial(asked_layout, dimensions=dimensions, dtype=dtype, force=force),
        priority,
        web,
    )
    asked.check()
    if not (show_costs(asked, quota, rate) if dry_run else enqueue(asked, wait, timeout)):
        raise SystemExit(1)
