"""A pattern of file names, as a shell expands it: `shards/*.parquet`, `docs/**/*.md`.

Python's `glob` leaves out what it cannot look into, which would be taken for removed.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Union

from ...types import Rejection
from ..path import shown
from .base import File, Local
from .file import local_file

# Of a path: None if opening it tells what is wrong; or why what is below is not known.
_Status = Union[os.stat_result, None, str]


class Pattern(Local):
    """The files that match a pattern."""

    many = True
    documents = named = once = False

    def files(self) -> Iterator[File | Rejection]:
        """The files, by name. The id of a document is its path below the folders named in full."""
        fixed = self.path
        while glob.has_magic(fixed):
            fixed = os.path.dirname(fixed)
        parts = [part for part in self.path[len(fixed) :].split(os.sep) if part]
        found = dict(_matches(fixed, parts))  # two `**` may lead to the same
        for path in sorted(found):
            status = found[path]
            if isinstance(status, str):
                yield Rejection(1, None, status, "", shown(path))
            else:
                below = os.path.relpath(path, fixed or ".").replace(os.sep, "/")
                yield local_file(path, below, status)


def find(path: str) -> Pattern | None:
    """The pattern, if it is one and not the name of a file."""
    return Pattern(path) if glob.has_magic(path) and not os.path.exists(path) else None


def _matches(folder: str, parts: Sequence[str]) -> Iterator[tuple[str, _Status]]:
    """What is below a folder and matches the parts of a pattern."""
    waiting = [(folder, parts)]
    while waiting:
        folder, (part, *rest) = waiting.pop()
        try:
            names = os.listdir(folder or ".") if glob.has_magic(part) else [part]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            yield folder, f"the folder cannot be read: {error.strerror or error}"
            continue
        if part == "**":
            waiting.append((folder, rest or ["*"]))
        for name in names:
            if not fnmatchcase(name, part) or name.startswith(".") > part.startswith("."):
                continue
            path = os.path.join(folder, name)
            status: _Status
            try:
                status = os.stat(path)
            except FileNotFoundError:
                status = None
            except OSError as error:
                status = f"cannot be read: {error.strerror or error}"
            is_folder = isinstance(status, os.stat_result) and stat.S_ISDIR(status.st_mode)
            if part == "**":
                if is_folder and not os.path.islink(path):  # which may lead around in a circle
                    waiting.append((path, [part, *rest]))
            elif rest and is_folder:
                waiting.append((path, rest))
            elif isinstance(status, str):
                yield path, status
            elif status is None:
                if glob.has_magic(part) and not rest:  # a link to nowhere, or just gone
                    yield path, status
            elif not rest and stat.S_ISREG(status.st_mode):
                yield path, status
