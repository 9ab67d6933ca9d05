"""The bytes of a file at an address, read through fsspec in blocks.

While one block is used, the next is fetched: at most two are held. A block that does not arrive is
asked for again on a new connection, and smaller. Before a block is used, the server is asked
whether the file is still the same, so that two versions of it are never mixed.

What a server cannot give in parts is read as one stream: after a break it is begun again, and
what was used is skipped. Where nothing tells one version from another, it is not.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any, BinaryIO, NamedTuple, cast

from ..errors import BrokenOff, CorpusError
from .connection import PATIENCE, TRIES, Connection, in_thread

BLOCK_BYTES = 4 * 1024 * 1024
_LEAST_BYTES = 4 * 1024
_FIRST_BYTES = 256 * 1024
_BUFFER_BYTES = 128 * 1024
_GRACE = 5.0  # seconds for a last answer
_TRIES_LATER = 9  # without progress, after something was read: 20 seconds
_VERSIONS = (  # fields of what drivers say of a file, the surest first
    *("etag", "md5hash", "contentmd5", "digest", "checksum", "generation", "blobid", "sha"),
    *("lastmodified", "mtime", "modified", "updated", "modificationtime", "modify", "created"),
)


class Facts(NamedTuple):
    """What tells one version of a file from another."""

    size: int | None
    version: str | None


class Changed(OSError):
    """The file is not the one that was begun."""


class Broken(OSError):
    """The file cannot be read any further. The message is one line without secrets."""


def facts(said: Mapping[str, Any]) -> Facts:
    """What a driver says of a file."""
    fields = {re.sub("[^a-z0-9]", "", name.lower()): value for name, value in said.items()}
    size = fields.get("size")
    known = next((fields[name] for name in _VERSIONS if fields.get(name)), None)
    return Facts(size, None if known is None else f"{known}-{size}")


class Remote(io.RawIOBase):
    """A file at an address. Raises CorpusError if it cannot be opened, and Broken later."""

    def __init__(self, connection: Connection, path: str | None, known: Facts) -> None:
        self.broken: str | None = None  # why it cannot be read any further
        self._connection = connection
        self._path = path
        self._facts = known if None not in known else None  # of the version that is read
        self._session: _Session | None = None
        self._streams = False
        self._ahead: Future[tuple[_Session, bytes]] | None = None
        self._block = memoryview(b"")
        self._at = 0  # behind the block
        self._count = _FIRST_BYTES
        self._ended = False
        self._used = False
        self._block = self._next()

    @property
    def size(self) -> int | None:
        """In bytes; None if the server does not say."""
        return None if self._facts is None else self._facts.size

    @property
    def in_any_order(self) -> bool:
        """Whether parts of it can be asked for."""
        return self.size is not None and not self._streams

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes, but `seek` is dear."""
        return True

    def tell(self) -> int:
        """How many bytes lie before the next one."""
        return self._at - len(self._block)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Continue elsewhere."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.size or 0}[whence]
        if base + offset != self.tell():
            self._stop()
            self._at, self._block, self._ended = base + offset, memoryview(b""), False
        return self.tell()

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, at least with one byte unless the file ends. Raises Broken."""
        if self.broken is not None:
            raise Broken(self.broken)
        if not self._block and not self._ended:
            try:
                self._block = self._next()
            except CorpusError as error:
                self.broken = str(error).removeprefix(self._connection.shown).lstrip(": ")
                raise Broken(self.broken) from None
        if self._used and self._ahead is None and not self._ended:
            self._ask()  # not at the first bytes: they may be all that is wanted
        self._used = True
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._block))
        view[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def close(self) -> None:
        """Leave it. What is under way ends by itself."""
        if not self.closed:
            self._stop()
            super().close()

    def _stop(self) -> None:
        """Leave the open file; and the connection, if a thread still waits for it."""
        session, ahead, self._session, self._ahead = self._session, self._ahead, None, None
        last: Future[Any] | None = ahead
        if last is None and session is not None:
            last = in_thread(session.close)
        if last is not None and wait([last], _GRACE).not_done:
            self._connection.drop()

    def _ask(self) -> Future[tuple[_Session, bytes]]:
        at, count, known, session = self._at, self._count, self._facts, self._session
        made = self._connection, self._path, self._streams

        def fetch() -> tuple[_Session, bytes]:
            reader = session or _Session(*made, known)
            try:
                return reader, reader.read(at, count)
            except Exception:
                reader.close()
                raise

        self._ahead = in_thread(fetch)
        return self._ahead

    def _next(self) -> memoryview:
        """The next block; empty at the end. Raises CorpusError."""
        failures = 0
        while not self.closed:
            try:
                self._session, data = (self._ahead or self._ask()).result(PATIENCE)
            except Exception as error:
                self._stop()
                if isinstance(error, _NoParts):
                    self._streams = True
                    continue
                if not self._used:
                    self._facts = None
                elif isinstance(error, Changed) or self._facts == (self.size, None):
                    raise self._lost(error) from None
                self._count = max(_LEAST_BYTES, self._count // 4)
                tries = _TRIES_LATER if self._used else TRIES
                failures = self._connection.after(error, failures, tries)
                continue
            self._ahead = None
            self._facts = self._session.facts
            self._streams = self._session.streams
            self._at += len(data)
            self._ended = not data or self._at == self.size
            self._count = min(BLOCK_BYTES, self._count * 2)
            return memoryview(data)
        raise ValueError("it is closed")

    def _lost(self, error: Exception) -> BrokenOff:
        reason = "it was changed while it was read"
        if not isinstance(error, Changed):
            reason = self._connection.reason(error)
            reason += "; the server does not say whether it is still the same file"
        return BrokenOff(self._connection.shown, reason)


class RemoteFile(io.BufferedReader):
    """The same, as other open files are."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(remote, _BUFFER_BYTES)
        self.remote = remote


