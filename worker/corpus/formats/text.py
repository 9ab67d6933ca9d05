"""Plain text: one text per line, without ids."""

from __future__ import annotations

from collections.abc import Iterator

from ...types import Job, Rejection
from ..encoding import decoded
from ..errors import Unfit
from ..fields import make_job
from ..lines import Lines
from ..reading import Reading
from ..stream import Stream


def read(stream: Stream, reading: Reading) -> Iterator[Job | Rejection]:
    """The job or the rejection of each line that is not blank. Raises CorpusError."""
    return _texts(Lines(stream, reading.encoding))


def _texts(lines: Lines) -> Iterator[Job | Rejection]:
    for item in lines:
        if isinstance(item, Rejection):
            yield item
            continue
        number, line = item
        if not line or line.isspace():
            continue
        try:
            yield make_job(None, decoded(line).removesuffix("\r"), {})
        except Unfit as unfit:
            yield unfit.rejection(number, line)
