"""Texts: what a program enqueues, as jobs and rejections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from datetime import time as dtime
from decimal import Decimal
from typing import Protocol, Union, cast
from uuid import UUID

from ..types import Job, Rejection
from .errors import CorpusError, Unfit
from .fields import make_job

Text = Union[str, "tuple[str | int | None, str]", Job, "Mapping[str, object]"]
"""What can be enqueued: a text, an (id, text) pair, a Job, or a mapping with `text` and `id`."""


class ArrowTable(Protocol):
    """A table with the columns `text` and `id`: a DataFrame of pandas or polars, an Arrow table."""

    def __arrow_c_stream__(self, requested_schema: object = None, /) -> object: ...


Texts = Union["Iterable[Text]", ArrowTable]

_AS_TEXT = (date, dtime, timedelta, Decimal, UUID)  # in the kept fields of rows, as in Parquet


def text_lines(texts: Texts, *, no_pieces: bool) -> Iterator[Job | Rejection]:
    """The job or the rejection of each text. Raises TypeError for anything else.

    `no_pieces`: an id that looks like that of a piece is rejected.
    """
    # A column gives Arrow data too, but is iterated over as any texts are.
    if hasattr(texts, "__arrow_c_stream__") and (
        hasattr(texts, "columns") or hasattr(texts, "schema")
    ):
        with suppress(ImportError):  # without pyarrow, a table is refused
            from .rows import table_lines

            try:
                return table_lines(texts, no_pieces=no_pieces)
            except CorpusError as error:
                what = str(error).rpartition(": ")[0]  # behind it is an option of vec-enqueue
                raise TypeError(f"{what}: leave it out, convert it, or rename one") from None
    _check_texts(texts)
    return _each(cast("Iterable[Text]", texts), no_pieces)


def _check_texts(texts: object) -> None:
    """Raises TypeError for what can be iterated, and gives something else than texts."""
    if isinstance(texts, (str, bytes)):
        raise TypeError("texts is one string: put it into a list")
    if isinstance(texts, Mapping):
        raise TypeError("texts is a mapping: for (id, text) pairs, enqueue its items()")
    if hasattr(texts, "columns"):
        raise TypeError(
            "texts is a table, which gives the names of its columns: enqueue its rows, such as "
            'df[["id", "text"]].to_dict("records"), or one column, such as df["text"]; or '
            'pip install "vector-embed-cache-client[parquet]" for what gives Arrow data'
        )


def _each(texts: Iterable[Text], no_pieces: bool) -> Iterator[Job | Rejection]:
    for number, item in enumerate(texts, 1):
        id, text, meta = _parts(item, number)
        try:
            yield make_job(id, text, meta, no_pieces=no_pieces)
        except Unfit as unfit:
            yield unfit.rejection(number, str(text)[:1000].encode(errors="backslashreplace"))


def _parts(item: Text, number: int) -> tuple[object, object, Mapping[str, object]]:
    """The id, the text and the meta of an item. Raises TypeError."""
    if isinstance(item, str):
        return None, item, {}
    if isinstance(item, Job):
        return item.id, item.text, {} if item.meta is None else item.meta
    if isinstance(item, tuple):
        if len(item) != 2:
            raise TypeError(
                f"text {number} is a tuple of {len(item)}: a pair is (id, text); to keep other "
                "fields, enqueue Job(id, text, meta)"
            )
        return item[0], item[1], {}
    if isinstance(item, Mapping):
        if "text" not in item:
            fields = ", ".join(map(repr, item)) or "no field"
            raise TypeError(f"text {number} is a mapping without 'text': it has {fields}")
        meta = {
            name: str(value) if isinstance(value, _AS_TEXT) else value
            for name, value in item.items()
            if name not in ("id", "text")
        }
        return item.get("id"), item["text"], meta
    return None, item, {}
