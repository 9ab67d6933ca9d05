"""Packed bytes, unpacked while they are read: gzip, bzip2, xz, zstandard.

Whatever the data claims, memory stays bounded: 128 MB for a window of xz or zstandard, and what is
asked for.
"""

from __future__ import annotations

import bz2
import gzip
import io
import sys
import zlib
from typing import Any, BinaryIO, Callable, Protocol, cast

from .errors import CorpusError, NotInstalled, one_line
from .path import PACKINGS

MAGIC = {
    ".gz": (b"\x1f\x8b",),
    ".bz2": (b"BZh",),
    ".xz": (b"\xfd7zXZ\0",),
    ".zst": (b"(\xb5/\xfd", *(bytes([0x50 + number]) + b"*M\x18" for number in range(16))),
}
_WINDOW_BYTES = 128 * 1024 * 1024  # xz -9 takes half; zstandard has this limit by itself
_READ_BYTES = 64 * 1024


class Damaged(Exception):
    """The packed data is not what it should be."""


class Unpacked(Protocol):
    """Unpacked bytes."""

    def read1(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end. Raises EOFError if it comes too early; Damaged;
        OSError.
        """


def unpack(packing: str, file: BinaryIO, name: str) -> Unpacked:
    """What unpacks the file. Raises CorpusError if it is not packed so."""
    try:
        start = cast(io.BufferedReader, file).peek(8)
    except OSError as error:
        raise CorpusError(f"{name} cannot be read: {error.strerror or error}") from None
    if not start.startswith(MAGIC[packing]):
        raise CorpusError(f"{name} is not {PACKINGS[packing]} data: name it without {packing}")
    return _Gzip(file) if packing == ".gz" else _Members(file, *_unpacker(packing, name))


class _Gzip:
    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file, mode="rb")

    def read1(self, size: int, /) -> bytes:
        try:
            return self._file.read1(size)
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Damaged(error) from None


class _Members:
    """Packed members, one after the other."""

    def __init__(
        self, file: BinaryIO, new: Callable[[], Any], failures: tuple[type[Exception], ...]
    ) -> None:
        self._file = file
        self._new = new
        self._failures = failures
        self._member = new()

    def read1(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self._member.eof:
                data = self._member.unused_data
                while not (data := data.lstrip(b"\0")):  # the padding of xz
                    if not (data := self._file.read(_READ_BYTES)):
                        return b""
                self._member = self._new()
            elif self._member.needs_input and not (data := self._file.read(_READ_BYTES)):
                raise EOFError
            try:
                unpacked: bytes = self._member.decompress(data, size)
            except self._failures as error:
                raise Damaged(one_line(error)) from None
            if unpacked:
                return unpacked


def _unpacker(packing: str, name: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    """What makes the unpacker of a member, and how that fails."""
    if packing == ".bz2":
        return bz2.BZ2Decompressor, (OSError, ValueError)
    if packing == ".xz":
        import lzma

        limited = lambda: lzma.LZMADecompressor(memlimit=_WINDOW_BYTES)  # noqa: E731
        return limited, (lzma.LZMAError, EOFError)
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise NotInstalled(
            f"{name}: reading .zst needs Python 3.10 and backports.zstd:"
            ' pip install "vector-embed-cache-client[zst]"'
        ) from None
    return zstd.ZstdDecompressor, (zstd.ZstdError, EOFError)
