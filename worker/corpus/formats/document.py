"""A document: a file that is one text. Its id is its path below the folder that was named."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...types import Job, Rejection
from ..encoding import Utf8, decoded
from ..errors import Unfit
from ..fields import make_job
from ..lines import MAX_LINE_BYTES
from ..reading import Reading
from ..stream import Stream


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of the file. Raises CorpusError."""
    return one(stream, Utf8(stream, reading.encoding), reading, decoded)


def one(
    stream: Stream, data: Utf8, reading: Reading, text_of: Callable[[bytes], str]
) -> Iterator[Job | Rejection]:
    """The job or the rejection of the file, of which `text_of` makes the text, or raises Unfit."""
    raw = bytearray()
    while len(raw) <= MAX_LINE_BYTES and (some := data.read()):
        raw += some
    try:
        if data.fault is not None:
            raise Unfit(data.fault, stream.id)
        if len(raw) > MAX_LINE_BYTES:
            raise Unfit(f"the file is longer than {MAX_LINE_BYTES:,} bytes", stream.id)
        try:
            text = text_of(bytes(raw))
        except Unfit as unfit:
            raise Unfit(unfit.reason, stream.id) from None
        yield make_job(stream.id, text, {}, no_pieces=reading.long.splits)
    except Unfit as unfit:
        yield unfit.rejection(1, bytes(raw[:4000]))
