"""A folder: all files below it, by name.

Names that begin with a dot are left out, and links to folders, which may lead around in a circle.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from ...types import Rejection
from ..path import shown
from .base import File, Local
from .file import local_file

_DEPTH = 100


class Folder(Local):
    """The files below a folder."""

    many = documents = True
    named = once = False

    def files(self) -> Iterator[File | Rejection]:
        """The files; a folder that cannot be read is a rejection."""
        return _below(self.path, "")


def find(path: str) -> Folder | None:
    """The folder, if there is one of that path."""
    try:
        return Folder(path) if os.path.isdir(path) else None
    except ValueError:  # a NUL in the path
        return None


def _below(root: str, below: str) -> Iterator[File | Rejection]:
    path = os.path.join(root, below)
    try:
        names = sorted(entry.name for entry in os.scandir(path) if not entry.name.startswith("."))
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror or error}"
        yield Rejection(1, None, reason, "", shown(path))
        return
    for name in names:
        inner = os.path.join(path, name)
        try:
            status = os.stat(inner)
        except OSError:  # a link to nowhere, or gone: opening it tells
            yield local_file(inner, f"{below}{name}", None)
            continue
        if stat.S_ISREG(status.st_mode):
            yield local_file(inner, f"{below}{name}", status)
        elif not stat.S_ISDIR(status.st_mode) or os.path.islink(inner):
            continue
        elif below.count("/") == _DEPTH:
            reason = f"the folder is not read: it is {_DEPTH + 1} deep"
            yield Rejection(1, None, reason, "", shown(inner))
        else:
            yield from _below(root, f"{below}{name}/")
