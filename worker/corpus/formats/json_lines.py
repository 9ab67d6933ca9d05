"""JSON lines: one object per line.

There are two readers. The fast one, orjson's, reads ordinary lines, if orjson is installed. All
other lines go to the careful one, which alone decides what is wrong. It does not use orjson, which
reads whole numbers above 64 bits as floats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Callable

from vector_embed_client.http import text_fault

from ...types import Job, Rejection, default_id
from ..encoding import decoded
from ..errors import Unfit
from ..fields import MAX_ID_BYTES, Fields, kind
from ..lines import Block, Lines
from ..reading import Reading
from ..stream import Stream

try:
    import orjson

    _loads: Callable[[bytes], object] | None = orjson.loads
except ImportError:
    _loads = None

_SHORT_ID = MAX_ID_BYTES // 4  # characters that are never more bytes


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of each line that is not blank. Raises CorpusError."""
    return read_objects(Lines(stream, reading.encoding).blocks(), reading.fields)


def read_objects(blocks: Iterable[Block], fields: Fields) -> Iterator[Job | Rejection]:
    """The job or the rejection of each object."""
    name, *others = fields.text.names
    loads = None if others or fields.keep or fields.text.option == "--template" else _loads
    for block in blocks:
        if isinstance(block, Rejection):
            yield block
            continue
        for number, line in enumerate(block[1], block[0]):
            if not line:  # orjson's error for it takes fifty times as long
                continue
            job = None if loads is None else _quick(line, loads, name, fields)
            if job is not None:
                yield job
            elif not line.isspace():
                try:
                    yield _careful(line, fields)
                except Unfit as unfit:
                    yield unfit.rejection(number, line)


def _quick(line: bytes, loads: Callable[[bytes], object], name: str, fields: Fields) -> Job | None:
    """The job of an ordinary line; None for any other line."""
    try:
        said = loads(line)
        text = said[name]  # type: ignore[index]  # what is no object raises TypeError
        given = said.get(fields.id)  # type: ignore[attr-defined]
    except (ValueError, TypeError, KeyError):
        return None
    if text_fault(text) is not None:
        return None
    if given is None:
        return Job(default_id(text), text) if "." not in fields.id else None
    if type(given) is int:
        return Job(str(given), text)
    if type(given) is str and 0 < len(given) <= _SHORT_ID:
        return None if fields.no_pieces and "#" in given else Job(given, text)
    return None


def _careful(line: bytes, fields: Fields) -> Job:
    """The job of a line that is not blank. Raises Unfit."""
    said = _parsed(decoded(line))
    if not isinstance(said, dict):
        raise Unfit(f"not a JSON object but {kind(said)}")
    return fields.job(said)


def _parsed(line: str) -> object:
    try:
        return json.loads(line, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} (character {error.pos + 1})"
    except ValueError as error:  # a constant, or a whole number of thousands of digits
        reason = str(error)
    except RecursionError:
        reason = "nested too deeply"
    raise Unfit(f"malformed JSON: {reason}")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
