"""`vec export`: vectors to a file, or to the files of a folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from ...monitor import figures
from ...types import Status
from .. import report
from ..command import Command, Target, handled, known_collection
from ..complete import collection_argument
from ..options import FILE, SINK_VARIABLE, target_options

if TYPE_CHECKING:
    from ...export.follow import Options
    from ...export.sink import Sink


@click.command(cls=Command)
@collection_argument()
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=FILE,
    help="A .jsonl, .npz, .npy or .parquet file, - for JSON lines on standard output, a folder, or "
    f"an address: postgresql://... or qdrant://...  [default: {SINK_VARIABLE}]",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Into a folder or a database: continue as vectors come, until Ctrl-C.",
)
@click.option("--until-done", is_flag=True, help="Follow until nothing is queued any more.")
@click.option("--evict", is_flag=True, help="Delete from Redis what is safe there.")
@click.option(
    "--format",
    type=click.Choice(["jsonl", "parquet"]),
    help="Format of the files.  [default: that of the folder's name or of its files, else jsonl]",
)
@click.option(
    "--rotate",
    metavar="SIZE",
    multiple=True,
    help="Begin a new file at this many vectors or bytes; repeatable.  [default: 100000, 256MB]",
)
@click.option(
    "--into-column",
    "column",
    metavar="COLUMN",
    help="Into this column of a table of PostgreSQL that is there.",
)
@click.option("--key", metavar="COLUMN", help="Its column that holds the ids.  [default: id]")
@target_options
def export(
    collection: str,
    output: str | None,
    follow: bool,
    until_done: bool,
    evict: bool,
    format: str | None,
    rotate: tuple[str, ...],
    column: str | None,
    key: str | None,
    target: Target,
) -> None:
    """Write the vectors of COLLECTION to a file, a folder or a database.

    In a folder it continues where the files end. A file is complete or absent. Vectors are evicted
    only after their file is complete, so a run that was killed is simply run again. With --follow a
    file is complete at the latest one minute after its first vector.

    A database gets each vector once, the new one in place of the old, and loses what was deleted.

    \b
    Example:
      vec export wiki -o wiki.npz
      vec export wiki -o vectors/ --format parquet --follow --evict
      vec export wiki -o "postgresql://me@db.example/shop?table=wiki" --follow
    """
    from ...export.sinks import is_address

    output = output or os.environ.get(SINK_VARIABLE)
    if output is None:
        raise click.UsageError(f"Name a file, a folder or an address with -o, or {SINK_VARIABLE}.")
    follow = follow or until_done
    is_folder = output.endswith(os.sep) or os.path.isdir(output)
    is_continued = follow or evict or format or rotate or column or key
    if is_continued or is_folder or is_address(output):
        from ...export.folder import parse_rotation
        from ...export.follow import Options
        from ...export.sinks import sink_of

        if output == "-":
            raise click.UsageError("These options write files into a folder: name one with -o.")
        if not is_folder and output.lower().endswith((".npz", ".npy")):
            raise click.UsageError(
                "These options write .jsonl or .parquet files into a folder: name one with -o."
            )
        rotation = parse_rotation(rotate) if rotate else None
        sink = sink_of(output, collection, format=format, rotation=rotation, column=column, key=key)
        _export_to_sink(sink, Options(evict, follow, until_done), target)
        return
    from ...export.files import check_output
    from ..follow import write_vectors

    check_output(output)
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        written = write_vectors(collection, settings, output, screen)
        status = known.status()
        if not written:
            why = "its vectors are evicted" if status.evicted else "nothing is embedded yet"
            screen.say(f"Warning: {collection}: the export has no vectors: {why}")
    evicted = [f"{status.evicted:,} evicted before"] if status.evicted else []
    line = f"{collection}: {report.written(written, output)}{_left(status, *evicted)}"
    click.echo(line, err=output == "-")


def _export_to_sink(sink: Sink, options: Options, target: Target) -> None:
    from ...collection import Collection
    from ...export.follow import SinkExport
    from ..sinking import Written

    collection = sink.collection
    with target.open(work=options.follow) as (settings, screen):
        known = Collection(collection, settings=settings)
        if not options.follow or options.until_done:
            known = known_collection(collection, settings)
        elif not known.exists():
            screen.say(f"{collection}: nothing is enqueued yet: waiting")
        written = Written(sink, options)
        with screen.bar(f"{collection} to {sink}", None) as bar, _asked_to_stop() as asked:
            export = SinkExport(
                sink,
                settings,
                options,
                stop=lambda: bool(asked),
                tell=lambda read: bar.update(read, shown=figures.count(read, "vector")),
            )
            for published in export.run():
                written.add(published, screen)
        status = known.status()
        if export.halted:
            screen.say(report.stopped(status, target.command("resume", collection)))
    click.echo(f"{collection}: {written.line(export)}{_left(status)}")
    if export.halted:
        raise SystemExit(1)


def _left(status: Status, *before: str) -> str:
    """What is not among the vectors that were written."""
    missing = list(before)
    missing += [f"{status.backlog:,} not embedded yet"] if status.backlog else []
    missing += [f"{status.dead:,} dead"] if status.dead else []
    return f" ({', '.join(missing)})" if missing else ""


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that came in the block. The first one is only noted; the second ends it."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if came:
            raise SystemExit(128 + number)
        came.append(number)

    with handled((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), note):
        yield came
