"""The physical lines of a source, with their numbers, counted from 1.

A line that is too long becomes a rejection, and so does the point where the data breaks off.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Union

from ..types import Rejection
from .errors import CorpusError, Unfit
from .source import GZIP_MAGIC, Source

MAX_LINE_BYTES = 16 * 1024 * 1024

# A line's number and the line without its newline, or why it cannot be read.
Line = Union[tuple[int, bytes], Rejection]
# The number of the first of some lines, and the lines; or why a line cannot be read.
Block = Union[tuple[int, list[bytes]], Rejection]

_WIDE = (
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
    codecs.BOM_UTF32_BE,
)  # UTF-32-LE begins as UTF-16


class Lines:
    """The lines of a source; read them once. Raises CorpusError if the data is not UTF-8 lines."""

    def __init__(self, source: Source) -> None:
        self._source = source
        start = source.read()
        while len(start) < 4 and (more := source.read()):  # a pipe may give a byte at a time
            start += more
        if start.startswith(GZIP_MAGIC):
            raise CorpusError(f"{source.name} is gzip data: unpack it, or add .gz to its name")
        if start.startswith(_WIDE):
            raise CorpusError(f"{source.name} is UTF-16 or UTF-32: convert it to UTF-8")
        self._start = start.removeprefix(codecs.BOM_UTF8)

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
        data, self._start = self._start, b""
        while data := data or self._source.read():
            first, *lines = data.split(b"\n")
            data = b""
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
        if self._source.fault is not None:
            yield Unfit(self._source.fault).rejection(number, rest)
        elif rest:
            yield number, [rest]


def decoded(line: bytes) -> str:
    """The line's text. Raises Unfit if it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise Unfit(f"not UTF-8 at byte {error.start + 1}") from None
