"""`vec export`: vectors to a file, or to the files of a folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import click

from ...monitor import figures
from ...types import Status
from .. import report
from ..command import FILE, Command, Target, known_collection, target_options
from ..complete import collection_argument


@click.command(cls=Command)
@collection_argument()
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=FILE,
    required=True,
    help="A .jsonl, .npz or .parquet file, - for JSON lines on standard output, or a folder.",
)
@click.option(
    "--follow", is_flag=True, help="Into a folder: continue as vectors come, until Ctrl-C."
)
@click.option("--until-done", is_flag=True, help="Follow until nothing is queued any more.")
@click.option("--evict", is_flag=True, help="Delete from Redis what is safe in the folder.")
@click.option(
    "--format",
    type=click.Choice(["jsonl", "parquet"]),
    help="Format of the files in the folder.  [default: as its name ends, else jsonl]",
)
@click.option(
    "--rotate",
    metavar="SIZE",
    multiple=True,
    help="Begin a new file at this many vectors or bytes; repeatable.  [default: 100000, 256MB]",
)
@target_options
def export(
    collection: str,
    output: str,
    follow: bool,
    until_done: bool,
    evict: bool,
    format: str | None,
    rotate: tuple[str, ...],
    target: Target,
) -> None:
    """Write the vectors of COLLECTION to a file or a folder.

    In a folder it continues where the files end. A file is complete or absent. Vectors are evicted
    only after their file is complete, so a run that was killed is simply run again. With --follow a
    file is complete at the latest one minute after its first vector.

    \b
    Example:
      vec export wiki -o wiki.npz
      vec export wiki -o vectors/ --format parquet --follow --evict
    """
    follow = follow or until_done
    if follow or evict or format or rotate or _is_folder(output):
        if output == "-":
            raise click.UsageError("These options write files into a folder: name one with -o.")
        _export_folder(collection, output, _Wish(follow, until_done, evict, format, rotate), target)
        return
    from ...export.files import check_output
    from ..follow import write_vectors

    check_output(output)
    with target.open() as (settings, screen):
        known = known_collection(collection, settings)
        written = write_vectors(collection, settings, output, screen)
        status = known.status()
    evicted = [f"{status.evicted:,} evicted before"] if status.evicted else []
    line = f"{collection}: {report.written(written, output)}{_left(status, evicted)}"
    click.echo(line, err=output == "-")


@dataclass(frozen=True)
class _Wish:
    """How a folder is to be filled."""

    follow: bool
    until_done: bool
    evict: bool
    format: str | None
    rotate: tuple[str, ...]


def _is_folder(output: str) -> bool:
    return output.endswith(os.sep) or os.path.isdir(output)


def _export_folder(collection: str, output: str, wish: _Wish, target: Target) -> None:
    from ...collection import Collection
    from ...export.folder import Folder
    from ...export.follow import Window, parse_rotation

    rotation = parse_rotation(wish.rotate)
    folder = Folder(output, collection, wish.format)
    with target.open(work=wish.follow) as (settings, screen):
        known = Collection(collection, settings=settings)
        if not wish.follow or wish.until_done:
            known = known_collection(collection, settings)
        elif not known.exists():
            screen.say(f"{collection}: nothing is enqueued yet: waiting")
        files = vectors = evicted = 0
        with screen.bar(f"{collection} to {folder}", None) as bar, _asked_to_stop() as asked:
            window = Window(
                collection,
                folder,
                settings,
                rotation=rotation,
                evict=wish.evict,
                follow=wish.follow,
                until_done=wish.until_done,
                stop=lambda: bool(asked),
                tell=lambda read: bar.update(read, shown=figures.count(read, "vector")),
            )
            for published in window.run():
                files += 1
                vectors += published.vectors
                evicted += published.evicted
                if wish.follow:
                    count = figures.count(published.vectors, "vector")
                    screen.say(f"{figures.plain(str(published.file.path))}: {count}")
        status = known.status()
        if window.halted:
            screen.say(report.stopped(status, target.command("resume", collection)))
    number = figures.count(files, "file")
    line = f"{collection}: {figures.count(vectors, 'vector')} written to {folder} in {number}"
    if wish.evict:
        line += f", {evicted + window.recovered:,} evicted"
    click.echo(line + _left(status))
    if window.halted:
        raise SystemExit(1)


def _left(status: Status, before: list[str] | None = None) -> str:
    """What is not among the vectors that were written."""
    missing = list(before or ())
    missing += [f"{status.backlog:,} not embedded yet"] if status.backlog else []
    missing += [f"{status.dead:,} dead"] if status.dead else []
    return f" ({', '.join(missing)})" if missing else ""


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Signals that came, as long as the block runs: the first is a wish, the second an order."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if came:
            raise SystemExit(128 + number)
        came.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
