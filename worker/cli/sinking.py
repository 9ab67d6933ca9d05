"""What went into a sink: told as it goes, and in the line at the end."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..export.folder import Folder
from ..export.follow import Options, Published, SinkExport
from ..export.sink import Sink
from ..monitor import figures
from .screen import Screen

if TYPE_CHECKING:
    from ..settings import Settings

STOP_SECONDS = 10.0
TELL_SECONDS = 60.0  # between two lines about a database; a folder has one for each file


class Written:
    """The parts that one export wrote."""

    def __init__(self, sink: Sink, options: Options) -> None:
        self.vectors = 0
        self._sink = sink
        self._options = options
        self._parts = self._evicted = 0
        self._told = time.monotonic()
        self._is_folder = isinstance(sink, Folder)

    def add(self, published: Published, screen: Screen) -> None:
        """Count a part; tell of it where the export follows."""
        self._parts += 1
        self.vectors += published.vectors
        self._evicted += published.evicted
        now = time.monotonic()
        if self._options.follow and self._is_folder:
            screen.say(f"{published.part.name}: {figures.count(published.vectors, 'vector')}")
        elif self._options.follow and now - self._told >= TELL_SECONDS:
            self._told = now
            screen.say(f"{self._sink}: {figures.count(self.vectors, 'vector')} written")

    def line(self, export: SinkExport) -> str:
        """What was written, and evicted, and deleted."""
        line = f"{figures.count(self.vectors, 'vector')} written to {self._sink}"
        if self._is_folder:
            line += f" in {figures.count(self._parts, 'file')}"
        if self._options.evict:
            line += f", {self._evicted + export.recovered:,} evicted"
        if export.tombstones:
            what = "tombstone" if self._is_folder else "deletion"
            line += f", {figures.count(export.tombstones, what)}"
        return line


class Sinking:
    """An export in a thread beside a command that enqueues and waits. `begin()` once."""

    def __init__(self, sink: Sink, settings: Settings, screen: Screen, *, evict: bool) -> None:
        options = Options(evict, follow=True, until_done=True)
        self.error: BaseException | None = None
        self._written = Written(sink, options)
        self._screen = screen
        self._all_is_queued = threading.Event()
        self._stopped = threading.Event()
        self._begun = threading.Event()
        self._export = SinkExport(
            sink,
            settings,
            options,
            stop=self._stopped.is_set,
            more=lambda: not self._all_is_queued.is_set(),
            tell=lambda read: self._begun.set(),
        )
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)

    def begin(self) -> None:
        """Begin, and return when what Redis and the sink have in common is settled.

        Raises what ends it before: so nothing is enqueued and paid for in vain.
        """
        self._thread.start()
        while not self._begun.wait(0.1) and self._thread.is_alive():
            pass
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            for published in self._export.run():
                self._written.add(published, self._screen)
        except BaseException as error:  # it belongs to the command
            self.error = error

    def end(self, end: float | None) -> str | None:
        """Write what is left; returns the line, or None if `end` (monotonic) came first.

        Raises what ended the export.
        """
        self._all_is_queued.set()
        while self._thread.is_alive():  # so that signals are heard
            if end is not None and time.monotonic() >= end:
                return None
            self._thread.join(0.2)
        if self.error is not None:
            raise self.error
        return self._written.line(self._export)

    def stop(self) -> None:
        """End after the part that is being written."""
        self._stopped.set()
        self._thread.join(STOP_SECONDS)  # what is not written then is written by the next export
