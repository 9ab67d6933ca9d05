"""Texts: what a program enqueues, as jobs and rejections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from datetime import time as dtime
from decimal import Decimal
from typing import Any, Protocol, Union, cast
from uuid import UUID

from ..types import Job, Rejection
from .errors import CorpusError, MissingColumn, Unfit
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
                return table_lines(_with_index(texts), no_pieces=no_pieces)
            except MissingColumn as error:
                what = str(error).rpartition(" with --")[0]
                raise TypeError(what.replace(": name one", ": rename one")) from None
            except CorpusError as error:
                what = str(error).rpartition(": ")[0]  # behind it is an option of vec-enqueue
                raise TypeError(f"{what}: leave it out, or convert it") from None
    _check_texts(texts)
    return _each(cast("Iterable[Text]", _unformatted(texts)), no_pieces)


def _with_index(table: Any) -> object:
    """The table; with the ids, if they are the index of a DataFrame of pandas."""
    named = "id" in (getattr(getattr(table, "index", None), "names", None) or ())
    return table.reset_index() if named and "id" not in table.columns else table


def _unformatted(texts: Any) -> object:
    """The texts; if they are a dataset whose rows are arrays or tables, with rows of values."""
    format = getattr(texts, "format", None)
    if isinstance(format, dict) and format.get("type") not in (None, "python", "custom"):
        return texts.with_format(None, columns=format["columns"])
    return texts


def _check_texts(texts: object) -> None:
    """Raises TypeError for what can be iterated, and gives something else than texts."""
    if isinstance(texts, (str, bytes)):
        raise TypeError("texts is one string: put it into a list")
    if isinstance(texts, Mapping) and any(map(_is_table, texts.values())):
        names = ", ".join(map(repr, texts))
        raise TypeError(f"texts is a mapping of {names} to texts: enqueue one after the other")
    if isinstance(texts, Mapping):
        raise TypeError("texts is a mapping: for (id, text) pairs, enqueue its items()")
    if hasattr(texts, "collect"):
        raise TypeError("texts is a table that is not computed yet: enqueue its collect()")
    if hasattr(texts, "columns"):
        raise TypeError(
            "texts is a table, which gives the names of its columns: enqueue its rows, such as "
            'df[["id", "text"]].to_dict("records"), or one column, such as df["text"]; or '
            'pip install "vector-embed-cache-client[parquet]" for what gives Arrow data'
        )


def _is_table(texts: object) -> bool:
    return hasattr(texts, "column_names") or hasattr(texts, "columns")


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
        return _plain(item[0]), item[1], {}
    if isinstance(item, Mapping):
        if "text" not in item:
            fields = ", ".join(map(repr, item)) or "no field"
            raise TypeError(f"text {number} is a mapping without 'text': it has {fields}")
        meta = {name: _kept(value) for name, value in item.items() if name not in ("id", "text")}
        return _plain(item.get("id")), item["text"], meta
    return None, item.as_py() if hasattr(item, "as_py") else item, {}  # of an Arrow array


def _plain(value: Any) -> object:
    """A value of a row; a number or an array of numpy as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _kept(value: object) -> object:
    """A value of a row as JSON can hold it, if that is known."""
    value = _plain(value)
    if isinstance(value, (float, date)) and value != value:  # NaN, and pandas' NaT
        return None
    return str(value) if isinstance(value, _AS_TEXT) else value
