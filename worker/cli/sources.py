"""Sources: which corpus feeds which collection, and whose texts would take another's place.

A text is known by its id alone: of two sources with the same ids in one collection the later one
replaces the texts of the other. That is right for a corpus that changed, and wrong for two corpora
of one name; so the second case is refused where it can be seen, and else said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import click

from ..corpus.spill import Distinct
from ..monitor import figures
from ..settings import Settings
from ..types import Job, Rejection


def collections_of(corpora: Sequence[str], collection: str | None) -> list[str]:
    """The collection of each corpus: `collection` where it is named, else by the file's name.

    Raises UsageError where names of files give no name, or two of them the same.
    """
    if collection is not None:
        return [collection] * len(corpora)
    if "-" in corpora:
        raise click.UsageError("Name the collection of standard input with --collection.")
    from ..corpus import collection_name

    names = [collection_name(path) for path in corpora]
    for name in names:
        if names.count(name) > 1:
            alike = [figures.source(path) for path, its in zip(corpora, names) if its == name]
            raise click.UsageError(
                f"{figures.names(alike)} would all go into collection {name}, where texts of the "
                f"same id replace each other: if that is meant, add --collection {name}; if not, "
                "run a command for each, with a --collection of its own."
            )
    return names


def source_name(path: str) -> str:
    """By what a collection remembers a source."""
    from ..store.registry import SOURCE_LENGTH

    return "standard input" if path == "-" else os.path.realpath(path)[-SOURCE_LENGTH:]


def stranger(path: str, collection: str, settings: Settings) -> str | None:
    """The line for a source that begins to replace texts of others; None for one that fed
    `collection` before.
    """
    from ..store.connection import connect
    from ..store.keys import CollectionKeys
    from ..store.registry import read_sources

    name = source_name(path)
    before = read_sources(connect(settings), CollectionKeys(settings.prefix, collection))
    if not before or name in before:
        return None
    return (
        f"Warning: {collection} was fed from {figures.plain(before[-1])} so far; "
        f"{figures.plain(name)} has the same ids, and its texts replace those. To keep both, "
        "name another collection with --collection"
    )


class SharedIds:
    """Counts the ids that several sources of one run have in common, in bounded memory."""

    def __init__(self) -> None:
        self._all = Distinct()
        self._summed = 0
        self._counts = True

    def watch(self, records: Iterable[Job | Rejection]) -> Iterator[Job | Rejection]:
        """The records of one source, while their ids are taken note of."""

        one = Distinct()
        for record in records:
            if self._counts and isinstance(record, Job):
                try:
                    self._all.add(record.id)
                    one.add(record.id)
                except OSError:  # no room for temporary files: the work itself goes on
                    self._counts = False
            yield record
        self._summed += one.count() if self._counts else 0

    def count(self) -> int | None:
        """How many there are; None where they could not be counted. To be asked once."""
        return self._summed - self._all.count() if self._counts else None
