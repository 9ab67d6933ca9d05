"""`vec`: look at collections, read them, and help them along."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from . import report
from .command import (
    AS_HELP,
    Commands,
    Target,
    all_names,
    known_collection,
    target_options,
    text_options,
)
from .follow import follow, write_vectors
from .screen import Bar

if TYPE_CHECKING:
    from ..corpus import Corpus
    from ..job import Job, Rejection


@click.group(cls=Commands, context_settings=AS_HELP)
def vec() -> None:
    """Look at collections of vectors, read them, and help them along.

    \b
    Example:
      vec status
    """


@vec.command()
@click.argument("collection", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@target_options
def status(collection: str | None, as_json: bool, target: Target) -> None:
    """Show how far one COLLECTION, or each, is.

    enqueued = embedded + evicted + dead + pending + leased, at every moment.

    \b
    Example:
      vec status wiki
    """
    from ..collection import Collection

    with target.open() as (settings, _):
        if collection is not None:
            every = [known_collection(collection, settings).status()]
        else:
            every = [Collection(name, settings=settings).status() for name in all_names(settings)]
    if as_json:
        objects = [report.status_object(one) for one in every]
        click.echo(json.dumps(objects if collection is None else objects[0], indent=2))
        return
    if not every:
        click.echo("no collections yet")
        return
    if collection is None:
        _print(report.status_table(every, target.command("resume")))
    else:
        dead, resume = (target.command(verb, collection) for verb in ("dead", "resume"))
        _print(report.status_page(every[0], dead, resume))
    if not target.local:  # where workers run only for as long as a command
        click.echo(report.workers_line(every[0].workers))


@vec.command()
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
    from ..export import check_output

    check_output(output)
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        written = write_vectors(known, output, screen)
        status = known.status()
    line = f"{collection}: {report.written(written, output)}"
    missing = [f"{status.backlog:,} not embedded yet"] if status.backlog else []
    missing += [f"{status.dead:,} dead"] if status.dead else []
    click.echo(f"{line} ({', '.join(missing)})" if missing else line, err=output == "-")


@vec.command()
@click.argument("corpus")
@click.option("--collection", metavar="NAME", help="Look here, not under the file's stem.")
@text_options
@target_options
def verify(
    corpus: str, collection: str | None, text_field: str, id_field: str | None, target: Target
) -> None:
    """Read CORPUS again and prove that each of its texts has its vector.

    Exits with 0 only if the vector of every line's text is stored.

    \b
    Example:
      vec verify wiki.jsonl
    """
    from ..corpus import Corpus, collection_name
    from ..verify import verify as compare

    if corpus == "-" and collection is None:
        raise click.UsageError("Name the collection of standard input with --collection.")
    name = collection_name(corpus) if collection is None else collection
    with target.open() as (settings, screen):
        with Corpus(corpus, text_field=text_field, id_field=id_field) as opened:
            known = known_collection(name, settings)
            with screen.bar(name, opened.size, bytes=True) as bar:
                result = compare(_watched(opened, bar), known.states)
        for rejection in result.rejections:
            reason = report.plain(rejection.reason)
            screen.say(f"{report.source(corpus)}:{rejection.line}: rejected: {reason}")
        samples = {
            "pending": result.pending_ids,
            "dead": result.dead_ids,
            "missing": result.missing_ids,
        }
        for kind, ids in samples.items():
            if ids:
                more = getattr(result, kind) - len(ids)
                tail = f" and {more:,} more" if more else ""
                screen.say(f"{kind}: {', '.join(map(report.plain, ids))}{tail}")
    click.echo(report.verified(name, result))
    if not result.complete:
        raise SystemExit(1)


@vec.command()
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
            _print(report.dead_array(letters))
        else:
            _print(report.dead_table(letters, target.command("retry", collection)))


@vec.command()
@click.argument("collection")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@target_options
def retry(collection: str, ids: tuple[str, ...], target: Target) -> None:
    """Put dead letters of COLLECTION back into the backlog.

    All of them, or those of the IDs named. With --local it also waits until they are done.

    \b
    Example:
      vec retry wiki
    """
    clean = True
    with target.open(work=True) as (settings, screen):
        known = known_collection(collection, settings)
        asked = set(ids)
        number = known.retry(asked or None)
        click.echo(f"{collection}: {report.count(number, 'dead letter')} put back")
        if number < len(asked):
            gone = report.count(len(asked) - number, "id")
            screen.say(f"{collection}: {gone} named without a dead letter")
            clean = False
        if number and target.local:
            status = follow(known, number, target, screen)
            if status.backlog:
                screen.say(report.halted(status, target.command("resume", collection)))
            elif status.dead:
                look = target.command("dead", collection)
                screen.say(f"{collection}: {status.dead:,} dead (see {look})")
            clean &= not (status.backlog or status.dead)
    if not clean:
        raise SystemExit(1)


@vec.command()
@click.argument("collection", required=False)
@target_options
def resume(collection: str | None, target: Target) -> None:
    """End a halt or a pause, of COLLECTION or of all.

    Collections that use the same key and model are halted and resumed together.

    \b
    Example:
      vec resume
    """
    from ..collection import Collection
    from ..connection import connect
    from ..throttle import resume as end

    with target.open() as (settings, _):
        if collection is None:
            chosen = [Collection(name, settings=settings) for name in all_names(settings)]
        else:
            chosen = [known_collection(collection, settings)]
        resumed: set[str] = set()
        for one in chosen:
            throttle = one.throttle
            if throttle is None:
                continue
            if throttle in resumed or end(connect(settings), settings.prefix, throttle):
                resumed.add(throttle)
                click.echo(f"{one.name}: resumed")
        if not resumed:
            click.echo(f"{collection or 'all collections'}: nothing was halted or paused")


def _watched(corpus: Corpus, bar: Bar) -> Iterator[Job | Rejection]:
    for number, record in enumerate(corpus, 1):
        yield record
        if number % 1000 == 0:
            bar.update(corpus.position, corpus.size, shown=f"{number:,} read")


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
