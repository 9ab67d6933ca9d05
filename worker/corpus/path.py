"""The name of a file or an address: its stem, its format, how it is packed, and how it is shown."""

from __future__ import annotations

import os
import re

from .errors import CorpusError

PACKINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstandard"}


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


def split(path: str) -> tuple[str, str, str]:
    """Stem, and in lower case the suffix of the format and of the packing, each maybe empty."""
    if path == "-":
        return "stdin", ".jsonl", ""
    stem, suffix = os.path.splitext(os.path.basename(path))
    packing = ""
    if suffix.lower() in PACKINGS:
        packing = suffix.lower()
        stem, suffix = os.path.splitext(stem)
    return stem, suffix.lower(), packing


def shown(path: str) -> str:
    """The path in characters that every terminal can show."""
    return "standard input" if path == "-" else path.encode(errors="replace").decode()
