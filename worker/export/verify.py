"""Verification: a corpus, read again, against what is stored, in Redis and in exported files.

For every id its last line counts, and of the files its last vector, so all of them have to be seen
before anything can be asked. A dict of the ids does for an ordinary corpus. When it grows too
large, it and the rest are dealt out into temporary files by a hash of the id, and each of these is
then a smaller corpus of the same kind. So memory is bounded whatever the number of lines. A billion
of them take some 80 bytes of temporary disk each, twice; TMPDIR says where.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Callable, TypeVar

from ..types import Job, Place, Rejection, State, text_digest

_FILE_BITS = 6  # of the hash, for each level of files: 64 files
_ASKED_AT_ONCE = 1000
_SAMPLES = 10

# Of the text that the corpus has for an id, and of the one whose vector the files have.
_Digests = tuple[bytes, bytes]
_NONE = bytes(16)

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
    exported: int = 0  # so many of the embedded are no longer in Redis, but in the files

    @property
    def complete(self) -> bool:
        """Every line's id has its last line's vector."""
        return self.embedded == self.texts and self.rejected == 0


def verify(
    corpora: Iterable[Job | Rejection],
    states: Callable[[Sequence[str]], Sequence[State]],
    exported: Iterable[Place] = (),
    *,
    in_memory: int = 200_000,
) -> Verification:
    """Compare what `corpora` say with the `states` of their ids, asked for a thousand at a time,
    and with what was `exported`, in the order of the files.

    `in_memory` bounds the ids held at once; 200,000 of 36 characters take some 40 MB.
    Raises OSError when a large corpus finds no room for its temporary files.
    """
    texts = embedded = filed = pending = dead = missing = rejected = 0
    pending_ids: list[str] = []
    dead_ids: list[str] = []
    missing_ids: list[str] = []
    rejections: list[Rejection] = []

    def lines() -> Iterator[tuple[str, _Digests]]:
        nonlocal rejected
        for place in exported:
            yield place.id, (_NONE, place.digest)
        for record in corpora:
            if isinstance(record, Rejection):
                rejected += 1
                _sample(rejections, record)
            else:
                yield record.id, (text_digest(record.text), _NONE)

    for latest in _latest(lines(), in_memory):
        remaining = (id for id, (text, _) in latest.items() if text != _NONE)
        while ids := list(islice(remaining, _ASKED_AT_ONCE)):
            found = states(ids)
            if len(found) != len(ids):
                raise ValueError(f"{len(found)} states for {len(ids)} ids")
            for id, state in zip(ids, found):
                digest, file = latest[id]
                texts += 1
                superseded = state.queued not in (None, digest[:8])
                if state.stored == digest and not superseded:
                    embedded += 1
                elif file == digest and not (superseded or state.stored or state.dead):
                    embedded += 1
                    filed += 1
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
        filed,
    )


def _latest(
    lines: Iterator[tuple[str, _Digests]], in_memory: int, level: int = 0
) -> Iterator[dict[str, _Digests]]:
    """The last digests of every id, in dicts of bounded size; each id is in one of them."""
    latest: dict[str, _Digests] = {}
    for id, (text, file) in lines:
        before = latest.get(id)
        if before is not None:
            text, file = (text, before[1]) if file == _NONE else (before[0], file)
        latest[id] = text, file
        if len(latest) > in_memory:
            break
    else:
        yield latest
        return
    with tempfile.TemporaryDirectory(prefix="verify-") as directory:
        paths = [Path(directory, str(index)) for index in range(2**_FILE_BITS)]
        _deal(chain(_singly(latest), lines), paths, level)
        latest.clear()
        for path in paths:
            yield from _latest(_read(path), in_memory, level + 1)
            path.unlink()


def _singly(latest: dict[str, _Digests]) -> Iterator[tuple[str, _Digests]]:
    """Each digest in a line of its own, as they came."""
    for id, (text, file) in latest.items():
        if file != _NONE:
            yield id, (_NONE, file)
        if text != _NONE:
            yield id, (text, _NONE)


def _deal(lines: Iterable[tuple[str, _Digests]], paths: Sequence[Path], level: int) -> None:
    """Write each line to the file that its id's hash names: other bits of it at every level."""
    # From the top: the low bits place an id in a dict, and should differ within a file.
    shift = 63 - _FILE_BITS * (level + 1)
    last = len(paths) - 1
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "wb")) for path in paths]
        for id, (text, exported) in lines:
            name = id.encode()
            file = files[hash(id) >> shift & last]
            file.write(len(name).to_bytes(4, "little") + text + exported + name)


def _read(path: Path) -> Iterator[tuple[str, _Digests]]:
    with open(path, "rb") as file:
        while head := file.read(36):
            name = file.read(int.from_bytes(head[:4], "little")).decode()
            yield name, (head[4:20], head[20:])


def _sample(samples: list[_Sampled], one: _Sampled) -> None:
    if len(samples) < _SAMPLES:
        samples.append(one)
