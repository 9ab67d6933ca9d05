"""What every table of vectors needs: its first record, rows of one length, an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from ..types import Stored


class ExportError(ValueError):
    """The export cannot be written. One line: what, which file, what to do."""


def first(records: Iterable[Stored]) -> tuple[Stored | None, Iterator[Stored]]:
    """The first record, and an iterator over all."""
    remaining = iter(records)
    one = next(remaining, None)
    return one, remaining if one is None else chain([one], remaining)


def check_dimensions(record: Stored, dimensions: int) -> None:
    """Raise ExportError for a record with other dimensions than those before it."""
    if record.dimensions != dimensions:
        raise ExportError(
            f"id {record.id!r} has {record.dimensions} dimensions and those before it {dimensions}:"
            " only .jsonl can hold both"
        )
