"""A file, named alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import BinaryIO

from ..errors import CorpusError
from ..path import shown, split
from .base import File, Local


class Single(Local):
    """One file."""

    many = documents = False
    named = True

    @property
    def once(self) -> bool:
        """Whether it is a pipe."""
        return os.path.exists(self.path) and not os.path.isfile(self.path)

    def files(self) -> Iterator[File]:
        """It. Raises CorpusError if it could be a folder, and there is none."""
        if not split(self.path)[1] and not os.path.lexists(self.path):
            raise _missing(self.path)
        status = None
        with suppress(OSError, ValueError):  # opening it tells
            status = os.stat(self.path)
        yield local_file(self.path, os.path.basename(self.path), status)


def find(path: str) -> Single:
    """The file, whether it exists or not."""
    return Single(path)


def local_file(path: str, id: str, status: os.stat_result | None) -> File:
    """A file of this machine."""
    size = version = None
    if status is not None and stat.S_ISREG(status.st_mode):
        size, version = status.st_size, f"{status.st_mtime_ns}-{status.st_size}"
    id = os.fsencode(id).decode(errors="backslashreplace")  # so that no two are alike
    return File(path, id, partial(_open, path), size, version=version)


def _missing(path: str) -> CorpusError:
    return CorpusError(f"{shown(path) or repr(path)} does not exist: check the name")


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise _missing(path) from None
    except PermissionError:
        raise CorpusError(f"{shown(path)} may not be read: check its permissions") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{shown(path)} cannot be opened: {error}") from None
