"""`vec-enqueue`: corpora into the backlog, and, where it is asked to wait, their vectors to a
file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from ..settings import Settings, parse_rate, read_settings
from ..types import Job, Rate
from . import figures, report
from .command import (
    AS_HELP,
    FILE,
    Command,
    Target,
    print_lines,
    target_options,
    text_options,
    version_option,
)
from .follow import follow, tell_unfinished, write_vectors
from .rejections import Rejections, rejected_path
from .screen import Bar, Screen

if TYPE_CHECKING:
    from ..collection import Collection
    from ..corpus import Corpus
    from ..producer import Progress
    from ..store.backlog import Adder
    from .dry_run import Planner
    from .sources import SharedIds

DIMENSIONS = 768  # of nomic-v1.5; what another model has is known with its first vector


def _rate(ctx: click.Context, option: click.Parameter, said: str | None) -> Rate | None:
    if said is None:
        return None

    try:
        return parse_rate(said)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=Command, context_settings=AS_HELP)
@click.argument("corpora", metavar="CORPUS...", nargs=-1, required=True, type=FILE)
@click.option(
    "--collection",
    metavar="NAME",
    help="Collection name.  [default: file name without its extension]",
)
@text_options
@click.option(
    "--keep",
    metavar="FIELD",
    multiple=True,
    help="Store this field beside the vectors from now on; repeatable.",
)
@click.option("--keep-text", is_flag=True, help="Store the texts beside the vectors from now on.")
@click.option("--model", metavar="MODEL", help="Model of the collection's vectors.")
@click.option("--wait", is_flag=True, help="Wait until the work is done.")
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
    type=click.FloatRange(min=0),
    help="With --wait: stop waiting after this time, and exit with 1.",
)
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
@version_option
def vec_enqueue(
    corpora: tuple[str, ...],
    collection: str | None,
    text_field: str,
    id_field: str | None,
    keep: tuple[str, ...],
    keep_text: bool,
    model: str | None,
    wait: bool,
    output: str | None,
    timeout: float | None,
    dry_run: bool,
    quota: int | None,
    rate: Rate | None,
    target: Target,
) -> None:
    """Queue the texts of each CORPUS to be embedded by the workers.

    A corpus is a .jsonl, .csv, .tsv, .txt (one text per line) or .parquet file, each also with .gz,
    or - for JSON lines on standard input. What is already stored or queued costs nothing. Lines
    that cannot be embedded go to STEM.rejected.jsonl beside the corpus; if that cannot be written,
    they are shown.

    With --local everything happens on this machine: the command embeds with a local model, writes
    STEM.vectors.jsonl into the current directory, and stops what it started.

    With --dry-run nothing is sent, and neither Redis nor a key is needed.

    \b
    Example:
      vec-enqueue wiki.jsonl --id-field title --wait
    """
    from ..corpus import Corpus
    from .sources import collections_of

    if not dry_run and (quota or rate):
        raise click.UsageError("--quota and --rate go with --dry-run.")
    names = collections_of(corpora, collection)
    if output is not None and len(set(names)) > 1:
        raise click.UsageError(
            "-o writes one collection: name one for all with --collection, or use vec export."
        )
    wait = wait or target.local or output is not None
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    outputs = {name: f"{name}.vectors.jsonl" if target.local else None for name in names}
    if output is not None:
        outputs = {names[0]: output}

    def opened(path: str) -> Corpus:
        return Corpus(path, text_field=text_field, id_field=id_field, keep=keep)

    _check_files(corpora, [file for file in outputs.values() if file is not None])
    _check_corpora(corpora, names, opened)
    if dry_run:
        _dry_run(corpora, names, opened, target, model, keep_text or target.local, quota, rate)
        return
    clean = True
    begun = time.monotonic()  # with --local, a person waits for its start too
    with target.open(work=True) as (settings, screen):
        producing = _Producing(target, screen, settings, model, keep_text or target.local, begun)
        for path, name in zip(corpora, names):
            with opened(path) as corpus:
                producing.expect(name, names.count(name))
                clean &= producing.enqueue(
                    corpus, name, None if wait else _label(path, name, names)
                )
        end = None if timeout is None else time.monotonic() + timeout
        for name in producing.runs:
            producing.tell_shared(name)
            clean &= producing.wait(name, outputs[name], end) if wait else producing.is_open(name)
    if not clean:
        raise SystemExit(1)


def _check_corpora(
    corpora: Sequence[str], names: Sequence[str], opened: Callable[[str], Corpus]
) -> None:
    """Raises what stops the command before it has begun: a name, or a corpus that cannot be read.

    A pipe is not looked at: it opens only once.
    """
    from ..store.keys import CollectionKeys

    for path, name in zip(corpora, names):
        CollectionKeys(Settings.prefix, name)
        if path != "-" and (os.path.isfile(path) or not os.path.exists(path)):
            opened(path).close()


def _dry_run(
    corpora: Sequence[str],
    names: Sequence[str],
    opened: Callable[[str], Corpus],
    target: Target,
    model: str | None,
    keep_text: bool,
    quota: int | None,
    rate: Rate | None,
) -> None:
    """Say what corpora would come to. Exits with 1 where a line of them is rejected."""
    from ..local.vectors import WORDLLAMA_DIMENSIONS
    from .dry_run import Planner, plan_page

    settings = read_settings(redis_url=target.redis_url)
    planner = Planner(model or settings.model, keep_text=keep_text)
    _plan(zip(corpora, names), opened, planner)
    source = figures.source(corpora[0])
    print_lines(
        plan_page(
            source if len(corpora) == 1 else f"{len(corpora):,} corpora",
            planner.plan(),
            dimensions=WORDLLAMA_DIMENSIONS if target.local else DIMENSIONS,
            high_water=settings.high_water,
            quota=quota,
            rate=rate or settings.rate,
        )
    )
    if planner.rejected:
        raise SystemExit(1)


def _plan(
    corpora: Iterable[tuple[str, str]],
    opened: Callable[[str], Corpus],
    planner: Planner,
) -> None:
    """Add up what corpora, each with its collection's name, would come to."""

    with Screen() as screen:
        for path, name in corpora:
            rejections = Rejections(path, None, screen, append=False)
            with opened(path) as corpus, rejections:
                with screen.bar(name, corpus.size, bytes=True) as bar:
                    for number, record in enumerate(corpus, 1):
                        if isinstance(record, Job):
                            planner.add(record, name)
                        else:
                            planner.rejected += 1
                            rejections.add(record)
                        if number % 1000 == 0:
                            bar.update(corpus.position, corpus.size, shown=f"{number:,} read")
                planner.pack()


