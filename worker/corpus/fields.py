"""The fields of a line: which ones are wanted, and what they must hold to make a job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Callable, NamedTuple

from vector_embed_client.http import text_fault

from ..types import PIECE_FIELDS, Job, default_id, document_of
from .errors import CorpusError, Missing, MissingColumn, TooLong, Unfit

MAX_ID_BYTES = 1024
MAX_META_BYTES = 100_000  # of the kept fields as JSON: jobs are queued a thousand at a time
MAX_META_DEPTH = 100  # JSON encoders give up at 254


class TextOf(NamedTuple):
    """What the text of a line is made of: the names of fields, and their values to the text.

    A value that is missing, and a text that cannot be made, is an Unfit that says why.
    """

    names: tuple[str, ...]
    option: str  # that named them
    fill: Callable[[Sequence[object]], object]


def field_text(name: str) -> TextOf:
    """The text is one field."""
    return TextOf((name,), "--text-field", lambda values: values[0])


class Fields(NamedTuple):
    """The wanted fields of a line. A dot in a name leads into an object, unless a field has it."""

    text: TextOf
    id: str
    id_required: bool  # a table must have it; otherwise it may
    keep: tuple[str, ...]
    no_pieces: bool = False  # an id that looks like a piece's is refused

    def columns(self, names: Sequence[str], where: str) -> Columns:
        """The indices of the columns. Raises CorpusError for one that is missing or there twice."""
        has_id = self.id_required or self.id in names
        return Columns(
            self.text.fill,
            [_column(names, name, self.text.option, where) for name in self.text.names],
            _column(names, self.id, "--id-field", where) if has_id else None,
            {name: _column(names, name, "--keep", where) for name in self.keep},
            self.no_pieces,
        )

    def tops(self, names: Sequence[str], where: str) -> dict[str, int]:
        """The index of the column of each field; of a nested one, that of the object it is in.

        Raises CorpusError as `columns` does.
        """
        options = dict.fromkeys(self.text.names, self.text.option)
        options.update(dict.fromkeys(self.keep, "--keep"))
        tops = {name: name.partition(".")[0] for name in (*options, self.id)}
        if self.id_required or self.id in names or tops[self.id] in names:
            options[self.id] = "--id-field"
        return {
            name: _column(names, name if name in names or top not in names else top, option, where)
            for name, option in options.items()
            for top in [tops[name]]
        }

    def job(self, said: Mapping[str, object]) -> Job:
        """The job of an object. Raises Unfit."""
        given = find(said, self.id)
        text = self.text.fill([find(said, name) for name in self.text.names])
        kept = {name: find(said, name) for name in self.keep}
        meta = {name: value for name, value in kept.items() if not isinstance(value, Missing)}
        given = None if isinstance(given, Missing) else given
        return make_job(given, text, meta, no_pieces=self.no_pieces)


class Columns(NamedTuple):
    """The indices of the wanted columns, and what makes the text of theirs."""

    fill: Callable[[Sequence[object]], object]
    text: Sequence[int]
    id: int | None
    keep: Mapping[str, int]
    no_pieces: bool

    def job(self, row: Sequence[object]) -> Job:
        """The job of a row. Raises Unfit."""
        given = None if self.id is None else row[self.id]
        text = self.fill([row[at] for at in self.text])
        meta = {name: row[at] for name, at in self.keep.items()} if self.keep else {}
        return make_job(given, text, meta, no_pieces=self.no_pieces)


def find(said: Mapping[str, object], name: str) -> object:
    """The field of an object, nested ones by dots; a Missing if there is none."""
    inner: object = said
    rest = name
    while isinstance(inner, Mapping):
        if rest in inner:
            return inner[rest]
        head, _, rest = rest.partition(".")
        inner = inner.get(head)
    return inner if isinstance(inner, Unfit) else Missing(f"no field {name!r}")


def _column(names: Sequence[str], name: str, option: str, where: str) -> int:
    if names.count(name) == 1:
        return names.index(name)
    known = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    if name in names:
        raise CorpusError(f"{where} has more than one column {name!r}: rename one of {known}")
    raise MissingColumn(f"{where} has no column {name!r}: name one of {known} with {option}")


def make_job(
    given: object, text: object, meta: Mapping[str, object], *, no_pieces: bool = False
) -> Job:
    """The job of a line. `given` is its id, None if it has none. Raises Unfit.

    A value that is an Unfit could not be read. `no_pieces`: refuse an id that looks like a piece's,
    and kept fields that are a piece's.
    """
    id = read_id(given)
    if no_pieces:
        _check_no_piece(id, meta)
    if not isinstance(text, str):  # in JSON's words; the client library uses Python's
        if isinstance(text, Unfit):
            raise Unfit(text.reason, id)
        raise Unfit(f"text: not a string but {kind(text)}", id)
    too_long = text_fault(text)
    if too_long is not None and (reason := text_fault(text, len(text))) is not None:
        raise Unfit(f"text: {reason}", id)
    if meta != {} and (reason := _meta_fault(meta)) is not None:
        raise Unfit(f"kept fields: {reason}", id)
    job = Job(default_id(text) if id is None else id, text, meta or None)
    if too_long is not None:
        raise TooLong(f"text: {too_long}", id, job)
    return job


def _check_no_piece(id: str | None, meta: Mapping[str, object]) -> None:
    if id is not None and document_of(id)[1]:
        raise Unfit(f"id: {id!r} is like a piece's: rename it, or do not split long texts", id)
    for name in PIECE_FIELDS:
        if name in meta:
            raise Unfit(f"kept fields: pieces have their own {name!r}: do not keep it", id)


def read_id(given: object) -> str | None:
    """The id as a string; None if there is none. Raises Unfit."""
    if given is None:
        return None
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str):
        if isinstance(given, Unfit):
            raise given
        raise Unfit(f"id: neither a string nor a whole number but {kind(given)}")
    if not given:
        raise Unfit("id: empty")
    try:
        size = len(given.encode())
    except UnicodeEncodeError as error:
        raise Unfit(f"id: an unpaired surrogate at character {error.start + 1}") from None
    if size > MAX_ID_BYTES:
        raise Unfit(f"id: {size:,} bytes, more than {MAX_ID_BYTES:,}")
    return given


def _meta_fault(meta: Mapping[str, object]) -> str | None:
    if not isinstance(meta, Mapping):
        return f"not an object but {kind(meta)}"
    for value in meta.values():
        if isinstance(value, Unfit):
            return value.reason
    try:
        size = len(json.dumps(meta, ensure_ascii=False, allow_nan=False).encode())
        deep = _depth(meta) > MAX_META_DEPTH
    except UnicodeEncodeError:
        return "an unpaired surrogate"
    except TypeError:
        names = (name for name in meta if len(meta) == 1 or _meta_fault({name: meta[name]}))
        return f"{next(names, None)!r} has a value that JSON cannot hold"
    except ValueError:
        return "a number that is not finite"
    except RecursionError:
        size, deep = 0, True
    if deep:
        return f"nested more than {MAX_META_DEPTH} deep"
    if size > MAX_META_BYTES:
        return f"{size:,} bytes, more than {MAX_META_BYTES:,}"
    return None


def _depth(value: object) -> int:
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def kind(value: object) -> str:
    """The JSON name of a value, or its Python name if JSON has no such value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, Mapping) else type(value).__name__
