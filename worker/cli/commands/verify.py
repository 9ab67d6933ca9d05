"""`vec verify`: proof that each text of a corpus has its vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import click

from ...monitor import figures
from ...types import State
from .. import report
from ..command import Command, Target, collection_option, known_collection, reader_of
from ..options import (
    FILE,
    export_option,
    long_options,
    reading_options,
    sink_option,
    target_options,
)
from ..queries import database_option, sources_of, sql_option
from ..screen import watched

if TYPE_CHECKING:
    from ...corpus import Reading
    from ...corpus.long import Long
    from ...store.reader import Reader


@click.command(cls=Command)
@click.argument("corpus", metavar="CORPUS", type=FILE, required=False)
@sql_option
@database_option
@collection_option
@export_option("Look")
@sink_option("--sink", "Prove that the vectors are there: in this folder or database.")
@click.option(
    "--allow-surplus",
    is_flag=True,
    help="Do not look for ids that CORPUS does not have: others fed the collection too.",
)
@reading_options
@long_options
@target_options
def verify(
    corpus: str | None,
    sql: str | None,
    database: str | None,
    collection: str | None,
    folders: tuple[str, ...],
    sink: str | None,
    allow_surplus: bool,
    reading: Reading,
    long: Long,
    target: Target,
) -> None:
    """Read CORPUS again and prove that each text has its vector.

    Exits with 0 only if the vector of every line's text is stored, and no id is that CORPUS does
    not have: surplus. Evicted vectors are in the folder or database to which they were exported:
    name it with --export. With --sink, each vector must be in that one.

    \b
    Example:
      vec verify wiki.jsonl
      vec verify wiki.jsonl --sink "postgresql://me@db.example/shop?table=wiki"
    """
    from ...corpus import Corpus, CorpusError
    from ...export.sinks import read_sinks, sink_of
    from ...export.verify import verify as compare
    from ..rejections import rejection_line
    from ..sources import collections_of, say_skipped

    (source,) = sources_of([] if corpus is None else [corpus], sql, database)
    (name,) = collections_of([source], collection)
    if sink is not None and folders:
        raise click.UsageError("--sink and --export both name where vectors are: choose one.")
    sinks = folders if sink is None else (sink,)
    with target.open() as (settings, screen):
        with Corpus(source, replace(reading, long=long)) as opened:
            say_skipped(opened, screen)
            known = known_collection(name, settings)
            reader = reader_of(name, settings)
            with screen.bar(name, opened.size, bytes=True) as bar:
                evicted = 0  # ids that were looked at

                def states(ids: Sequence[str]) -> list[State]:
                    nonlocal evicted
                    known = reader.known(ids)
                    evicted += sum(map(bool, known.evicted))
                    return known.states

                result = compare(
                    watched(opened, bar),
                    states,
                    read_sinks(sinks, reader, pending=sink is None) if sinks else (),
                    names=None if allow_surplus else reader.names(),
                    unexported=None if sink is None else _unexported(sink, reader),
                    documents=long.splits,
                )
            if opened.broken is not None:
                raise CorpusError(opened.broken)
            if not allow_surplus:
                unnamed = max(0, reader.ledger().remembered - evicted)
                result = replace(result, unnamed=unnamed)
        for rejection in result.rejections:
            screen.say(rejection_line(source, rejection))
        for kind in ("pending", "dead", "missing", "surplus"):
            if ids := getattr(result, f"{kind}_ids"):
                more = getattr(result, kind) - len(ids)
                tail = f" and {more:,} more" if more else ""
                # What the corpus does not have may only look like a piece.
                shown = report.by_document(ids) if long.splits and kind != "surplus" else ids
                screen.say(f"{kind}: {', '.join(map(figures.plain, shown))}{tail}")
        if result.missing and not folders and (evicted := known.status().evicted):
            screen.say(f"{evicted:,} vectors were evicted: name their folder with --export")
        elif result.unnamed:
            screen.say(report.unnamed(result.unnamed))
    click.echo(report.verified(name, result, "files" if sink is None else str(sink_of(sink, name))))
    if not result.complete:
        raise SystemExit(1)


def _unexported(sink: str, reader: Reader) -> Literal["pending", "missing"]:
    """What a stored vector is that is not in the sink: still to come, or lost there."""
    from ...export.sinks import sink_of

    is_behind = reader.finished(sink_of(sink, reader.name).watermarks().vectors, 1)
    return "pending" if is_behind else "missing"