def _label(path: str, name: str, names: Sequence[str]) -> str:
    """What a corpus is called in its line of results."""
    return name if names.count(name) == 1 else f"{name} ({figures.source(path)})"


def _check_files(corpora: Sequence[str], outputs: Sequence[str]) -> None:
    """Raises UsageError where a file that is to be read would also be written, or cannot be."""
    from ..export.files import check_output

    if corpora.count("-") > 1:
        raise click.UsageError("Standard input can be read only once.")
    written = {file: "the vectors" for file in outputs}
    for path in corpora:
        if path != "-":
            written[rejected_path(path, "")] = f"the rejected lines of {figures.plain(path)}"
    for path in corpora:
        for file, what in written.items():
            with suppress(OSError):
                if os.path.samefile(path, file):
                    raise click.UsageError(
                        f"{figures.plain(path)} is where {what} would be written: "
                        "name another file."
                    )
    for file in outputs:
        check_output(file)


@dataclass
class _Run:
    """What this command has put into one collection so far."""

    collection: Collection
    progress: Progress
    started: float
    adder: Adder
    shared: SharedIds | None = None  # where it has several sources
    told_stranger: bool = False
    rejected_paths: list[str] = field(default_factory=list)


class _Producing:
    """The corpora of one command on their way into Redis."""

    def __init__(
        self,
        target: Target,
        screen: Screen,
        settings: Settings,
        model: str | None,
        keep_text: bool,
        begun: float,
    ) -> None:
        self.runs: dict[str, _Run] = {}
        self._begun = begun
        self._target = target
        self._screen = screen
        self._settings = settings
        self._model = model
        self._keep_text = keep_text
        self._rejected_paths: set[str] = set()

    def expect(self, name: str, sources: int) -> None:
        """Say how many sources a collection will have in this run."""
        from .sources import SharedIds

        run = self._run(name)
        if sources > 1 and run.shared is None:
            run.shared = SharedIds()

    def enqueue(self, corpus: Corpus, name: str, label: str | None) -> bool:
        """Put a corpus into the backlog; whether nothing of it was rejected, or dead before. Says
        what it came to where there is a `label` for it.
        """
        import redis

        from ..producer import Progress, produce
        from ..store.connection import connect
        from ..store.registry import note_source
        from .sources import source_name

        run = self._run(name)
        path = rejected_path(corpus.path, name)
        rejections = Rejections(corpus.path, path, self._screen, path in self._rejected_paths)
        self._rejected_paths.add(path)
        now = Progress()
        try:
            with self._screen.bar(name, corpus.size, bytes=True) as bar, rejections:
                for now in produce(
                    corpus if run.shared is None else run.shared.watch(corpus),
                    run.adder,
                    self._settings,
                    keep_text=self._keep_text or None,
                    rejected=rejections.add,
                ):
                    self._show(now, corpus, run, bar)
        except KeyboardInterrupt:
            queued = figures.count(now.new + now.unchanged + now.duplicates + now.dead, "text")
            self._screen.say(
                f"Stopped: {queued} of {figures.source(corpus.path)} queued. The same command "
                f"again goes on from there; to look at it: {self._target.command('status', name)}"
            )
            raise
        run.progress = _sum(run.progress, now)
        if sum(now[:4]):
            with suppress(redis.RedisError):  # for a warning alone
                note_source(connect(self._settings), run.adder.keys, source_name(corpus.path))
        if rejections.path is not None and path not in run.rejected_paths:
            run.rejected_paths.append(path)
        if label is not None:
            look = self._target.command("dead", name)
            click.echo(report.enqueued(label, now, rejections.path, look))
        return not (now.rejected or now.dead or run.adder.lost)

    def tell_shared(self, name: str) -> None:
        """Say how many ids the sources of a collection have in common, if any."""
        run = self.runs[name]
        if run.shared is not None and (shared := run.shared.count()):
            self._screen.say(
                f"Warning: {name}: {figures.count(shared, 'id')} in more than one source: of each "
                "the last text replaced the others. To keep all, give each source a collection"
            )

    def wait(self, name: str, output: str | None, end: float | None) -> bool:
        """Follow a collection's work to its end, but not beyond `end`, write its vectors, and say
        what it came to; whether all went well.
        """
        run = self.runs[name]
        status = follow(
            run.collection,
            self._settings,
            run.progress.new,
            self._target,
            self._screen,
            end,
            run.adder.intact,
        )
        intact = not run.adder.lost
        outcome = report.Outcome(status, time.monotonic() - self._begun, intact=intact)
        lost = report.missing(run.progress, status)
        if output is not None and not status.backlog and not lost and intact:
            written = write_vectors(name, self._settings, output, self._screen)
            outcome = outcome._replace(written=written, output=output)
        paths = ", ".join(run.rejected_paths) or None
        look = self._target.command("dead", name)
        click.echo(report.finished(run.progress, paths, look, outcome), err=output == "-")
        if status.backlog:
            tell_unfinished(run.collection, self._settings, status, self._target, self._screen)
        if lost:
            self._screen.say(
                f"{name}: Redis has lost {figures.count(lost, 'text')} that it had: "
                "was it emptied? Run the same command again"
            )
        elif not intact:
            self._screen.say(
                f"{name}: it was dropped, or Redis went back in time, and texts of this run are "
                "missing: run the same command again"
            )
        if output is not None and (status.backlog or lost or not intact):
            self._screen.say(f"{figures.plain(output)} is not written: vectors are missing")
        return not (status.backlog or lost or status.dead) and intact

    def is_open(self, name: str) -> bool:
        """Whether a collection is not halted; says so where its work stands still."""
        status = self.runs[name].collection.status()
        if not status.backlog:
            return True
        if status.state in ("halted", "paused"):
            self._screen.say(report.stopped(status, self._target.command("resume", name)))
        return status.state != "halted"

    def _run(self, name: str) -> _Run:
        from ..collection import Collection
        from ..producer import Progress
        from ..store.backlog import Adder
        from ..store.connection import connect
        from ..store.keys import CollectionKeys

        if name not in self.runs:
            collection = Collection(name, settings=self._settings)
            keys = CollectionKeys(self._settings.prefix, name)
            adder = Adder(connect(self._settings), keys, self._model or self._settings.model)
            self.runs[name] = _Run(collection, Progress(), time.monotonic(), adder)
        return self.runs[name]

    def _show(self, now: Progress, corpus: Corpus, run: _Run, bar: Bar) -> None:
        import redis

        from .sources import stranger

        if now.replacing and not run.told_stranger:
            run.told_stranger = True
            with suppress(redis.RedisError):
                if line := stranger(corpus.path, run.collection.name, self._settings):
                    self._screen.say(line)
        texts = sum(now[:5])
        note = ""
        if now.waiting is not None:
            kind = ""
            with suppress(redis.ConnectionError, redis.TimeoutError):  # the producer outlasts it
                kind, note = report.note(run.collection.status(), local=self._target.local)
            note = f"waiting: {now.waiting}" + (f"; {note}" if note else "")
            self._screen.tell(kind or "full", f"{run.collection.name}: {note}")
        rate = texts / max(0.001, time.monotonic() - run.started)
        shown = f"{figures.count(texts, 'text')} read, {rate:,.0f}/s"
        bar.update(corpus.position, corpus.size, shown=shown, note=note)


def _sum(one: Progress, other: Progress) -> Progress:
    from ..producer import Progress

    return Progress(
        new=one.new + other.new,
        unchanged=one.unchanged + other.unchanged,
        duplicates=one.duplicates + other.duplicates,
        dead=one.dead + other.dead,
        rejected=one.rejected + other.rejected,
        evicted=one.evicted + other.evicted,
        replacing=one.replacing + other.replacing,
    )
