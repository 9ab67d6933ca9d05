"""The path of a corpus: what it says about the file before it is opened."""

from __future__ import annotations

import os
import re

from .errors import CorpusError

_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet")


def stem(path: str) -> str:
    """The file's name without its directory and suffixes: `wiki` of `data/wiki.jsonl.gz`."""
    return split(path)[0]


def collection_name(path: str) -> str:
    """The default collection of a corpus. Raises CorpusError if its name has no usable letter."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", stem(path))[:100]
    if not re.search(r"[A-Za-z0-9]", name):
        raise CorpusError(
            f"{shown(path)}: no letter of its name can be in the name of a collection: "
            "name one with --collection"
        )
    return name


def split(path: str) -> tuple[str, str, bool]:
    """Stem, suffix in lower case, and whether it is gzip. Raises CorpusError for other files."""
    if path == "-":
        return "stdin", ".jsonl", False
    stem, suffix = os.path.splitext(os.path.basename(path))
    packed = suffix.lower() == ".gz"
    if packed:
        stem, suffix = os.path.splitext(stem)
    suffix = suffix.lower()
    if os.path.isdir(path):
        raise CorpusError(f"{shown(path)} is a directory: name the file in it")
    if suffix not in _SUFFIXES:
        raise CorpusError(
            f"{shown(path)}: unknown kind of file: name it {', '.join(_SUFFIXES)}"
            " (each also with .gz), or pipe it in as JSON lines with -"
        )
    return stem, suffix, packed


def shown(path: str) -> str:
    """The path in characters that every terminal can show."""
    return "standard input" if path == "-" else path.encode(errors="replace").decode()