class _NoParts(OSError):
    """The server gives the file as a whole only."""


class _Session:
    """An open file on one connection. It is used by one thread at a time."""

    def __init__(
        self, connection: Connection, path: str | None, streams: bool, known: Facts | None
    ) -> None:
        self._system, own = connection.system()
        self._path = own if path is None else path
        self.facts = known or self._look()
        self.streams = streams or (self.facts.size is None or self.facts.version is None)
        self._position = 0
        self._checked = False
        if self.facts.size == 0:
            return
        options: dict[str, Any] = {"cache_type": "none"}
        kinds = self._system.protocol
        if {"http", "s3"}.intersection([kinds] if isinstance(kinds, str) else kinds):
            options["size"] = self.facts.size  # so that they do not ask again
        if self.streams:
            options = {"block_size": 0} if "http" in kinds else {}
        self._file = self._system.open(self._path, "rb", **options)

    def read(self, at: int, count: int) -> bytes:
        """Some bytes from there on, none at the end. Raises whatever the driver does."""
        size = self.facts.size
        if size is not None and not (count := min(count, size - at)):
            return b""
        if self.streams:
            data = self._streamed(at, count)
        else:
            self._file.seek(at)
            try:
                data = self._file.read(count)
            except ValueError as error:
                if "range" in str(error):
                    raise _NoParts(str(error)) from None
                raise
        if not data and size is not None:
            raise OSError(f"it ends after {at:,} of {size:,} bytes")
        if not (self.streams and self._checked) and self.facts.version is not None:
            self._check()
        return data

    def close(self) -> None:
        """Close it, as far as that can be done."""
        if self.facts.size != 0:
            self._file.close()

    def _streamed(self, at: int, count: int) -> bytes:
        while self._position < at:
            self._position += len(self._some(min(BLOCK_BYTES, at - self._position)))
        parts, left = [], count
        try:
            while left and (part := self._file.read(left)):
                parts.append(part)
                left -= len(part)
        except Exception:
            if not parts:
                raise
        self._position += count - left
        return b"".join(parts)

    def _some(self, count: int) -> bytes:
        data: bytes = self._file.read(count)
        if not data:
            raise Changed("it has become shorter")
        return data

    def _check(self) -> None:
        if self._look() != self.facts:
            raise Changed("it was changed")
        self._checked = True

    def _look(self) -> Facts:
        self._system.invalidate_cache()
        said = self._system.info(self._path)
        if said.get("type") == "directory":
            raise IsADirectoryError("it is a folder: end its name with /")
        return facts(said)


def opened(connection: Connection, path: str | None, known: Facts) -> BinaryIO:
    """The file for reading. Raises CorpusError."""
    return cast(BinaryIO, RemoteFile(Remote(connection, path, known)))
