"""A stream: the bytes of one opened file, unpacked if they are packed.

It counts the bytes of the stored file that were read. A fault while reading ends the data with a
reason, not with an exception, so that everything before it counts.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from typing import BinaryIO, cast

from .errors import BrokenOff, CorpusError
from .packing import Damaged, unpack
from .path import PACKINGS, shown, split
from .sources import File
from .sources.remote import RemoteFile
from .spool import Spool

READ_BYTES = 128 * 1024  # more is slower: the lines leave the processor's cache


class Stream:
    """The opened file. Raises CorpusError if it cannot be read."""

    def __init__(self, file: File) -> None:
        self.name = shown(file.path)  # in messages
        self.id = file.id  # of the document that it may be
        self.position = 0  # of the last byte read, in the file as it is stored
        self.fault: str | None = None  # why reading ended early
        _, self.suffix, self._packing = split(file.path)
        self._borrowed = file.borrowed
        self._at_first: os.stat_result | None = None
        self._file = file.open()
        self._remote = self._file.remote if isinstance(self._file, RemoteFile) else None
        try:
            if self._remote is not None:
                self.size = self._remote.size
            else:
                self.size = None if self._borrowed else _size(self._file)  # None: unknown
                self._at_first = None if self.size is None else os.fstat(self._file.fileno())
            self._unpacked = unpack(self._packing, self._file, self.name) if self._packing else None
        except BaseException:
            self.close()
            raise

    def read(self) -> bytes:
        """The next bytes, at most READ_BYTES; empty at the end or at a fault."""
        if self.fault is not None:
            return b""
        packing = PACKINGS.get(self._packing)
        try:
            if self._unpacked is None:
                data = cast(io.BufferedReader, self._file).read1(READ_BYTES)
                self.position += len(data)
            else:
                data = self._unpacked.read1(READ_BYTES)
                self.position = self._file.tell()
        except EOFError:
            self.fault = f"the {packing} file ends early: the rest is missing, fetch it again"
        except Damaged as error:
            self.fault = f"the {packing} data is damaged from here on ({error}): fetch it again"
        except OSError as error:
            self.fault = f"the file cannot be read any further: {error.strerror or error}"
        else:
            return data
        return b""

    @property
    def broken(self) -> bool:
        """Whether the connection to the file broke, and could not be made again."""
        return self._remote is not None and self._remote.broken is not None

    @property
    def changed(self) -> bool:
        """Whether the file was written to since it was opened: it may be half of one."""
        if self._at_first is None:
            return False
        now = os.fstat(self._file.fileno())
        before = self._at_first
        return (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size)

    def random_access(self) -> BinaryIO:
        """The file for reading in any order, in place of `read`. It is closed with the stream. The
        reader sets `position`.

        Packed data goes into a temporary file that disappears when it is closed, however the
        process ends. Raises CorpusError if it is incomplete, or if there is no room to unpack it.
        So does a remote file, while it is read.
        """
        file = self._file
        if self._unpacked is None and isinstance(file, RemoteFile) and file.remote.in_any_order:
            self._file = cast(BinaryIO, Spool(file, self.name))
        elif self._unpacked is not None or isinstance(file, RemoteFile):
            packed, self._file = self._file, self._temporary()
            packed.close()
            self._at_first = None  # what is read from now on stays as it is
            self._unpacked, self.position = None, 0
        return self._file

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        if not self._borrowed:
            self._file.close()

    def _temporary(self) -> BinaryIO:
        try:
            with contextlib.ExitStack() as unless_whole:
                file = unless_whole.enter_context(tempfile.TemporaryFile())
                while data := self.read():
                    file.write(data)
                if self.fault is not None and self.broken:
                    raise BrokenOff(self.name, self.fault)
                if self.fault is not None:
                    raise CorpusError(f"{self.name}: {self.fault}")
                file.seek(0)
                unless_whole.pop_all()
        except OSError as error:
            raise CorpusError(
                f"{self.name} cannot be unpacked into a temporary file: {error.strerror or error}:"
                " unpack it, or set TMPDIR to a directory with room"
            ) from None
        return cast(BinaryIO, file)


def _size(file: BinaryIO) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
