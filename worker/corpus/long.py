"""Long texts: they are rejected, cut, or split into pieces that the API takes.

A text that is split is a *document*. Each of its *pieces* is a job of its own, called `ID#0001`,
`ID#0002` and so on. Its meta has the document's id (`parent`), and where the piece begins and ends
in the document's text (`start`, `end`), in characters. A text that is short enough keeps its id.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Protocol

from vector_embed_client.http import MAX_TEXT_LENGTH, text_fault

from ..layout import whole
from ..types import Job, Rejection, piece_id
from .errors import CorpusError, LongText

WAYS = ("reject", "cut", "split")
KINDS = ("text", "markdown")

WINDOW_PIECES = 8  # of full length: the splitter's time grows with the square of what it is given
_LEAST_WINDOW = 2_000
_AHEAD = 1_000_000  # characters that are split while the pieces before them are used
_LINE = 1_000  # what a line counts that waits for those
_THREADS = min(4, os.cpu_count() or 1)
_UNSPLIT = ("text", MAX_TEXT_LENGTH, 0)

Piece = tuple[int, str]  # with its first character's position, counted from 0


class Splitter(Protocol):
    """What splits a text."""

    def chunk_indices(self, text: str) -> list[Piece]: ...


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
        whole("chunk_size", self.size)
        whole("overlap", self.overlap)
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
        """Several texts are split at once: the splitter does not hold the interpreter's lock.

        A document that is a file of its own is the only text here, and needs no thread.
        """
        ahead: deque[tuple[int, Iterator[Job | Rejection]]] = deque()  # with their size
        held = 0
        pool: ThreadPoolExecutor | None = None
        try:
            for line in lines:
                job = line.job if isinstance(line, LongText) else line
                if isinstance(job, Job) and len(job.text) > self.size:
                    pieces: Callable[[], list[Piece]] = partial(self._cut_up, job.text)
                    if ahead:
                        pool = pool or ThreadPoolExecutor(_THREADS, "vec-split")
                        pieces = pool.submit(pieces).result
                    ahead.append((len(job.text), _jobs(job, pieces)))
                elif ahead:
                    ahead.append((_LINE, iter([line])))
                else:
                    yield line
                    continue
                held += ahead[-1][0]
                while held > _AHEAD:
                    size, some = ahead.popleft()
                    held -= size
                    yield from some
            for _, some in ahead:
                yield from some
        finally:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def _cut_up(self, text: str) -> list[Piece]:
        """The pieces of a text, each with its first character's position.

        The splitter gets a window of the text. Its last piece may be cut short by the window's end,
        so the next window begins with it.
        """
        assert self._splitter is not None
        window = max(WINDOW_PIECES * self.size, _LEAST_WINDOW)
        pieces: list[Piece] = []
        start = 0
        while start < len(text):
            is_last = start + window >= len(text)
            found = self._splitter.chunk_indices(text[start : start + window])
            following = found[-1][0] if found and not is_last else 0
            if following:
                found.pop()
            pieces += [(start + at, piece) for at, piece in found if not piece.isspace()]
            start += following or window
        return pieces


def _jobs(job: Job, pieces: Callable[[], list[Piece]]) -> Iterator[Job]:
    """The jobs of the pieces of a text."""
    id, meta = job.id, job.meta or {}
    for number, (start, text) in enumerate(pieces(), 1):
        end = start + len(text)
        yield Job(piece_id(id, number), text, {**meta, "parent": id, "start": start, "end": end})


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
