"""Reading: what of a corpus is wanted, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .encoding import check_encoding
from .fields import Fields, field_text
from .long import Long
from .template import template_text

_REJECT = Long()


@dataclass(frozen=True)
class Reading:
    """How to read a corpus.

    `text_field` and `id_field` name the JSON field or the column, nested ones by dots. If an
    `id_field` is given, a table must have that column; the default is "id", if there is one.
    `keep` names fields to keep as meta. A `template` over fields makes the text, in place of
    `text_field`. `delimiter` is that of a table; `encoding` is that of text (default: UTF-8, or as
    a byte order mark says). `whole_files`: each `.txt` is one document. `long`: what is done with
    long texts. Plain texts and documents have no fields: the id of a text is its hash, that of a
    document its path.
    """

    text_field: str = "text"
    id_field: str | None = None
    keep: Sequence[str] = ()
    template: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    whole_files: bool = False
    long: Long = _REJECT

    def check(self) -> None:
        """Raise CorpusError for what no file can be read with."""
        _ = self.fields
        if self.encoding is not None:
            check_encoding(self.encoding)

    @property
    def fields(self) -> Fields:
        """The wanted fields. Raises CorpusError if the template is malformed."""
        text = self.template
        return Fields(
            text=field_text(self.text_field) if text is None else template_text(text),
            id="id" if self.id_field is None else self.id_field,
            id_required=self.id_field is not None,
            keep=tuple(self.keep),
            no_pieces=self.long.splits,
        )
