"""A run of `vec-enqueue`: corpora into the backlog and, if it waits, their vectors to a file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial

import click
import redis

from ..collection import Collection
from ..corpus import Corpus, CorpusError, Source
from ..export.sinks import sink_of
from ..export.surplus import Surplus
from ..monitor import figures
from ..producer import Progress, produce
from ..settings import Settings
from ..store.adder import Adder
from ..store.connection import connect
from ..store.keys import CollectionKeys
from ..store.registry import note_source
from ..types import Job, Rejection, Status
from . import report
from .asked import Asked
from .bookmarks import adder_of, opened
from .exporting import page
from .follow import Follower, write_vectors
from .own import Counts, Own, counts_of
from .prune import prune
from .rejections import Rejections, rejected_path
from .screen import Bar, Screen
from .sinking import Sinking
from .sources import SharedIds, say_skipped, stranger


def enqueue(asked: Asked, wait: bool, timeout: float | None) -> bool:
    """Put the corpora into the backlog, and wait if asked. Returns whether all went well."""
    clean = True
    begun = time.monotonic()  # with --local, a person waits for its start too
    with asked.target.open(work=True) as (settings, screen), ExitStack() as exits:
        if asked.web:
            exits.enter_context(page(settings, screen, asked.target))
        sinking = None
        if asked.sink is not None:
            sink = sink_of(asked.sink, asked.names[0])
            sinking = Sinking(sink, settings, screen, evict=asked.evict)
            exits.callback(sinking.stop)
            sinking.begin()
        run = _Run(asked, screen, settings, begun, timeout, sinking, wait)
        for source, name in zip(asked.corpora, asked.names):
            with run.open(source, name) as corpus:
                clean &= run.enqueue(corpus, name, None if wait else asked.label(source))
        if run.broken is None:
            run.end()
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
    own: Own | None  # with --wait
    progress: Progress = Progress()
    told_stranger: bool = False
    rejected_paths: list[str] = field(default_factory=list)

    @property
    def skipped(self) -> int:
        """Files that an earlier run had queued."""
        return 0 if self.adder.bookmark is None else self.adder.bookmark.skipped


class _Run:
    """The corpora of one command on their way into Redis."""

    def __init__(
        self,
        asked: Asked,
        screen: Screen,
        settings: Settings,
        begun: float,
        timeout: float | None,
        sinking: Sinking | None,
        wait: bool,
    ) -> None:
        self._asked = asked
        self._target = asked.target
        self._screen = screen
        self._settings = settings
        self._begun = self._moved = begun
        self._timeout = timeout
        self._fed: dict[str, _Fed] = {}
        self._rejected_paths: set[str] = set()
        self.broken: str | None = None  # the line for a source that broke off
        self._fault: str | None = None  # why a corpus could not be read to its end
        self._sinking = sinking
        for name in dict.fromkeys(asked.names):
            keys = CollectionKeys(settings.prefix, name)
            adder = adder_of(asked, name, settings, screen)
            shared = asked.names.count(name) > 1 or any(one.many for one in asked.corpora)
            self._fed[name] = _Fed(
                Collection(name, settings=settings),
                adder,
                SharedIds(asked.documents) if shared else None,
                Surplus(connect(settings), keys) if asked.prune else None,
                Own(adder) if wait else None,
            )

    def open(self, source: Source, name: str) -> Corpus:
        """A corpus, opened."""
        return opened(self._asked, source, self._fed[name].adder.bookmark)

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
        now = now._replace(skipped=fed.skipped - fed.progress.skipped)
        if corpus.fault is not None:
            self._fault = f"{figures.source(corpus.source.path)}: {corpus.fault}"
        fed.progress = _sum(fed.progress, now)
        if sum(now[:4]) or now.skipped:
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
                if fed.adder.bookmark is not None:
                    show = partial(self._show, Progress(), corpus, fed, bar, started)
                    is_whole = partial(_is_whole, corpus)
                    lines = fed.adder.bookmark.watch(lines, is_whole, show)
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
        self._check_sink()
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
                kind, note = report.note(fed.collection.status(), self._target.command)
            note = f"waiting: {now.waiting}" + (f"; {note}" if note else "")
            self._screen.tell(kind or "full", f"{name}: {note}")
            if self._timeout is not None and time.monotonic() - self._moved >= self._timeout:
                self._screen.say(f"{name}: not all queued in time: {note}")
                raise SystemExit(1)
        texts = sum(now[:5])
        rate = texts / max(0.001, time.monotonic() - started)
        shown = f"{figures.count(texts, 'text')} read, {rate:,.0f}/s"
        bar.update(corpus.position, corpus.size, shown=shown, note=note)

    def end(self) -> None:
        """All corpora were read to their ends: the next run skips no file."""
        for fed in self._fed.values():
            if fed.adder.bookmark is not None:
                fed.adder.bookmark.end()

    def tell_shared(self, name: str) -> None:
        """Say how many ids the corpora of a collection have in common, if any."""
        fed = self._fed[name]
        if fed.shared is not None and (number := fed.shared.count()):
            ids = figures.count(number, "id")
            if fed.skipped:  # their ids were not looked at
                ids = f"at least {ids}"
            self._screen.say(
                f"Warning: {name}: {ids} in more than one source: of each "
                "the last text replaced the others. To keep all, give each source a collection"
            )

    def prune(self, name: str) -> bool:
        """With --prune, delete what was not brought. Returns whether that went well."""
        fed, asked = self._fed[name], self._asked
        if fed.surplus is None:
            return True
        lost = None if fed.adder.intact() else "Redis has lost texts of this run"
        self._check_sink()
        return prune(
            name,
            fed.surplus,
            asked.sinks(name),
            self._fault or lost,
            asked.yes,
            self._screen,
            self._target.command("drop", name),
            is_implied=asked.sink is not None,
        )

    def wait(self, name: str, end: float | None) -> bool:
        """Follow the work on a collection until `end`, write its vectors, and print the result.

        Returns whether all went well.
        """
        fed, output = self._fed[name], self._asked.outputs.get(name)
        follower = Follower(fed.collection, self._settings, self._target, self._screen)
        assert fed.own is not None
        with closing(fed.own) as own:
            status, counts = self._follow(fed, own, follower, end)
        intact, lost = not fed.adder.lost, counts.missing
        outcome = report.Outcome(counts, time.monotonic() - self._begun, intact=intact)
        whole = intact and not counts.waiting and not lost
        if output is not None and whole:
            vectors = write_vectors(name, self._settings, output, self._screen)
            before = f" ({status.evicted:,} evicted before)" if status.evicted else ""
            outcome = outcome._replace(written=report.written(vectors, output) + before)
        if self._sinking is not None and (whole and self.broken is None or self._sinking.error):
            written = self._sinking.end(end)  # with an index: all is there
            outcome = outcome._replace(written=written)
            whole &= written is not None
        paths = ", ".join(fed.rejected_paths) or None
        look = self._target.command("dead", name)
        line = report.finished(name, fed.progress, paths, look, outcome)
        click.echo(line, err=output == "-")
        follower.tell_unfinished(status, counts.waiting)
        if lost:
            self._screen.say(
                f"{name}: nothing is left of {figures.count(lost, 'text')}: Redis was emptied, or "
                "they were deleted meanwhile. Run the same command again"
            )
        elif not intact:
            self._screen.say(
                f"{name}: it was dropped, or Redis went back in time, and texts of this run are "
                "missing: run the same command again"
            )
        if self._sinking is not None and outcome.written is None:
            self._screen.say(f"{name}: not all is in the sink: run the same command again")
        if output is not None and not whole:
            self._screen.say(f"{figures.plain(output)} is not written: vectors are missing")
        return whole and not counts.dead

    def _follow(
        self, fed: _Fed, own: Own, follower: Follower, end: float | None
    ) -> tuple[Status, Counts]:
        """Follow the work until none of the run's texts is waiting, or `end`; with a sink, which is
        true to the whole collection, until nothing is.
        """
        own.end()
        follow = partial(follower.follow, end=end, intact=partial(self._goes_on, fed))
        left = None if self._sinking is not None else partial(_left, own, fed)
        if left and not fed.progress.new and not fed.skipped:
            counts = own.count(fed.progress.new)
            if counts is not None and not counts.waiting:
                return follow(0, left=_nothing), counts
        work = fed.progress.new
        while True:
            status = follow(work, left=left)
            counts = None if fed.skipped else own.count(fed.progress.new)
            if counts is None:
                counts = counts_of(fed.progress, status)
                return status, counts if left is None else counts._replace(waiting=left())
            is_over = status.state == "halted" or end is not None and time.monotonic() >= end
            if not counts.waiting or is_over or not self._goes_on(fed):
                return status, counts
            work = counts.waiting  # they were put back since

    def _goes_on(self, fed: _Fed) -> bool:
        """Whether Redis has all of this run, and a sink takes it."""
        return fed.adder.intact() and (self._sinking is None or self._sinking.error is None)

    def _check_sink(self) -> None:
        """Raise what ended the export into the sink, if something did."""
        if self._sinking is not None and self._sinking.error is not None:
            raise self._sinking.error

    def is_open(self, name: str) -> bool:
        """Whether a collection is not halted, and nothing is dead in files that were skipped.

        Says so if nothing is sent for it.
        """
        fed = self._fed[name]
        status = fed.collection.status()
        dead = status.dead if fed.skipped else 0
        if dead:
            look = self._target.command("dead", name)
            self._screen.say(f"{name}: {dead:,} dead, some maybe in skipped files (see {look})")
        if status.backlog and status.state in ("halted", "paused"):
            self._screen.say(report.stopped(status, self._target.command("resume", name)))
        return not dead and not (status.backlog and status.state == "halted")


def _nothing() -> int:
    return 0


def _left(own: Own, fed: _Fed) -> int:
    """How many texts of a run may be left."""
    if fed.skipped:  # their texts were not read
        return own.jobs_left()
    return min(own.left(fed.progress.new), sum(fed.progress[:4]))


def _is_whole(corpus: Corpus) -> bool:
    return corpus.fault is None


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(
        new=one.new + other.new,
        unchanged=one.unchanged + other.unchanged,
        duplicates=one.duplicates + other.duplicates,
        dead=one.dead + other.dead,
        rejected=one.rejected + other.rejected,
        evicted=one.evicted + other.evicted,
        replacing=one.replacing + other.replacing,
        skipped=one.skipped + other.skipped,
    )
