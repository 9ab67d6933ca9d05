"""Formats: how the bytes of a file become jobs and rejections.

Each is a module with `read(stream, reading)`: an iterator with a job or a rejection for each line.
`read` raises CorpusError if the file as a whole cannot be read; the iterator raises nothing. A new
format is a module beside its siblings and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Union

from ...types import Job, Rejection
from ..errors import CorpusError
from ..path import split
from ..reading import Reading
from ..stream import Stream

Lines = Iterator[Union[Job, Rejection]]

_MODULES = {
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json_array",
    ".csv": "table",
    ".tsv": "table",
    ".txt": "text",
    ".md": "document",
    ".html": "html",
    ".htm": "html",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
SUFFIXES = tuple(_MODULES)
_OURS = (".rejected", ".vectors")  # what vec-enqueue writes beside a corpus


def suffix_of(path: str) -> str | None:
    """The suffix of the file's format; None if it is none that we read."""
    stem, suffix, _ = split(path)
    return suffix if suffix in _MODULES and not stem.endswith(_OURS) else None


def kind_of(path: str) -> str:
    """What kind of file one is that we do not read."""
    stem, suffix, _ = split(path)
    ours = (mark for mark in _OURS if stem.endswith(mark))
    return next(ours, "") + suffix or "without a suffix"


def reader(suffix: str, where: str, documents: bool) -> Callable[[Stream, Reading], Lines]:
    """What reads the files of that suffix. `documents`: a `.txt` is one text.

    Raises CorpusError for an unknown suffix, and NotInstalled.
    """
    if suffix not in _MODULES:
        raise CorpusError(
            f"{where}: unknown kind of file: name it {', '.join(SUFFIXES)}"
            " (each also with .gz, .bz2, .xz or .zst), or pipe it in as JSON lines with -"
        )
    name = "document" if documents and suffix == ".txt" else _MODULES[suffix]
    read: Callable[[Stream, Reading], Lines] = import_module(f".{name}", __name__).read
    return read
