"""What the command line of `vec-enqueue` asks for, as one value."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import click

from ..corpus import Corpus, Source, paths
from ..export.files import check_output
from ..export.sinks import sink_of
from ..layout import Layout
from ..monitor import figures
from ..settings import Settings
from ..store.keys import CollectionKeys
from .command import Target
from .rejections import rejected_path


@dataclass(frozen=True)
class Asked:
    """What the command line asks for: corpora, and the collection and the file of each."""

    target: Target
    corpora: Sequence[Source]
    names: Sequence[str]  # the collection of each corpus
    outputs: dict[str, str]  # by collection
    open: Callable[..., Corpus]  # of a source
    model: str | None
    keep_text: bool
    prune: bool = False
    yes: bool = False  # do not ask
    sink: str | None = None  # into which the vectors go
    evict: bool = False  # what is safe there
    folders: Sequence[str] = ()  # with the vectors of evicted ids
    documents: bool = False  # long texts are split into pieces
    way: str = ""  # to read: other words for another way
    layout: Callable[[str], Layout | None] = lambda model: None  # that a new collection gets
    priority: str = "normal"
    web: bool = False  # serve the page meanwhile

    @property
    def many(self) -> bool:
        """Whether there may be several files."""
        return len(self.corpora) > 1 or any(source.many for source in self.corpora)

    def label(self, source: Source) -> str:
        """The name of a corpus in its line of results."""
        name = self.names[self.corpora.index(source)]
        return name if self.names.count(name) == 1 else f"{name} ({figures.source(source.path)})"

    def sinks(self, name: str) -> list[str]:
        """Where names of evicted ids of a collection are, and the sink, if it holds something."""
        sinks = [*self.folders]
        if self.sink is not None and sink_of(self.sink, name).watermarks().vectors:
            sinks.append(self.sink)
        return sinks

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
