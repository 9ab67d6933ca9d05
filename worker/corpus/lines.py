"""The physical lines of a stream, with their numbers, counted from 1.

A line that is too long becomes a rejection, and so does the point where the data breaks off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

from ..types import Rejection
from .encoding import Utf8
from .errors import Unfit
from .stream import Stream

MAX_LINE_BYTES = 16 * 1024 * 1024

# A line's number and the line without its newline, or why it cannot be read.
Line = Union[tuple[int, bytes], Rejection]
# The number of the first of some lines, and the lines; or why a line cannot be read.
Block = Union[tuple[int, list[bytes]], Rejection]


class Lines:
    """The lines of a stream; read them once. Raises CorpusError as `Utf8` does."""

    def __init__(self, stream: Stream, encoding: str | None) -> None:
        self._bytes = Utf8(stream, encoding)

    def __iter__(self) -> Iterator[Line]:
        for block in self.blocks():
            if isinstance(block, Rejection):
                yield block
            else:
                yield from enumerate(block[1], block[0])

    def blocks(self) -> Iterator[Block]:
        """The lines that were read together, which saves a call per line."""
        number = 1  # of the line whose end has not been seen
        begun: list[bytes] = []  # what was read of it
        room = MAX_LINE_BYTES  # left for it; below 0 it is rejected, and its rest is skipped
        while data := self._bytes.read():
            first, *lines = data.split(b"\n")
            if room >= 0:
                begun.append(first)
                room -= len(first)
                if room < 0:
                    reason = f"the line is longer than {MAX_LINE_BYTES:,} bytes"
                    yield Unfit(reason).rejection(number, b"".join(begun[:2]))
                    begun = []
            if lines:
                rest = lines.pop()
                if room >= 0:
                    lines.insert(0, b"".join(begun))
                else:
                    number += 1
                yield number, lines
                number += len(lines)
                begun, room = [rest], MAX_LINE_BYTES - len(rest)
        if room < 0:
            number += 1
        rest = b"".join(begun)
        if self._bytes.fault is not None:
            yield Unfit(self._bytes.fault).rejection(number, rest)
        elif rest:
            yield number, [rest]
