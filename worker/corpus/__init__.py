"""A corpus: a file of texts, read as a stream of jobs and rejections.

Formats: `.jsonl`, `.ndjson`, `.csv`, `.tsv`, `.txt` (one text per line) and `.parquet`, each also
with `.gz`; and `-` for JSON lines on standard input. If the file as a whole cannot be read, opening
it raises CorpusError. After that nothing raises: a line that cannot become a job becomes a
Rejection with its line number, and the next line is read. Every line is a job, a rejection, or
blank.

Memory does not grow with the file or with a line: at most MAX_LINE_BYTES of a line are held, and
parquet is read a thousand rows at a time.

`source` reads bytes. `lines` finds the lines in them. `jsonl`, `table` and `text` find the fields
of a line (`parquet` finds them in the source itself). `fields` decides whether the fields make a
job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..types import Job, Rejection
from .errors import CorpusError
from .fields import MAX_ID_BYTES, MAX_META_BYTES, MAX_META_DEPTH, Fields
from .jsonl import read_json_lines
from .lines import MAX_LINE_BYTES, Lines
from .long import Long
from .path import collection_name, shown, split, stem
from .source import Source
from .table import Table
from .text import read_texts

__all__ = [
    "MAX_ID_BYTES",
    "MAX_LINE_BYTES",
    "MAX_META_BYTES",
    "MAX_META_DEPTH",
    "Corpus",
    "CorpusError",
    "collection_name",
    "stem",
]


_REJECT = Long()


class Corpus:
    """One file of texts, opened. Iterate over it once.

    `text_field` and `id_field` name the JSON field or the column. If you give an `id_field`, a
    table must have that column; the default is "id", if there is one. `keep` names fields to keep
    as meta. A `.txt` has no fields: its ids are the hashes of its texts.

    A `.parquet.gz` is unpacked when it is opened, because parquet is read from its end.

    Raises CorpusError if the file cannot be read.
    """

    def __init__(
        self,
        path: str,
        *,
        text_field: str = "text",
        id_field: str | None = None,
        keep: Sequence[str] = (),
        long: Long = _REJECT,
    ) -> None:
        self.path = path
        fields = Fields(
            text=text_field,
            id="id" if id_field is None else id_field,
            id_required=id_field is not None,
            keep=tuple(keep),
            no_pieces=long.splits,
        )
        _, suffix, packed = split(path)
        self._source = Source(path, packed)
        self._lines: Iterator[Job | Rejection] | None
        try:
            lines = _read(suffix, self._source, fields)
            self._lines = long.apply(lines, "--long cut or --long split")
        except BaseException:
            self._source.close()
            raise

    @property
    def size(self) -> int | None:
        """The bytes of the file, as stored (compressed); None if unknown."""
        return self._source.size

    @property
    def position(self) -> int:
        """How many bytes of the file, as stored (compressed), have been read."""
        return self._source.position

    @property
    def fault(self) -> str | None:
        """Why reading ended before the end of the file; None if it did not."""
        return self._source.fault

    def __iter__(self) -> Iterator[Job | Rejection]:
        lines, self._lines = self._lines, None
        if lines is None:
            raise CorpusError(f"{shown(self.path)} was read already: open it again")
        return lines

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        self._source.close()

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(suffix: str, source: Source, fields: Fields) -> Iterator[Job | Rejection]:
    if suffix == ".parquet":
        try:
            from .parquet import Parquet
        except ImportError:
            raise CorpusError(
                f"{source.name}: reading parquet needs pyarrow:"
                ' pip install "vector-embed-cache-client[parquet]"'
            ) from None
        return iter(Parquet(source, fields))
    lines = Lines(source)
    if suffix == ".txt":
        return read_texts(lines)
    if suffix in (".csv", ".tsv"):
        return iter(Table(lines, "\t" if suffix == ".tsv" else ",", source.name, fields))
    return read_json_lines(lines, fields)
