"""An address, read through fsspec: `s3://bucket/wiki.jsonl`, `s3://bucket/docs/`, `hf://.../*.parquet`.

Its name alone says what it is: a pattern, a folder (it ends with `/`, or has no suffix) or a file.
A folder is listed as a local one, so it gives the same ids in the same order.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

from ...types import Rejection
from ..errors import BrokenOff, CorpusError
from ..path import is_address, is_http, shown, split
from .base import File
from .connection import Connection
from .remote import Facts, facts, opened

_DEPTH = 100
_FROM_THEIR_END = (".parquet", ".arrow", ".feather")


class _Entry(NamedTuple):
    """What is listed in a folder."""

    name: str
    written: str  # in an address: `%20` for a space
    path: str  # for the driver
    is_folder: bool
    facts: Facts


@dataclass(frozen=True)
class Address:
    """What an address names. `path` has no secrets."""

    path: str
    _connection: Connection = field(repr=False, compare=False)
    _parts: Sequence[str] = ()  # of a pattern, below the folders named in full
    documents: bool = False  # whether it is a folder

    @property
    def name(self) -> str:
        """The same."""
        return self.path

    @property
    def many(self) -> bool:
        """Whether it is a folder or a pattern."""
        return self.documents or bool(self._parts)

    @property
    def named(self) -> bool:
        """Whether it is a file."""
        return not self.many

    @property
    def once(self) -> bool:
        """Whether all of it is fetched before anything is known of it."""
        _, suffix, packing = split(self.path)
        return self.named and bool(packing) and suffix in _FROM_THEIR_END

    def files(self) -> Iterator[File | Rejection]:
        """The files. Raises CorpusError, at a folder only if the connection broke."""
        if self._parts:
            found = dict(self._matching("", self._own(), self._parts))
            yield from (found[below] for below in sorted(found))
        elif self.documents:
            yield from self._below("", self._own())
        else:
            known = self._connection.ask(_look)
            written = self.path.rpartition("/")[2]
            yield self._file("", _Entry(split_name(self.path), written, "", False, known))

    def _own(self) -> str:
        return self._connection.ask(lambda _, path: path)

    def _below(self, below: str, path: str) -> Iterator[File | Rejection]:
        for entry in self._entries(below, path):
            if isinstance(entry, Rejection):
                yield entry
            elif entry.name.startswith("."):
                continue
            elif not entry.is_folder:
                yield self._file(below, entry)
            elif below.count("/") == _DEPTH:
                reason = f"the folder is not read: it is {_DEPTH + 1} deep"
                yield Rejection(1, None, reason, "", self._where(below + entry.written))
            else:
                yield from self._below(f"{below}{entry.written}/", entry.path)

    def _matching(
        self, below: str, path: str, parts: Sequence[str]
    ) -> Iterator[tuple[str, File | Rejection]]:
        """What is below a folder and matches the parts of a pattern, by its path."""
        part, *rest = parts
        if part == "**":
            yield from self._matching(below, path, rest or ["*"])
        for entry in self._entries(below, path):
            if isinstance(entry, Rejection):
                yield below, entry
                continue
            if not fnmatchcase(entry.name, part) or entry.name.startswith(".") > (part[0] == "."):
                continue
            inner = f"{below}{entry.written}/"
            if entry.is_folder and part == "**":
                yield from self._matching(inner, entry.path, parts)
            elif entry.is_folder and rest:
                yield from self._matching(inner, entry.path, rest)
            elif not entry.is_folder and not rest and part != "**":
                file = self._file(below, entry)
                yield file.id, file

    def _entries(self, below: str, path: str) -> Iterator[_Entry | Rejection]:
        try:
            found = self._connection.ask(lambda system, _: _listed(system, path))
        except BrokenOff:
            raise
        except CorpusError as error:
            own, said = self._connection.shown, str(error)
            reason = said[len(own) :] if said.startswith(f"{own} ") else f" cannot be read: {said}"
            yield Rejection(1, None, f"the folder{reason}", "", self._where(below))
        else:
            yield from sorted(found)

    def _file(self, below: str, entry: _Entry) -> File:
        where = self._where(below + entry.written) if self.many else self.path
        connection = self._connection.called(where)
        size, version = entry.facts
        id = (unquote(below, errors="replace") if is_http(where) else below) + entry.name
        open = partial(opened, connection, entry.path or None, entry.facts)
        return File(where, id, open, size, version=version)

    def _where(self, below: str) -> str:
        root = self.path.split("/")
        if self._parts:
            root = root[: -len(self._parts)]
        return f"{'/'.join(root).rstrip('/')}/{below}"


def find(path: str) -> Address | None:
    """The address, if the path is one."""
    if not is_address(path):
        return None
    scheme, _, rest = path.partition("://")
    authority, slash, below = rest.partition("/")
    below = slash + below
    bare = re.split("[?#]", below)[0] if is_http(path) else below
    if glob.has_magic(bare):
        parts = bare.split("/")
        first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
        folder = f"{scheme}://{authority}" + "/".join(parts[:first]) + "/"
        return Address(shown(path), Connection(folder), tuple(filter(None, parts[first:])))
    is_folder = bare.endswith("/") or not bare or not (is_http(path) or split(path)[1])
    return Address(shown(path), Connection(path), documents=is_folder)


def split_name(path: str) -> str:
    """The name of a file at an address."""
    name = path.rpartition("/")[2]
    return unquote(name, errors="replace") if is_http(path) else name


def _look(system: Any, path: str) -> Facts:
    said = system.info(path)
    if said.get("type") == "directory":
        raise IsADirectoryError("it is a folder: end its name with /")
    return facts(said)


def _listed(system: Any, path: str) -> list[_Entry]:
    entries = []
    for said in system.ls(path, detail=True):
        own = str(said["name"])
        written = own.rstrip("/").rpartition("/")[2]
        if own.rstrip("/") == path.rstrip("/") or is_http(own) and "?" in own:
            continue
        if said["type"] == "link":
            try:
                said = system.info(own)
            except FileNotFoundError:  # opening it tells
                said = {"type": "file"}
        is_folder = said["type"] == "directory"
        if is_folder or said["type"] == "file":
            name = unquote(written, errors="replace") if is_http(own) else written
            entries.append(_Entry(name, written, own, is_folder, facts(said)))
    system.invalidate_cache()
    return entries
