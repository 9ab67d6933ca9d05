"""UTF-8 out of the bytes of a stream, whatever their encoding.

A byte that is not in the encoding becomes one that is not in UTF-8, so it costs its line alone.
"""

from __future__ import annotations

import codecs

from .errors import CorpusError, Unfit
from .packing import MAGIC
from .path import PACKINGS
from .stream import Stream

_BROKEN = "\udcff"
_MARK = "\ufeff"  # decoded
# UTF-32-LE begins as UTF-16 does, so it comes first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PACKED = {suffix: MAGIC[suffix] for suffix in (".gz", ".xz", ".zst")}  # bzip2 begins with letters

codecs.register_error("vec-broken", lambda error: (_BROKEN, error.end))  # type: ignore[attr-defined]


class Utf8:
    """The bytes of a stream as UTF-8, without a byte order mark; read them once.

    Without an `encoding` they are what their byte order mark says, or UTF-8. Raises CorpusError if
    the encoding is not known, or the data is packed.
    """

    def __init__(self, stream: Stream, encoding: str | None) -> None:
        self._stream = stream
        start = stream.read()
        while len(start) < 4 and (more := stream.read()):  # a pipe may give a byte at a time
            start += more
        for suffix, magic in _PACKED.items():
            if start.startswith(magic):
                raise CorpusError(
                    f"{stream.name} is {PACKINGS[suffix]} data: unpack it, or add {suffix} to its"
                    " name"
                )
        marked = (encoding for mark, encoding in _MARKS.items() if start.startswith(mark))
        self._decoder = _decoder(encoding or next(marked, "utf-8"), start)
        self._mark = _MARK if self._decoder else ""
        self._start = start
        if self._decoder is None:
            self._start = start.removeprefix(codecs.BOM_UTF8)

    @property
    def fault(self) -> str | None:
        """Why reading ended early."""
        return self._stream.fault

    @fault.setter
    def fault(self, reason: str) -> None:
        self._stream.fault = reason

    def read(self) -> bytes:
        """The next bytes; empty at the end or at a fault."""
        if self._decoder is None:
            data, self._start = self._start, b""
            return data or self._stream.read()
        while True:
            data, self._start = self._start or self._stream.read(), b""
            text = self._decoder.decode(data, final=not data)
            if text and self._mark:
                text, self._mark = text.removeprefix(self._mark), ""
            if text or not data:
                return text.encode(errors="surrogatepass")


def check_encoding(encoding: str) -> None:
    """Raise CorpusError for an encoding that is not known."""
    _decoder(encoding)


def _decoder(encoding: str, start: bytes = b"") -> codecs.IncrementalDecoder | None:
    """What decodes the encoding of data that begins so; None for UTF-8. Raises CorpusError."""
    try:
        probe = "a".encode(encoding)  # raises LookupError for what is no encoding of text
        name = codecs.lookup(encoding).name
        if name in ("utf-8", "utf-8-sig"):
            return None
        marks = tuple(mark for mark, its in _MARKS.items() if its == name)
        if marks and not start.startswith(marks):
            name += "-le"  # as Windows writes it: Python wants a mark
        decoder = codecs.getincrementaldecoder(name)("vec-broken")
        decoder.decode(probe, final=True)  # some cannot go on after a byte that is wrong
        decoder.reset()
    except (LookupError, ValueError):
        raise CorpusError(
            f"--encoding {encoding}: not a known one: name one as utf-16, cp1252 or latin-1"
        ) from None
    return decoder


def decoded(line: bytes) -> str:
    """The text of a line. Raises Unfit if it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        if line.startswith(_BROKEN.encode(errors="surrogatepass"), error.start):
            raise Unfit("not in the encoding of the file: name it with --encoding") from None
        raise Unfit(
            f"not UTF-8 at byte {error.start + 1}: name the file's encoding with --encoding"
        ) from None
