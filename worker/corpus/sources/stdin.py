"""Standard input: `-`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import BinaryIO

from ..errors import CorpusError
from .base import File


class Stdin:
    """JSON lines on standard input, which stays open."""

    path = "-"
    name = "standard input"
    many = documents = named = False
    once = True

    def files(self) -> Iterator[File]:
        """It."""
        yield File("-", "-", _stdin, borrowed=True)


def find(path: str) -> Stdin | None:
    """Standard input, if the path means it."""
    return Stdin() if path == "-" else None


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise CorpusError("standard input is closed: name a file instead of -")
    return sys.stdin.buffer
