"""What a source is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    many: bool  # even if there is one file, now
    documents: bool  # whether a `.txt` is one text

    def files(self) -> Iterator[File | Rejection]:
        """The files, and what cannot be looked into. Each call looks again."""
