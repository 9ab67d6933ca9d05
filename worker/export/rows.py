"""What every table of vectors needs: its first record, rows of one kind, an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..types import Stored


class ExportError(ValueError):
    """The export cannot be written. One line: what, which file, what to do."""


class EarlierLife(ExportError):
    """What was exported is of an earlier life of the collection."""

    def __init__(self, sink: str, collection: str, output: str) -> None:
        self.collection, self.output = collection, output
        self.what = (
            f"{sink} holds an earlier life of {collection}, which was dropped or lost since: first "
            "export what is stored now"
        )
        super().__init__(f"{self.what}, with vec export {collection} -o {output}")


def first(records: Iterable[Stored]) -> tuple[Stored | None, Iterator[Stored]]:
    """The first record, and an iterator over all.

    The iterator raises ExportError for a record with other dimensions or numbers of another type.
    """
    remaining = iter(records)
    one = next(remaining, None)
    return one, remaining if one is None else _alike(one, remaining)


def _alike(one: Stored, remaining: Iterator[Stored]) -> Iterator[Stored]:
    yield one
    for record in remaining:
        if record.dimensions != one.dimensions:
            raise ExportError(
                f"id {record.id!r} has {record.dimensions} dimensions and those before it"
                f" {one.dimensions}: only .jsonl can hold both"
            )
        if record.dtype != one.dtype:
            raise ExportError(
                f"id {record.id!r} is {record.dtype} and those before it {one.dtype}: the vectors"
                " were made smaller meanwhile: export again"
            )
        yield record
