"""A source: the bytes of a file, unpacked if they are gzip.

It counts the bytes of the stored file that were read. A fault while reading ends the data with a
reason, not with an exception, so that everything before it counts.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import sys
import tempfile
import zlib
from typing import BinaryIO, cast

from .errors import CorpusError
from .path import shown

GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 128 * 1024  # more is slower: the lines leave the processor's cache


class Source:
    """The opened file of a path; `-` is standard input. Raises CorpusError if it cannot be read."""

    def __init__(self, path: str, packed: bool) -> None:
        self.name = shown(path)  # in messages
        self.position = 0  # of the last byte read, in the file as it is stored
        self.fault: str | None = None  # why reading ended early
        self._borrowed = path == "-"
        self._file = _open(path)
        try:
            self.size = None if self._borrowed else _size(self._file)  # None: unknown
            self._unpacked = self._gzip() if packed else None
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes:
        """The next bytes, at most READ_BYTES; empty at the end or at a fault."""
        if self.fault is not None:
            return b""
        try:
            if self._unpacked is None:
                data = cast(io.BufferedReader, self._file).read1(READ_BYTES)
                self.position += len(data)
            else:
                data = self._unpacked.read1(READ_BYTES)
                self.position = self._file.tell()
        except EOFError:
            self.fault = "the gzip file ends early: the rest is missing, fetch it again"
        except (gzip.BadGzipFile, zlib.error) as error:
            self.fault = f"the gzip data is damaged from here on ({error}): fetch it again"
        except OSError as error:
            self.fault = f"the file cannot be read any further: {error.strerror or error}"
        else:
            return data
        return b""

    def random_access(self) -> BinaryIO:
        """The file for reading in any order, in place of `read`. It is closed with the source. The
        reader sets `position`.

        Gzip goes into a temporary file that disappears when it is closed, however the process ends.
        Raises CorpusError if the gzip data is incomplete, or if there is no room to unpack it.
        """
        if self._unpacked is not None:
            packed, self._file = self._file, self._temporary()
            packed.close()
            self._unpacked, self.position = None, 0
        return self._file

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        if not self._borrowed:
            self._file.close()

    def _gzip(self) -> gzip.GzipFile:
        try:
            start = cast(io.BufferedReader, self._file).peek(len(GZIP_MAGIC))
        except OSError as error:
            raise CorpusError(f"{self.name} cannot be read: {error.strerror or error}") from None
        if not start.startswith(GZIP_MAGIC):
            raise CorpusError(f"{self.name} is not gzip data: name it without .gz")
        return gzip.GzipFile(fileobj=self._file, mode="rb")

    def _temporary(self) -> BinaryIO:
        try:
            with contextlib.ExitStack() as unless_whole:
                file = unless_whole.enter_context(tempfile.TemporaryFile())
                while data := self.read():
                    file.write(data)
                if self.fault is not None:
                    raise CorpusError(f"{self.name}: {self.fault}")
                file.seek(0)
                unless_whole.pop_all()
        except OSError as error:
            raise CorpusError(
                f"{self.name} cannot be unpacked into a temporary file: {error.strerror or error}:"
                " gunzip it, or set TMPDIR to a directory with room"
            ) from None
        return cast(BinaryIO, file)


def _open(path: str) -> BinaryIO:
    if path == "-":
        if sys.stdin is None:
            raise CorpusError("standard input is closed: name a file instead of -")
        return sys.stdin.buffer
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise CorpusError(f"{shown(path)} does not exist: check the name") from None
    except PermissionError:
        raise CorpusError(f"{shown(path)} may not be read: check its permissions") from None
    except (OSError, ValueError) as error:
        raise CorpusError(f"{shown(path)} cannot be opened: {error}") from None


def _size(file: BinaryIO) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
