"""A remote file for reading in any order, while it is copied into a temporary file.

Parquet is read from its end, and then from its start, column by column. So the end is fetched
first, and the rest in order, in the background. A read waits for its bytes, and no longer. The
network is busy while a processor decodes, memory holds two blocks, and a read of a few bytes costs
no request. The temporary file disappears when it is closed, however the process ends.
"""

from __future__ import annotations

import io
import os
import tempfile
from threading import Condition, Thread
from typing import Any

from .errors import BrokenOff, CorpusError
from .sources.remote import Broken, RemoteFile

_TAIL_BYTES = 1024 * 1024
_COPIED_BYTES = 128 * 1024


class Spool(io.RawIOBase):
    """What was copied so far. Raises CorpusError if the end cannot be read."""

    def __init__(self, file: RemoteFile, name: str) -> None:
        size = file.remote.size
        assert size is not None
        self._size = size
        self._file = file
        self._at = 0
        self._changed = Condition()
        self._have = 0  # bytes from the start
        self._tail = max(0, size - _TAIL_BYTES)  # and from here
        self._fault: OSError | None = None
        try:
            self._copy = tempfile.TemporaryFile()  # noqa: SIM115
            file.seek(self._tail)
            self._put(self._tail, file.read())
            file.seek(0)
        except Broken as error:
            raise BrokenOff(name, _reason(error)) from None
        except OSError as error:
            raise CorpusError(f"{name}: {_reason(error)}") from None
        self._thread = Thread(target=self._fill, daemon=True)
        self._thread.start()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Let the next read begin there."""
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, unless the file ends. Raises OSError."""
        view = memoryview(buffer).cast("B")
        end = min(self._at + len(view), self._size)
        with self._changed:
            while self._have < end and self._at < self._tail:
                if self._fault is not None:
                    raise self._fault
                self._changed.wait()
            self._copy.seek(self._at)
            count = self._copy.readinto(view[: max(0, end - self._at)])
        self._at += count
        return int(count)

    def close(self) -> None:
        """Stop copying."""
        with self._changed:
            super().close()
            self._copy.close()
        self._file.remote.close()  # the buffer waits for the thread that fills it

    def _fill(self) -> None:
        try:
            while self._have < self._tail:
                data = self._file.read1(_COPIED_BYTES)
                if not self._put(self._have, data):
                    return
            with self._changed:
                self._have = self._size
                self._changed.notify_all()
        except Exception as error:  # whatever it is, a read must not wait for ever
            with self._changed:
                self._fault = OSError(_reason(error))
                self._changed.notify_all()

    def _put(self, at: int, data: bytes) -> bool:
        with self._changed:
            if self.closed:
                return False
            self._copy.seek(at)
            self._copy.write(data)
            if at == self._have:
                self._have += len(data)
            self._changed.notify_all()
        return True


def _reason(error: Exception) -> str:
    if isinstance(error, Broken):
        return f"the file cannot be read any further: {error}"
    said = getattr(error, "strerror", None) or error
    return f"no temporary file can be written: {said}: set TMPDIR to a directory with room"
