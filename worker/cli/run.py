"""A run of `vec-enqueue`: corpora into the backlog and, if it waits, their vectors to a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import click
import redis

from ..collection import Collection
from ..corpus import Corpus, CorpusError, Source, paths
from ..export.files import check_output
from ..export.surplus import Surplus
from ..monitor import figures
from ..producer import Progress, produce
from ..settings import Settings
from ..store.backlog import Adder
from ..store.connection import connect
from ..store.keys import CollectionKeys
from ..store.registry import note_source
from ..types import Job, Rejection
from . import report
from .command import Target
from .follow import Follower, write_vectors
from .prune import prune
from .rejections import Rejections, rejected_path
from .screen import Bar, Screen
from .sources import SharedIds, say_skipped, stranger


@dataclass(frozen=True)
class Asked:
    """What the command line asks for: corpora, and the collection and the file of each."""

    target: Target
    corpora: Sequence[Source]
    names: Sequence[str]  # the collection of each corpus
    outputs: dict[str, str]  # by collection
    open: Callable[[Source], Corpus]
    model: str | None
    keep_text: bool
    prune: bool = False
    yes: bool = False  # do not ask
    folder: str | None = None  # with the vectors of evicted ids
    documents: bool = False  # long texts are split into pieces

    def label(self, source: Source) -> str:
        """The name of a corpus in its line of results."""
        name = self.names[self.corpora.index(source)]
        return name if self.names.count(name) == 1 else f"{name} ({figures.source(source.path)})"

    def check(self) -> None:
        """Raise UsageError, or what else stops the command before it has begun."""
        if [source.path for source in self.corpora].count("-") > 1:
            raise click.UsageError("Standard input can be read only once.")
        written = {file: "the vectors" for file in self.outputs.values()}
        for source in self.corpora:
            if source.path != "-":
                lines = f"the rejected lines of {figures.plain(source.path)}"
                written[rejected_path(source, "")] = lines
        for path in chain.from_iterable(map(paths, self.corpora)):
            for file, what in written.items():
                with suppress(OSError):
                    if os.path.samefile(path, file):
                        raise click.UsageError(
                            f"{figures.plain(path)} is where {what} would be written: "
                            "name another file."
                        )
        for file in self.outputs.values():
            check_output(file)
        for source, name in zip(self.corpora, self.names):
            CollectionKeys(Settings.prefix, name)
            if not source.once:
                self.open(source).close()


def enqueue(asked: Asked, wait: bool, timeout: float | None) -> bool:
    """Put the corpora into the backlog, and wait if asked. Returns whether all went well."""
    clean = True
    begun = time.monotonic()  # with --local, a person waits for its start too
    with asked.target.open(work=True) as (settings, screen):
        run = _Run(asked, screen, settings, begun, timeout)
        for source, name in zip(asked.corpora, asked.names):
            with asked.open(source) as corpus:
                clean &= run.enqueue(corpus, name, None if wait else asked.label(source))
        end = None if timeout is None else time.monotonic() + timeout
        for name in dict.fromkeys(asked.names):
            run.tell_shared(name)
            clean &= run.prune(name)
            clean &= run.wait(name, end) if wait else run.is_open(name)
    if run.broken is not None:
        raise CorpusError(run.broken)
    return clean


@dataclass
class _Fed:
    """What this command has put into one collection so far."""

    collection: Collection
    adder: Adder
    shared: SharedIds | None  # of several files
    surplus: Surplus | None  # with --prune
    progress: Progress = Progress()
    told_stranger: bool = False
    rejected_paths: list[str] = field(default_factory=list)


class _Run:
    """The corpora of one command on their way into Redis."""

    def __init__(
        self,
        asked: Asked,
        screen: Screen,
        settings: Settings,
        begun: float,
        timeout: float | None,
    ) -> None:
        self._asked = asked
        self._target = asked.target
        self._screen = screen
        self._settings = settings
        self._begun = self._moved = begun
        self._timeout = timeout
        self._fed: dict[str, _Fed] = {}
        self._rejected_paths: set[str] = set()
        self.broken: str | None = None  # the line for an address that could not be read
        self._fault: str | None = None  # why a corpus could not be read to its end
        for name in asked.names:
            keys = CollectionKeys(settings.prefix, name)
            shared = asked.names.count(name) > 1 or any(one.many for one in asked.corpora)
            self._fed[name] = _Fed(
                Collection(name, settings=settings),
                Adder(connect(settings), keys, asked.model or settings.model),
                SharedIds(asked.documents) if shared else None,
                Surplus(connect(settings), keys) if asked.prune else None,
            )

    def enqueue(self, corpus: Corpus, name: str, label: str | None) -> bool:
        """Put a corpus into the backlog. With a `label`, print the result.

        Returns whether nothing was rejected, and nothing is a dead letter from an earlier run.
        """
        fed = self._fed[name]
        path = rejected_path(corpus.source, name)
        rejections = Rejections(corpus.source, path, self._screen, path in self._rejected_paths)
        self._rejected_paths.add(path)
        now = self._produce(corpus, fed, rejections)
        self.broken = self.broken or corpus.broken
        if corpus.fault is not None:
            self._fault = f"{figures.source(corpus.source.path)}: {corpus.fault}"
        fed.progress = _sum(fed.progress, now)
        if sum(now[:4]):
            with suppress(redis.RedisError):  # for a warning alone
                note_source(connect(self._settings), fed.adder.keys, corpus.source.name)
        if rejections.path is not None and path not in fed.rejected_paths:
            fed.rejected_paths.append(path)
        if label is not None:
            look = self._target.command("dead", name)
            click.echo(report.enqueued(label, now, rejections.path, look))
        return not (now.rejected or now.dead or fed.adder.lost)

    def _produce(self, corpus: Corpus, fed: _Fed, rejections: Rejections) -> Progress:
        """Put a corpus into the backlog, with a bar."""
        name, started, now = fed.collection.name, time.monotonic(), Progress()
        lines: Iterable[Job | Rejection] = (
            corpus if fed.shared is None else fed.shared.watch(corpus.parts())
        )
        if fed.surplus is not None:
            lines = fed.surplus.watch(lines)
        say_skipped(corpus, self._screen)
        try:
            with self._screen.bar(name, corpus.size, bytes=True) as bar, rejections:
                for now in produce(
                    lines,
                    fed.adder,
                    self._settings,
                    keep_text=self._asked.keep_text or None,
                    documents=self._asked.documents,
                    rejected=rejections.add,
                ):
                    self._show(now, corpus, fed, bar, started)
        except KeyboardInterrupt:
            queued = figures.count(now.new + now.unchanged + now.duplicates + now.dead, "text")
            where = figures.source(corpus.source.path)
            look = self._target.command("status", name)
            self._screen.say(
                f"Stopped: {queued} of {where} queued. The same command "
                f"again continues from there; to look at it: {look}"
            )
            raise
        return now

    def _show(self, now: Progress, corpus: Corpus, fed: _Fed, bar: Bar, started: float) -> None:
        name = fed.collection.name
        if now.replacing and not fed.told_stranger:
            fed.told_stranger = True
            with suppress(redis.RedisError):
                if line := stranger(corpus.source, name, self._settings):
                    self._screen.say(line)
        note = ""
        if now.waiting is None:
            self._moved = time.monotonic()
        else:
            kind = ""
            with suppress(redis.ConnectionError, redis.TimeoutError):  # the producer outlasts it
                kind, note = report.note(fed.collection.status(), local=self._target.local)
            note = f"waiting: {now.waiting}" + (f"; {note}" if note else "")
            self._screen.tell(kind or "full", f"{name}: {note}")
            if self._timeout is not None and time.monotonic() - self._moved >= self._timeout:
                self._screen.say(f"{name}: not all queued in time: {note}")
                raise SystemExit(1)
        texts = sum(now[:5])
        rate = texts / max(0.001, time.monotonic() - started)
        shown = f"{figures.count(texts, 'text')} read, {rate:,.0f}/s"
        bar.update(corpus.position, corpus.size, shown=shown, note=note)

    def tell_shared(self, name: str) -> None:
        """Say how many ids the corpora of a collection have in common, if any."""
        shared = self._fed[name].shared
        if shared is not None and (number := shared.count()):
            self._screen.say(
                f"Warning: {name}: {figures.count(number, 'id')} in more than one source: of each "
                "the last text replaced the others. To keep all, give each source a collection"
            )

    def prune(self, name: str) -> bool:
        """With --prune, delete what was not brought. Returns whether that went well."""
        fed, asked = self._fed[name], self._asked
        if fed.surplus is None:
            return True
        lost = None if fed.adder.intact() else "Redis has lost texts of this run"
        return prune(name, fed.surplus, asked.folder, self._fault or lost, asked.yes, self._screen)

    def wait(self, name: str, end: float | None) -> bool:
        """Follow the work on a collection until `end`, write its vectors, and print the result.

        Returns whether all went well.
        """
        fed, output = self._fed[name], self._asked.outputs.get(name)
        follower = Follower(fed.collection, self._settings, self._target, self._screen)
        status = follower.follow(fed.progress.new, end, fed.adder.intact)
        intact, lost = not fed.adder.lost, report.missing(fed.progress, status)
        outcome = report.Outcome(status, time.monotonic() - self._begun, intact=intact)
        whole = intact and not status.backlog and not lost
        if output is not None and whole:
            written = write_vectors(name, self._settings, output, self._screen)
            outcome = outcome._replace(written=written, output=output)
        paths = ", ".join(fed.rejected_paths) or None
        look = self._target.command("dead", name)
        click.echo(report.finished(fed.progress, paths, look, outcome), err=output == "-")
        follower.tell_unfinished(status)
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
        if output is not None and not whole:
            self._screen.say(f"{figures.plain(output)} is not written: vectors are missing")
        return whole and not status.dead

    def is_open(self, name: str) -> bool:
        """Whether a collection is not halted. Says so if nothing is sent for it."""
        status = self._fed[name].collection.status()
        if not status.backlog:
            return True
        if status.state in ("halted", "paused"):
            self._screen.say(report.stopped(status, self._target.command("resume", name)))
        return status.state != "halted"


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(
        new=one.new + other.new,
        unchanged=one.unchanged + other.unchanged,
        duplicates=one.duplicates + other.duplicates,
        dead=one.dead + other.dead,
        rejected=one.rejected + other.rejected,
        evicted=one.evicted + other.evicted,
        replacing=one.replacing + other.replacing,
    )
