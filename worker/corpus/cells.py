"""Cells: the values of a database's rows, as the fields of a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from ..types import Job
from .errors import Unfit
from .fields import Fields

Cell = Callable[[object], object]


class Cells:
    """What makes a job of a row. Raises CorpusError for a column that is missing or there twice."""

    def __init__(self, names: Sequence[str], fields: Fields, where: str) -> None:
        self._fields = fields
        self._cells: dict[str, tuple[int, Cell]] = {}  # by the column
        for name, column in fields.tops(names, where).items():
            read: Cell = _plain
            if name not in names:
                read = _nested
            elif fields.text.option == "--text-field" and name in fields.text.names:
                read = _text
            top = names[column]
            if read is not _plain or top not in self._cells:
                self._cells[top] = column, read

    def job(self, row: Sequence[object]) -> Job:
        """The job of a row. Raises Unfit."""
        return self._fields.job(self._said(row))

    def shown(self, row: Sequence[object]) -> bytes:
        """The row for a person to recognise."""
        said = self._said(row)
        cut = {
            name: value[:1000] if isinstance(value, str) else value for name, value in said.items()
        }
        try:
            return json.dumps(cut, default=str).encode()
        except (ValueError, RecursionError):
            return b""

    def _said(self, row: Sequence[object]) -> dict[str, object]:
        said = {name: read(row[column]) for name, (column, read) in self._cells.items()}
        for name, value in said.items():
            if isinstance(value, Unfit):
                said[name] = Unfit(f"column {name!r} cannot be read: {value.reason}")
        return said


def parsed(data: str | bytes) -> object:
    """A JSON value; an Unfit if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        return Unfit(f"malformed JSON: {error}")


def _plain(value: object) -> object:
    """The value as JSON has it: times, UUIDs and what else JSON does not know as text."""
    if isinstance(value, (str, int)) or value is None:
        return value
    if isinstance(value, float):  # pandas and others write missing numbers so
        return None if value != value else value
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _text(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, Unfit) else str(value)


def _text(value: object) -> object:
    """Text may be bytes. A number is no text, as in other formats."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            return Unfit(f"not UTF-8 at byte {error.start + 1}")
    return value


def _nested(value: object) -> object:
    """An object; where the database has no type for these, text is JSON."""
    value = _text(value)
    return parsed(value) if isinstance(value, str) else _plain(value)
