"""What a source is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from ...types import Rejection


class File(NamedTuple):
    """A file that can be opened. Its path has the suffixes of its format and packing."""

    path: str
    id: str  # of the document that it may be
    open: Callable[[], BinaryIO]  # raises CorpusError
    size: int | None = None  # as stored; None if unknown
    borrowed: bool = False  # it stays open
    version: str | None = None  # changes when the file does; None if that cannot be seen


class Source(Protocol):
    """The files of a corpus, in an order that stays the same while they do."""

    @property
    def path(self) -> str:
        """As the command line names it."""

    @property
    def name(self) -> str:
        """Under which a collection remembers it."""

    @property
    def many(self) -> bool:
        """Whether it may be several files, even if there is one now."""

    @property
    def documents(self) -> bool:
        """Whether a `.txt` is one text."""

    @property
    def named(self) -> bool:
        """Whether its path gives the name of a collection."""

    @property
    def once(self) -> bool:
        """Whether it can be opened only once, so not to see whether it can be."""

    def files(self) -> Iterator[File | Rejection]:
        """The files, and what cannot be looked into. Each call looks again."""


@dataclass(frozen=True)
class Local:
    """What a path of this machine names."""

    path: str

    @property
    def name(self) -> str:
        """The whole path."""
        return os.path.realpath(self.path)
