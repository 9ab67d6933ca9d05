"""Sources: which corpus feeds which collection, and whether it replaces another's texts.

A text is known by its id alone: if two sources of one collection have the same ids, the later one
replaces the texts of the other. That is right for a corpus that has changed, and wrong for two
corpora of the same name. These are refused if one command line names both; otherwise there is a
warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import click

from ..corpus import Corpus, Source, collection_name
from ..corpus.spill import Distinct
from ..monitor import figures
from ..settings import Settings
from ..store.connection import connect
from ..store.keys import CollectionKeys
from ..store.registry import SOURCE_LENGTH, read_sources
from ..types import Job, Rejection, document_of
from .screen import Screen


def collections_of(corpora: Sequence[Source], collection: str | None) -> list[str]:
    """The collection of each corpus: `collection` if given, else by the name of the file.

    Raises UsageError if a corpus has no name, or two have the same.
    """
    if collection is not None:
        return [collection] * len(corpora)
    for source in corpora:
        if not source.named:
            where = figures.source(source.path)
            raise click.UsageError(f"Name the collection of {where} with --collection.")
    names = [collection_name(source.path) for source in corpora]
    for name in names:
        if names.count(name) > 1:
            alike = [figures.source(one.path) for one, its in zip(corpora, names) if its == name]
            raise click.UsageError(
                f"{figures.names(alike)} would all go into collection {name}, where texts of the "
                f"same id replace each other: if that is meant, add --collection {name}; if not, "
                "run a command for each, with a --collection of its own."
            )
    return names


def stranger(source: Source, collection: str, settings: Settings) -> str | None:
    """The warning for a source that replaces texts of others; None for one of the collection."""
    name = source.name[-SOURCE_LENGTH:]
    before = read_sources(connect(settings), CollectionKeys(settings.prefix, collection))
    if not before or name in before:
        return None
    return (
        f"Warning: {collection} was fed from {figures.plain(before[-1])} so far; "
        f"{figures.plain(name)} has the same ids, and its texts replace those. To keep both, "
        "name another collection with --collection"
    )


class SharedIds:
    """Counts the ids that several files of one run have in common, in bounded memory.

    `documents`: the jobs may be pieces. Then the ids of documents are counted.
    """

    def __init__(self, documents: bool) -> None:
        self._documents = documents
        self._all = Distinct()
        self._by_file = Distinct()
        self._file = 0
        self._counts = True

    def watch(self, parts: Iterable[Iterable[Job | Rejection]]) -> Iterator[Job | Rejection]:
        """The lines of some files; their ids are counted on the way."""
        for lines in parts:
            self._file += 1
            for line in lines:
                if self._counts and isinstance(line, Job):
                    id = document_of(line.id)[0] if self._documents else line.id
                    try:
                        self._all.add(id)
                        self._by_file.add((self._file, id))
                    except OSError:  # no room for temporary files: only the count is missing
                        self._counts = False
                yield line

    def count(self) -> int | None:
        """How many there are; None if they could not be counted. Call it once."""
        return self._by_file.count() - self._all.count() if self._counts else None


def say_skipped(corpus: Corpus, screen: Screen) -> None:
    """Say which files of a folder or a pattern are not read."""
    if corpus.skipped:
        kinds = figures.names([figures.plain(kind) for kind, _ in corpus.skipped.most_common()])
        number = figures.count(sum(corpus.skipped.values()), "file")
        screen.say(
            f"{figures.source(corpus.source.path)}: {number} of other kinds skipped: {kinds}"
        )
