"""A pattern of file names, as a shell expands it: `shards/*.parquet`, `docs/**/*.md`."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from .base import File, Local
from .file import local_file


class Pattern(Local):
    """The files that match a pattern."""

    many = True
    documents = named = once = False

    def files(self) -> Iterator[File]:
        """The files, by name. The id of a document is its path below the folders named in full."""
        fixed = self.path
        while glob.has_magic(fixed):
            fixed = os.path.dirname(fixed)
        for path in sorted(set(glob.iglob(self.path, recursive=True))):
            if os.path.isfile(path):
                below = os.path.relpath(path, fixed or ".").replace(os.sep, "/")
                yield local_file(path, below, os.stat(path))


def find(path: str) -> Pattern | None:
    """The pattern, if it is one and not the name of a file."""
    return Pattern(path) if glob.has_magic(path) and not os.path.exists(path) else None
