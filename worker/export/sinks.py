"""Which sink an output names, and what sinks hold of a collection.

An address names a database: `postgresql://...` or `qdrant://...`. Anything else is a folder.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..corpus.path import shown
from ..store.reader import Reader
from ..types import Position
from .files import FORMATS
from .folder import Folder
from .rows import EarlierLife, ExportError
from .sink import Rotation, Sink

_POSTGRESQL = ("postgresql", "postgres")
_QDRANT = ("qdrant", "qdrants")


def is_address(output: str) -> bool:
    """Whether an output is an address, and no file or folder."""
    return "://" in output


def sink_of(
    output: str,
    collection: str,
    *,
    format: str | None = None,
    rotation: Rotation | None = None,
    column: str | None = None,
    key: str | None = None,
) -> Sink:
    """The sink that an output names.

    `format` and `rotation` are those of a folder; `column` and `key` of a table that is there.
    Raises ExportError for an address of another kind, and if what it needs is not installed.
    """
    scheme = output.partition("://")[0].lower() if is_address(output) else ""
    if not scheme and re.match("(?i)(postgres|postgresql|qdrants?):|.*password=", output):
        raise ExportError("an address begins with postgresql:// or qdrant://")  # it has a password
    if scheme not in _POSTGRESQL and (column or key):
        raise ExportError("--into-column and --key go with an address postgresql://...")
    if key and not column:
        raise ExportError("--key goes with --into-column")
    if not scheme:
        return Folder(output, collection, format, rotation)
    if format or rotation:
        raise ExportError("--format and --rotate are for the files of a folder")
    if scheme in _POSTGRESQL:
        try:
            from .pgvector import PgVector
        except ImportError:
            raise _missing("postgresql://", "psycopg", "postgres") from None
        return PgVector(output, collection, column, key)
    if scheme in _QDRANT:
        from .qdrant import Qdrant

        return Qdrant(output, collection)
    raise ExportError(
        f"{scheme}://: unknown kind of address: name a folder, postgresql://... or qdrant://..."
    )


def _missing(what: str, package: str, extra: str) -> ExportError:
    return ExportError(f'{what} needs {package}: pip install "vector-embed-cache-client[{extra}]"')


def read_sinks(
    outputs: Iterable[str], reader: Reader, *, pending: bool = True
) -> Iterator[Position]:
    """Which vectors and tombstones sinks hold of a collection, in the order of their numbers.

    After a shrink its files are in several folders; what is in two of them comes twice. With
    `pending`, tombstones that no sink has yet come too. Memory stays flat. Raises ExportError if a
    sink holds nothing of the collection, or another life of it, and for a file that cannot be read.
    """
    parts = [reader.tombstones(0)] if pending else []
    for output in outputs:
        sink = _sink_with(output, reader)
        parts += [sink.positions(), sink.tombstones(0)]
    yield from heapq.merge(*parts, key=lambda position: position.number)


def _sink_with(output: str, reader: Reader) -> Sink:
    """A sink that holds this life of a collection. Raises ExportError."""
    name = reader.name
    if not is_address(output) and not Path(output).is_dir():
        raise ExportError(f"{shown(output)}: there is no such folder")
    sink = sink_of(output, name, format=None if is_address(output) else FORMATS[0])
    if not sink.watermarks().vectors:
        raise ExportError(f"{sink} holds no exported vectors of {name}")
    if sink.life not in (None, reader.born()):
        where = sink if is_address(output) else f"{sink}/"
        raise EarlierLife(str(sink), name, str(where))
    return sink
