"""The screen: the progress of a run, on standard error.

On a terminal there is a progress bar, which vanishes at the end. Elsewhere there is none, and only
what a person should know is written, one line each. Nothing is written to standard output: it is
for results.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ..logs import listening
from ..types import Job, Rejection, Stored

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from ..corpus import Corpus

REPEAT_SECONDS = 60.0  # before the same kind of line is written again


class Screen:
    """Standard error, with or without a progress bar at the bottom."""

    def __init__(self) -> None:
        stream = sys.stderr
        self.live = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        self._bars: Bars | None = None
        self._told: dict[str, float] = {}

    def __enter__(self) -> Screen:
        self._listening = listening(self._hear)
        self._listening.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.__exit__(None, None, None)

    def _hear(self, record: logging.LogRecord) -> None:
        line = f"{record.levelname.capitalize()}: {record.getMessage()}"
        self.warn(str(record.msg), line)

    def say(self, line: str) -> None:
        """Write one line, above the bar if there is one."""
        bars = self._bars  # another thread may end it
        if bars is None:
            click.echo(line, err=True)
        else:
            bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def tell(self, kind: str, line: str) -> None:
        """Write one line if no bar can show it; the same kind at most once a minute."""
        if not self.live:
            self.warn(kind, line)

    def warn(self, kind: str, line: str) -> None:
        """Write one line; the same kind at most once a minute."""
        now = time.monotonic()
        if now - self._told.get(kind, -REPEAT_SECONDS) >= REPEAT_SECONDS:
            self._told[kind] = now
            self.say(line)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show what is being done while the block runs, on a terminal only."""
        if not self.live:
            yield
            return
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield

    @contextmanager
    def bar(self, name: str, total: int | None, *, bytes: bool = False) -> Iterator[Bar]:
        """Show a bar while the block runs. `bytes`: it counts bytes of a file, without a rate."""
        if not self.live:
            yield Bar(None)
            return
        with _bars(name, total, bytes) as bars:
            self._bars = bars
            try:
                yield Bar(bars)
            finally:
                self._bars = None


class Bar:
    """The progress of one piece of work; shows nothing without a terminal."""

    def __init__(self, bars: Bars | None) -> None:
        self._bars = bars

    def update(
        self, done: int, total: int | None = None, *, shown: str = "", note: str = ""
    ) -> None:
        """Set the progress, a figure to show beside the bar, and a note to show below it."""
        if self._bars is not None:
            task = self._bars.task_ids[0]
            self._bars.update(task, completed=done, total=total, shown=shown, note=note)


def watched(corpus: Corpus, bar: Bar) -> Iterator[Job | Rejection]:
    """The records of a corpus, with the bar at its position."""
    for number, record in enumerate(corpus, 1):
        yield record
        if number % 1000 == 0:
            bar.update(corpus.position, corpus.size, shown=f"{number:,} read")


def counted(pages: Iterable[list[Stored]], bar: Bar, total: int) -> Iterator[list[Stored]]:
    """Pages of vectors, with the bar at their number."""
    number = 0
    for page in pages:
        yield page
        number += len(page)
        bar.update(number, max(number, total), shown=f"{number:,}/{total:,}")


def _bars(name: str, total: int | None, bytes: bool) -> Bars:
    # rich takes a tenth of a second to import: only for a terminal.
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")

    class Left(TimeRemainingColumn):
        def render(self, task: Task) -> Text:
            if task.time_remaining is None:
                return Text()
            return super().render(task) + Text(" left", style="progress.remaining")

    class Noted(Progress):
        """Bars, each with its note below it."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            for task in self.tasks:
                if task.fields["note"]:
                    yield Text(task.fields["note"], style="yellow")

    columns: list[ProgressColumn] = [
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(max_width=24, no_wrap=True, overflow="ellipsis"),
        ),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[shown]}", markup=False, table_column=Column(no_wrap=True)),
        *([] if bytes else [Rate()]),
        Left(compact=True),
    ]
    bars = Noted(
        *columns, console=Console(stderr=True), transient=True, expand=True, redirect_stdout=False
    )
    bars.add_task(name, total=total, shown="", note="")
    return bars
