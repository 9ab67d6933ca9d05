"""A file, named alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from ..errors import CorpusError
from ..path import shown
from .base import File


@dataclass(frozen=True)
class Single:
    """One file."""

    path: str
    many = documents = False

    def files(self) -> Iterator[File]:
        """It."""
        yield local_file(self.path, os.path.basename(self.path))


def find(path: str) -> Single:
    """The file, whether it exists or not."""
    return Single(path)


def local_file(path: str, id: str, size: int | None = None) -> File:
    """A file of this machine."""
    return File(path, id.encode(errors="replace").decode(), partial(_open, path), size)


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise CorpusError(f"{shown(path)} does not exist: check the name") from None
    except PermissionError:
        raise CorpusError(f"{shown(path)} may not be read: check its permissions") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{shown(path)} cannot be opened: {error}") from None
