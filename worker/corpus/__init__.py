"""A corpus: texts in files, read as a stream of jobs and rejections.

If what a path names cannot be read as a whole, opening it raises CorpusError. After that nothing
raises: a line that cannot become a job becomes a Rejection with its line number, and the next line
is read. Every line is a job, a rejection, or blank. A file of several that cannot be read is one
rejection.

Memory does not grow with the files or with a line: at most MAX_LINE_BYTES of a line are held, and
parquet is read a thousand rows at a time.

`sources` finds the files that a path names. `stream` reads the bytes of one, and unpacks them.
`formats` makes lines of them, and finds the fields of a line. `fields` decides whether these make a
job. `sources/query` is a source of rows, `result` reads them, and `cells` finds their fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

from ..types import Job, Rejection
from .errors import BrokenOff, CorpusError, NotInstalled
from .fields import MAX_ID_BYTES, MAX_META_BYTES, MAX_META_DEPTH
from .formats import SUFFIXES, Lines, kind_of, reader, suffix_of
from .lines import MAX_LINE_BYTES
from .path import collection_name, shown, split, stem
from .reading import Reading
from .result import Result
from .sources import File, Local, Source, find_source
from .sources.query import Query
from .spill import Distinct
from .stream import Stream

__all__ = [
    "MAX_ID_BYTES",
    "MAX_LINE_BYTES",
    "MAX_META_BYTES",
    "MAX_META_DEPTH",
    "Corpus",
    "CorpusError",
    "File",
    "Query",
    "Reading",
    "Source",
    "collection_name",
    "files",
    "find_source",
    "paths",
    "stem",
]


_WAY_OUT = "; mend the file, or leave it out: name the others by a pattern"


def files(source: Source) -> Iterator[File]:
    """The files that are read of a source."""
    for file in source.files():
        if isinstance(file, File) and not (source.many and suffix_of(file.path) is None):
            yield file


def paths(source: Source) -> Iterator[str]:
    """The files of this machine that are read of a source."""
    return (file.path for file in files(source)) if isinstance(source, Local) else iter(())


class Corpus:
    """A source, or what a path names, opened: a file, a folder, a query. Iterate over it once.

    A packed `.parquet` or `.arrow` is unpacked when it is opened, because it is read from its end.
    `begin` is asked before each file is opened whether to read it.

    Raises CorpusError if it cannot be read.
    """

    def __init__(
        self,
        source: Source | str,
        reading: Reading | None = None,
        begin: Callable[[File], bool] = lambda file: True,
    ) -> None:
        self.source = find_source(source) if isinstance(source, str) else source
        self.size: int | None = 0  # bytes as stored (packed); None if unknown
        self._fault: str | None = None  # of the files that are read
        self._broken = False
        self.skipped: Counter[str] = Counter()  # files of other kinds, by suffix
        self._reading = reading or Reading()
        self._begin = begin
        self._done = 0  # bytes of the files that are done
        self._found = Distinct()  # paths of files, at first and while they are read
        self._documents = self.source.documents or self._reading.whole_files
        self._stream: Stream | Result | None = None
        self._parts: Iterator[Lines] | None
        if isinstance(self.source, Query):
            self._stream = result = Result(self.source, self._reading)
            self._parts = iter([self._long(result)])
            self.size = result.size
        elif self.source.many:
            self._look()
            self._parts = self._all()
        else:
            (only,) = self.source.files()
            assert isinstance(only, File)
            if not begin(only):
                self._parts = iter(())
                self.size = self._done = only.size or 0
                return
            self._parts = iter([self._open(only, split(only.path)[1])])
            assert self._stream is not None
            self.size = self._stream.size

    @property
    def position(self) -> int:
        """How many bytes of the files, as stored (packed), have been read."""
        return self._done + (0 if self._stream is None else self._stream.position)

    def __iter__(self) -> Iterator[Job | Rejection]:
        return chain.from_iterable(self.parts())

    def parts(self) -> Iterator[Lines]:
        """The same for each file by itself, one after the other."""
        parts, self._parts = self._parts, None
        if parts is None:
            raise CorpusError(f"{shown(self.source.path)} was read already: open it again")
        return parts

    @property
    def fault(self) -> str | None:
        """Why a file could not be read to its end; None if all were."""
        return self._fault or (None if self._stream is None else _fault_of(self._stream))

    @property
    def broken(self) -> str | None:
        """The line for an address or a query that was not read to its end; None if it was."""
        if self._broken or (self._stream is not None and self._stream.broken):
            todo = "mend that, then " if isinstance(self.source, Query) else ""
            return f"{shown(self.source.path)}: {self.fault}: {todo}run the same command again"
        return None

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> None:
        """Add up the files, before any is opened. Raises CorpusError if none can be read."""
        self._reading.check()
        size, suffixes, unread = 0, set(), None
        for file in self.source.files():
            if isinstance(file, Rejection):
                unread = unread or file
                continue
            suffix = suffix_of(file.path)
            if suffix is None:
                self.skipped[kind_of(file.path)] += 1
            else:
                self._found.add(file.path)
                size += file.size or 0
                suffixes.add(suffix)
        name = shown(self.source.path)
        if not suffixes and unread is not None:
            raise CorpusError(f"{unread.file}: {unread.reason}")
        if not suffixes:
            raise CorpusError(f"{name}: no file that can be read: name them {', '.join(SUFFIXES)}")
        for suffix in suffixes:
            reader(suffix, name, self._documents)
        self.size = size or None

    def _all(self) -> Iterator[Lines]:
        try:
            yield from self._each()
        except BrokenOff as error:
            self._broken = True
            yield self._unread(Rejection(1, None, error.reason, "", error.name))

    def _each(self) -> Iterator[Lines]:
        opened = Distinct()
        for file in self.source.files():
            if isinstance(file, Rejection):
                yield self._unread(file)
            elif (suffix := suffix_of(file.path)) is not None:
                name = shown(file.path)
                opened.add(file.path)
                self._found.add(file.path)
                if not self._begin(file):
                    self._done += file.size or 0
                    continue
                try:
                    lines = self._open(file, suffix)
                except (NotInstalled, BrokenOff):
                    raise
                except CorpusError as error:
                    reason = str(error).removeprefix(name).lstrip(": ")
                    yield self._unread(Rejection(1, None, reason, "", name), _WAY_OUT)
                else:
                    yield map(partial(_named, name), lines)
                    self._leave(name)
                    if self._broken:
                        return
        if gone := self._found.count() - opened.count():
            reason = f"{gone:,} of its files disappeared while it was read"
            yield self._unread(Rejection(1, None, reason, "", shown(self.source.path)))

    def _leave(self, name: str) -> None:
        """Close a file of several that was read."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._done += stream.position
            fault = _fault_of(stream)
            if fault is not None and self._fault is None:
                self._fault = f"{name}: {fault}"
            self._broken |= stream.broken
            stream.close()

    def _unread(self, rejection: Rejection, way_out: str = "") -> Lines:
        self._fault = self._fault or f"{rejection.file}: {rejection.reason}{way_out}"
        return iter([rejection])

    def _open(self, file: File, suffix: str) -> Lines:
        """The lines of a file. Raises CorpusError."""
        read = reader(suffix, shown(file.path), self._documents)
        stream = Stream(file)
        try:
            lines = self._long(read(stream, self._reading))
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return lines

    def _long(self, lines: Iterable[Job | Rejection]) -> Lines:
        return self._reading.long.apply(lines, "--long cut or --long split")


def _fault_of(stream: Stream | Result) -> str | None:
    """Why a file was not read as it is."""
    if stream.fault is None and isinstance(stream, Stream) and stream.changed:
        return "it was changed while it was read: run the same command again"
    return stream.fault


def _named(file: str, line: Job | Rejection) -> Job | Rejection:
    return line._replace(file=file) if isinstance(line, Rejection) else line
