"""Verification: a corpus, read again, against what is stored.

For every id its last line counts, so the whole corpus has to be seen before anything can be
asked. A dict of the ids does for an ordinary corpus. When it grows too large, it and the rest are
dealt out into temporary files by a hash of the id, and each of these is then a smaller corpus of
the same kind. So memory is bounded whatever the number of lines. A billion of them take some 60
bytes of temporary disk each, twice; TMPDIR says where.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Callable, TypeVar

from worker.job import Job, Rejection, State, text_digest

_FILE_BITS = 6  # of the hash, for each level of files: 64 files
_ASKED_AT_ONCE = 1000
_SAMPLES = 10

_Sampled = TypeVar("_Sampled", str, Rejection)


@dataclass(frozen=True)
class Verification:
    """What became of the texts of a corpus: `texts = embedded + pending + dead + missing`."""

    texts: int  # distinct ids, each with the text of its last line
    embedded: int  # the vector of exactly that text is stored, and no other text is on its way
    pending: int
    dead: int
    missing: int  # never enqueued, or another text has its place
    rejected: int  # lines
    pending_ids: tuple[str, ...]  # these four are samples, ten at most
    dead_ids: tuple[str, ...]
    missing_ids: tuple[str, ...]
    rejections: tuple[Rejection, ...]

    @property
    def complete(self) -> bool:
        """Every line's id has its last line's vector."""
        return self.embedded == self.texts and self.rejected == 0


def verify(
    corpora: Iterable[Job | Rejection],
    states: Callable[[Sequence[str]], Sequence[State]],
    *,
    in_memory: int = 200_000,
) -> Verification:
    """Compare what `corpora` say with the `states` of their ids, asked for a thousand at a time.

    `in_memory` bounds the ids held at once; 200,000 of 36 characters take some 40 MB.
    Raises OSError when a large corpus finds no room for its temporary files.
    """
    texts = embedded = pending = dead = missing = rejected = 0
    pending_ids: list[str] = []
    dead_ids: list[str] = []
    missing_ids: list[str] = []
    rejections: list[Rejection] = []

    def lines() -> Iterator[tuple[str, bytes]]:
        nonlocal rejected
        for record in corpora:
            if isinstance(record, Rejection):
                rejected += 1
                _sample(rejections, record)
            else:
                yield record.id, text_digest(record.text)

    for latest in _latest(lines(), in_memory):
        remaining = iter(latest)
        while ids := list(islice(remaining, _ASKED_AT_ONCE)):
            found = states(ids)
            if len(found) != len(ids):
                raise ValueError(f"{len(found)} states for {len(ids)} ids")
            for id, state in zip(ids, found):
                digest = latest[id]
                texts += 1
                if state.stored == digest and state.queued in (None, digest[:8]):
                    embedded += 1
                elif state.queued == digest[:8]:
                    pending += 1
                    _sample(pending_ids, id)
                elif state.dead == digest:
                    dead += 1
                    _sample(dead_ids, id)
                else:
                    missing += 1
                    _sample(missing_ids, id)
    return Verification(
        texts,
        embedded,
        pending,
        dead,
        missing,
        rejected,
        tuple(pending_ids),
        tuple(dead_ids),
        tuple(missing_ids),
        tuple(rejections),
    )


def _latest(
    lines: Iterator[tuple[str, bytes]], in_memory: int, level: int = 0
) -> Iterator[dict[str, bytes]]:
    """The last digest of every id, in dicts of bounded size; each id is in one of them."""
    latest: dict[str, bytes] = {}
    for id, digest in lines:
        latest[id] = digest
        if len(latest) > in_memory:
            break
    else:
        yield latest
        return
    with tempfile.TemporaryDirectory(prefix="verify-") as directory:
        paths = [Path(directory, str(index)) for index in range(2**_FILE_BITS)]
        _deal(chain(latest.items(), lines), paths, level)
        latest.clear()
        for path in paths:
            yield from _latest(_read(path), in_memory, level + 1)
            path.unlink()


def _deal(lines: Iterable[tuple[str, bytes]], paths: Sequence[Path], level: int) -> None:
    """Write each line to the file that its id's hash names: other bits of it at every level."""
    # From the top: the low bits place an id in a dict, and should differ within a file.
    shift = 63 - _FILE_BITS * (level + 1)
    last = len(paths) - 1
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "wb")) for path in paths]
        for id, digest in lines:
            name = id.encode()
            file = files[hash(id) >> shift & last]
            file.write(len(name).to_bytes(4, "little") + digest + name)


def _read(path: Path) -> Iterator[tuple[str, bytes]]:
    with open(path, "rb") as file:
        while head := file.read(20):
            yield file.read(int.from_bytes(head[:4], "little")).decode(), head[4:]


def _sample(samples: list[_Sampled], one: _Sampled) -> None:
    if len(samples) < _SAMPLES:
        samples.append(one)
