"""Long texts: they are rejected, cut, or split into pieces that the API takes.

A text that is split is a *document*. Each of its *pieces* is a job of its own, called `ID#0001`,
`ID#0002` and so on. Its meta has the document's id (`parent`), and where the piece begins and ends
in the document's text (`start`, `end`), in characters. A text that is short enough keeps its id.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from vector_embed_client.http import MAX_TEXT_LENGTH, text_fault

from ..types import Job, Rejection, piece_id
from .errors import CorpusError, LongText

WAYS = ("reject", "cut", "split")
KINDS = ("text", "markdown")

SECTION = 30_000
_UNSPLIT = ("text", MAX_TEXT_LENGTH, 0)


class Splitter(Protocol):
    """What splits a text: each piece with its first character's position, counted from 0."""

    def chunk_indices(self, text: str) -> list[tuple[int, str]]: ...


@dataclass(frozen=True)
class Long:
    """What is done with long texts. Raises ValueError, and CorpusError without the splitter.

    `way`: reject, cut or split. The others are for split alone: `kind`, text or markdown, says
    where it may be split best; a piece has `size` characters at most, of which the first `overlap`
    at most are the last of the piece before.
    """

    way: str = "reject"
    kind: str = "text"
    size: int = MAX_TEXT_LENGTH
    overlap: int = 0
    _splitter: Splitter | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.way not in WAYS or self.kind not in KINDS:
            raise ValueError(f"long is one of {', '.join(WAYS)}; split_as, of {', '.join(KINDS)}")
        if self.way != "split" and (self.kind, self.size, self.overlap) != _UNSPLIT:
            raise ValueError("split_as, chunk_size and overlap go with long='split'")
        if not 0 < self.size <= MAX_TEXT_LENGTH:
            raise ValueError(f"chunk_size is from 1 to {MAX_TEXT_LENGTH:,} characters")
        if not 0 <= self.overlap < self.size:
            raise ValueError("overlap is from 0 to less than chunk_size")
        if self.way == "split":
            object.__setattr__(self, "_splitter", _splitter(self.kind, self.size, self.overlap))

    @property
    def splits(self) -> bool:
        """Whether long texts become pieces."""
        return self.way == "split"

    def apply(self, lines: Iterable[Job | Rejection], option: str) -> Iterator[Job | Rejection]:
        """The jobs of `lines`, with pieces in place of long texts.

        `option`: what a rejection says to use.
        """
        if self.way == "split":
            return self._split(lines)
        return self._cut(lines, option)

    def _cut(self, lines: Iterable[Job | Rejection], option: str) -> Iterator[Job | Rejection]:
        for line in lines:
            if not isinstance(line, LongText):
                yield line
            elif self.way == "reject":
                yield line._replace(reason=f"{line.reason}: {option} takes it")
            else:
                text = line.job.text[:MAX_TEXT_LENGTH]
                fault = text_fault(text)
                yield line.job._replace(text=text) if fault is None else line

    def _split(self, lines: Iterable[Job | Rejection]) -> Iterator[Job | Rejection]:
        for line in lines:
            job = line.job if isinstance(line, LongText) else line
            if isinstance(job, Job) and len(job.text) > self.size:
                yield from self._pieces(job)
            else:
                yield line

    def _pieces(self, job: Job) -> Iterator[Job]:
        assert self._splitter is not None
        number = 0
        for begin, section in _sections(job.text):
            for at, text in self._splitter.chunk_indices(section):
                if not text.isspace():
                    number += 1
                    start = begin + at
                    place = {"parent": job.id, "start": start, "end": start + len(text)}
                    yield Job(piece_id(job.id, number), text, {**(job.meta or {}), **place})


def _sections(text: str) -> Iterator[tuple[int, str]]:
    """A text in parts of at most SECTION characters, each with its first character's position.

    The splitter's time grows with the square of a text's length. A part ends with a paragraph, a
    line or a word, if one ends in its second half. No piece reaches over its end.
    """
    start = 0
    while len(text) - start > SECTION:
        last = start + SECTION
        ends = (text.rfind(end, start + SECTION // 2, last) for end in ("\n\n", "\n", " "))
        end = next((end for end in ends if end > 0), last)
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def _splitter(kind: str, size: int, overlap: int) -> Splitter:
    try:
        import semantic_text_splitter
    except ImportError:
        way_out = 'pip install "vector-embed-cache-client[split]"'
        if sys.version_info < (3, 10):
            way_out = "it needs Python 3.10 or later"
        raise CorpusError(
            f"to split long texts, semantic-text-splitter is needed: {way_out}"
        ) from None
    if kind == "markdown":
        return semantic_text_splitter.MarkdownSplitter(size, overlap)
    return semantic_text_splitter.TextSplitter(size, overlap)
