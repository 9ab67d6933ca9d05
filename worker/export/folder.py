"""A folder of exported vectors: complete files, named after the vectors in them.

`wiki-000000000001-000000010000.parquet` holds vectors of the collection wiki from the first to the
last of these numbers, which count its commits. In the order of the names, the vectors are in the
order in which they were stored; if an id comes twice, the later one is valid. A file is written
under another name, flushed to the disk, and renamed. Other files in the folder are left alone.

`wiki-000000000101-000000000150.tombstones` holds ids that were deleted, as JSON lines, with numbers
of the same order: vectors of the id with lower numbers are deleted. It may be written before those
vectors, or long after others with higher numbers.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from ..corpus.path import shown
from ..layout import Layout
from ..local.lock import Lock
from ..types import Position, Stored
from .files import FORMATS, ExportError, check_format, whole_file, write_as
from .sink import Part, Rotation, Watermarks

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]  # looked at before each use

_ROWS = 4096  # read at once
_TOMBSTONES = "tombstones"  # the suffix of their files

T = TypeVar("T", Stored, Position)


class File(NamedTuple):
    """A file of the folder, and the numbers of its first and last vector."""

    path: Path
    first: int
    last: int


class Folder:
    """A sink: the files of `collection` in the folder `path`.

    `format` is jsonl or parquet. Default: as the name of the folder ends, else as the files in it,
    else jsonl. Raises ExportError if that format cannot be written.
    """

    def __init__(
        self,
        path: str,
        collection: str,
        format: str | None = None,
        rotation: Rotation | None = None,
    ) -> None:
        self.path = Path(path)
        self.collection = collection
        self.rotation = rotation or Rotation()
        self._life = self.path / f".{collection}.life"  # which life of the collection it holds
        self._layout = self.path / f".{collection}.layout"  # of its vectors, if they are smaller
        self._part = self.path / f".{collection}.part"
        self._tombstones_part = self.path / f".{collection}.tombstones.part"
        self._name = rf"{re.escape(collection)}-(\d{{12,}})-(\d{{12,}})"
        self._file: BinaryIO | None = None
        self._read: tuple[File | None, set[Position]] = None, set()  # the last file that was read
        if self.path.exists() and not self.path.is_dir():
            raise ExportError(f"{self} is a file: name a folder for the files")
        self.format = format or self._usual_format()
        check_format(str(self), self.format)

    def __str__(self) -> str:
        return shown(str(self.path))

    @contextmanager
    def locked(self) -> Iterator[str]:
        """Make the folder if it does not exist, and lock it. Yields the folder's own token."""
        try:
            self.path.mkdir(exist_ok=True)
            lock = Lock(self.path / f".{self.collection}.lock")
        except OSError as error:
            raise ExportError(f"{self} cannot be written: {error.strerror}") from None
        with lock:
            if not lock.take():
                raise ExportError(f"another vec export writes {self.collection} to {self}")
            self._part.unlink(missing_ok=True)
            self._tombstones_part.unlink(missing_ok=True)
            token = lock.path.read_text()
            if not token:
                token = secrets.token_hex(8)
                lock.path.write_text(token)
            yield token

    def files(self) -> list[File]:
        """The files with vectors of the collection, in the order of their numbers."""
        return self._files("|".join(FORMATS))

    def graves(self) -> list[File]:
        """The files with tombstones, in the order of their numbers."""
        return self._files(_TOMBSTONES)

    def watermarks(self) -> Watermarks:
        """The highest numbers in the names of the files."""
        files = self.files()
        vectors = max((file.last for file in files), default=0)
        tombstones = max((file.last for file in self.graves()), default=0)
        presumed = files[-1].first - 1 if files and self.life is None else 0
        return Watermarks(vectors, tombstones, presumed)

    def positions(self, above: int = 0) -> Iterator[Position]:
        """Which vectors the files hold, in the order of their numbers."""
        return _read(read_positions, self.files(), above)

    def tombstones(self, above: int = 0) -> Iterator[Position]:
        """Which tombstones the files hold, in the order of their numbers."""
        return _read(read_tombstones, self.graves(), above)

    def holds(self, positions: Sequence[Position]) -> list[bool]:
        """Which of these vectors are in a file. One file at a time is in memory."""
        files = self.files()
        return [self._holds(files, position) for position in positions]

    def _holds(self, files: Sequence[File], position: Position) -> bool:
        for file in files:
            if file.first <= position.number <= file.last:
                if self._read[0] != file:
                    self._read = file, set(read_positions(file))
                if position in self._read[1]:
                    return True
        return False

    def finish(self) -> None:
        """The files are complete as they are."""

    def _files(self, suffixes: str) -> list[File]:
        if not self.path.is_dir():
            return []
        found = []
        for path in self.path.iterdir():
            if match := re.fullmatch(rf"{self._name}\.({suffixes})", path.name):
                found.append(File(path, int(match[1]), int(match[2])))
        return sorted(found, key=lambda file: (file.first, file.last))

    @property
    def life(self) -> bytes | None:
        """The life of the collection that was exported last; None if it was not noted."""
        return self._noted(self._life)

    def _noted(self, path: Path) -> bytes | None:
        """What was noted in a file of the folder; None if it is not there."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = f"{shown(str(path))} cannot be read: {error.strerror}"
            raise ExportError(reason) from None

    def note_life(self, born: bytes) -> None:
        """Note which life of the collection is exported from now on."""
        if self.life != born:
            with whole_file(self._part, str(self.path), lambda: self._life) as file:
                file.write(born)

    def accept(self, born: bytes, layout: Layout) -> None:
        """Note which layout the vectors in the folder have, of this life or an earlier one.

        Raises ExportError if it has files with vectors of another one.
        """
        noted = (self._noted(self._layout) or b"").decode()
        if noted == str(layout):
            return
        if self.files():
            raise ExportError(
                f"{self} holds vectors of {self.collection} as {Layout.read('', noted).name}, and "
                f"they are stored as {layout.name} now: name a new folder"
            )
        with whole_file(self._part, str(self.path), lambda: self._layout) as file:
            file.write(str(layout).encode())

    @property
    def size(self) -> int:
        """The bytes written so far of the file that is being written."""
        return self._file.tell() if self._file else 0

    def write(self, records: Iterable[Stored]) -> Part | None:
        """Write numbered `records` to a file; None if there were none."""

        def fill(numbered: Iterable[Stored], file: BinaryIO) -> None:
            self._file = file
            try:
                write_as(self.format, numbered, file, positions=True)
            finally:
                self._file = None

        return self._write(self._part, self.format, records, fill)

    def write_tombstones(self, tombstones: Iterable[Position]) -> Part | None:
        """Write tombstones to a file; None if there were none."""

        def fill(numbered: Iterable[Position], file: BinaryIO) -> None:
            for number, id, _ in numbered:
                file.write(json.dumps({"id": id, "number": number}).encode() + b"\n")

        return self._write(self._tombstones_part, _TOMBSTONES, tombstones, fill)

    def _write(
        self,
        part: Path,
        suffix: str,
        rows: Iterable[T],
        fill: Callable[[Iterable[T], BinaryIO], None],
    ) -> Part | None:
        """A file of numbered rows, which is named after the first and the last number."""
        first = last = 0

        def numbered() -> Iterator[T]:
            nonlocal first, last
            for row in rows:
                last = row.number or 0
                first = first or last
                yield row

        def name() -> Path | None:
            path = self.path / f"{self.collection}-{first:012}-{last:012}.{suffix}"
            return path if last else None

        with whole_file(part, str(self.path), name) as file:
            fill(numbered(), file)
        path = name()
        return Part(shown(str(path)), first, last) if path else None

    def _usual_format(self) -> str:
        said = self.path.suffix[1:].lower()
        if said in FORMATS:
            return said
        files = self.files()
        return files[-1].path.suffix[1:] if files else FORMATS[0]


def parse_rotation(said: Sequence[str]) -> Rotation:
    """Read a rotation: `50000`, `64MB`, or both. Raises ExportError."""
    rotation = Rotation()
    for word in said:
        match = re.fullmatch(r"([1-9]\d*)(KB|MB|GB)?", word, re.IGNORECASE)
        if not match:
            raise ExportError(
                f"--rotate {word}: say a number of vectors, such as 50000, or a size, such as 64MB"
            )
        number, unit = int(match[1]), match[2]
        if unit:
            size = number * 1024 ** (1 + "KMG".index(unit[0].upper()))
            rotation = replace(rotation, bytes=size)
        else:
            rotation = replace(rotation, vectors=number)
    return rotation


def _read(
    read: Callable[[File], Iterator[Position]], files: Sequence[File], above: int
) -> Iterator[Position]:
    rows = chain.from_iterable(read(file) for file in files if file.last > above)
    return (position for position in rows if position.number > above)


def read_tombstones(file: File) -> Iterator[Position]:
    """The tombstones in a file."""
    with _readable(file) as path, path.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            yield Position(row["number"], row["id"], b"")


def read_positions(file: File) -> Iterator[Position]:
    """Which vectors a file holds."""
    with _readable(file) as path:
        if path.suffix == ".parquet":
            check_format(shown(str(path)), "parquet")
            yield from _parquet_positions(path)
        else:
            yield from _jsonl_positions(path)


@contextmanager
def _readable(file: File) -> Iterator[Path]:
    """The path of a file that is read in the block. Raises ExportError if it cannot be."""
    try:
        yield file.path
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ExportError):
            raise
        first = (str(error).splitlines() or ["it is damaged"])[0]
        raise ExportError(f"{shown(str(file.path))} cannot be read: {first}") from None


def _jsonl_positions(path: Path) -> Iterator[Position]:
    with path.open("rb") as lines:
        for line in lines:
            row = json.loads(line) if orjson is None else orjson.loads(line)
            if len(row["vector"]) != row["dimensions"]:
                raise ValueError(f"the vector of {row['id']!r} is cut short")
            yield Position(row["number"], row["id"], bytes.fromhex(row["digest"]))


def _parquet_positions(path: Path) -> Iterator[Position]:
    import pyarrow.parquet  # type: ignore[import-untyped]  # it ships no types

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=["number", "id", "digest"]):
            columns = batch.to_pydict()
            for number, id, digest in zip(columns["number"], columns["id"], columns["digest"]):
                yield Position(number, id, bytes.fromhex(digest))
