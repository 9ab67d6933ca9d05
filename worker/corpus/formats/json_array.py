"""JSON: a file that is one array of objects.

The array is cut into its items without being parsed as a whole; each item is then read as a line of
JSON lines is. So one that is too long or malformed costs itself alone, as far as its brackets and
quotes are in order. The line of a rejection is the number of its item.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...types import Job, Rejection
from ..encoding import Utf8
from ..errors import CorpusError, Unfit
from ..lines import MAX_LINE_BYTES, Block
from ..reading import Reading
from ..stream import Stream
from .json_lines import read_objects

_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # up to its quote, or the end
_BETWEEN = re.compile(rb'["\[\]{},]')
_WITHIN = re.compile(rb'["\[\]{}]')
_BLANK = b" \t\r\n"


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of each item. Raises CorpusError if the file is no array."""
    data = Utf8(stream, reading.encoding)
    start = b""
    while not start and (some := data.read()):
        start = some.lstrip(_BLANK)
    if not start.startswith(b"["):
        hint = "if each line is an object, name it .jsonl" if start[:1] == b"{" else "check it"
        raise CorpusError(f"{stream.name} is not a JSON array of objects: {hint}")
    return read_objects(_items(data, start[1:]), reading.fields)


def _items(data: Utf8, start: bytes) -> Iterator[Block]:
    """The items of an array that was begun."""
    number, depth = 1, 1
    in_string = escaped = False  # escaped: the next byte is part of a string, whatever it is
    begun: list[bytes] = []  # what was read of the item
    room = MAX_LINE_BYTES  # left for it; below 0 it is rejected, and its rest is skipped

    def add(piece: bytes) -> None:
        nonlocal room
        room -= len(piece)
        if room >= 0:
            begun.append(piece)
        elif len(begun) > 1:
            del begun[1:]

    def item(is_last: bool = False) -> Iterator[Block]:
        nonlocal number, room
        whole = b"".join(begun).strip(_BLANK)
        if room < 0:
            reason = f"the item is longer than {MAX_LINE_BYTES:,} bytes"
            yield Unfit(reason).rejection(number, whole)
        elif whole:
            yield number, [whole]
        elif not is_last:
            yield Unfit("malformed JSON: no value before a comma").rejection(number, b"")
        number += 1
        begun.clear()
        room = MAX_LINE_BYTES

    piece = start
    while True:
        at, cut, escaped = int(escaped), 0, False
        while at < len(piece):
            if in_string:
                at = _STRING.match(piece, at).end()  # type: ignore[union-attr]  # it always matches
                if at == len(piece):
                    break
                escaped = piece[at : at + 1] == b"\\"  # the last byte
                in_string, at = escaped, at + 1
                continue
            found = (_BETWEEN if depth == 1 else _WITHIN).search(piece, at)
            if found is None:
                break
            at, what = found.end(), found[0]
            if what == b'"':
                in_string = True
            elif what in b"[{":
                depth += 1
            elif what == b",":
                add(piece[cut : at - 1])
                yield from item()
                cut = at
            else:
                depth -= 1
                if depth == 0:
                    add(piece[cut : at - 1])
                    yield from item(is_last=True)
                    yield from _after(data, piece[at:], number)
                    return
        add(piece[cut:])
        if not (piece := data.read()):
            break
    reason = data.fault or "the array is not closed: the rest is missing, fetch it again"
    data.fault = reason
    yield Unfit(reason).rejection(number, b"".join(begun))


def _after(data: Utf8, rest: bytes, number: int) -> Iterator[Block]:
    """What follows an array: nothing, or the data is at fault."""
    while not (rest := rest.strip(_BLANK)):
        if not (rest := data.read()):
            break
    reason = data.fault or ("data follows the array: only the array is read" if rest else None)
    if reason is not None:
        yield Unfit(reason).rejection(number, rest)
