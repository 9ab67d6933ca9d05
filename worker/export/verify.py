"""Verification: a corpus, read again and compared with what is stored in Redis and in files.

For each id, the last line of the corpus counts and the last vector of the files; of a document that
is split, the last one's pieces. So all lines are read before Redis is asked. What the collection
holds and the corpus does not is *surplus*; the pieces of a document whose line is rejected are not.
Many ids are spilt to disk, so memory is bounded: a billion lines take some 80 bytes of temporary
disk each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Callable, Literal, TypeVar

from ..corpus.spill import Spill
from ..types import Job, Position, Rejection, State, document_of, piece_id, text_digest

_ASKED_AT_ONCE = 1000
_SAMPLES = 10

# Of the text that the corpus has for an id, and of the one whose vector the files have.
_Digests = tuple[bytes, bytes]
_Line = tuple[str, _Digests]
_NONE = bytes(16)
_REJECTED = _TOMBSTONE = b"\xff" * 16  # in place of a digest

_Sampled = TypeVar("_Sampled", str, Rejection)


@dataclass(frozen=True)
class Verification:
    """What became of the texts of a corpus: `texts = embedded + pending + dead + missing`.

    `surplus`: ids that the collection or the files hold and the corpus does not have. `unnamed`:
    evicted ids that were not looked at, because the names of evicted ids are in the files alone.
    """

    texts: int  # distinct ids, each with the text of its last line
    embedded: int  # the vector of exactly that text is stored, and no other text is queued
    pending: int
    dead: int
    missing: int  # never enqueued, or replaced by another text
    rejected: int  # lines
    pending_ids: tuple[str, ...]  # these four are samples, ten at most
    dead_ids: tuple[str, ...]
    missing_ids: tuple[str, ...]
    rejections: tuple[Rejection, ...]
    exported: int = 0  # of the embedded: those that are no longer in Redis, but in the files
    surplus: int = 0
    surplus_ids: tuple[str, ...] = ()
    unnamed: int = 0
    documents: int | None = None  # of the texts, if some may be pieces

    @property
    def complete(self) -> bool:
        """Every line's id has its last line's vector, and no other id has one."""
        is_whole = self.embedded == self.texts and self.rejected == 0
        return is_whole and self.surplus == 0 and self.unnamed == 0


def verify(
    corpora: Iterable[Job | Rejection],
    states: Callable[[Sequence[str]], Sequence[State]],
    exported: Iterable[Position] = (),
    *,
    names: Iterable[str] | None = None,
    unexported: Literal["pending", "missing"] | None = None,
    documents: bool = False,
    in_memory: int = 200_000,
) -> Verification:
    """Compare `corpora` with the `states` of their ids, and with what was `exported`.

    `states` is asked for a thousand ids at a time; `exported` is in the order of the files. With
    the `names` of all ids that the collection holds, surplus is counted. `unexported`: what a
    vector is that is in Redis alone, if it must be exported. `documents`: the jobs may be pieces.
    At most `in_memory` ids are held at once: 200,000 of 36 characters take some 40 MB. Raises
    OSError if there is no room for temporary files.
    """
    counts: Counter[str] = Counter()
    fates = ("pending", "dead", "missing", "surplus")
    samples: dict[str, list[str]] = {fate: [] for fate in fates}
    rejections: list[Rejection] = []

    def lines() -> Iterator[_Line]:
        for id in (
            names or ()
        ):  # first: what is evicted meanwhile is in the files that are read next
            yield id, (_NONE, _NONE)
        for position in exported:
            yield position.id, (_NONE, position.digest or _TOMBSTONE)
        for record in corpora:
            if isinstance(record, Rejection):
                counts["rejected"] += 1
                _sample(rejections, record)
                if record.id is not None:
                    yield record.id, (_REJECTED, _NONE)
            else:
                yield record.id, (text_digest(record.text), _NONE)

    blank = (_NONE, _REJECTED)
    latest = chain.from_iterable(map(_without_rejected, _latest(lines(), in_memory, documents)))
    looked_at = (line for line in latest if names is not None or line[1][0] not in blank)
    while some := list(islice(looked_at, _ASKED_AT_ONCE)):
        found = states([id for id, _ in some])
        if len(found) != len(some):
            raise ValueError(f"{len(found)} states for {len(some)} ids")
        for (id, (digest, file)), state in zip(some, found):
            fate = _fate(digest, file, state, unexported)
            counts[fate] += 1
            if fate in samples:
                _sample(samples[fate], id)
            if digest not in blank and document_of(id)[1] < 2:
                counts["documents"] += 1
    pending, dead, missing, surplus = map(tuple, samples.values())
    return Verification(
        texts=sum(counts[fate] for fate in ("stored", "exported", "pending", "dead", "missing")),
        embedded=counts["stored"] + counts["exported"],
        pending=counts["pending"],
        dead=counts["dead"],
        missing=counts["missing"],
        rejected=counts["rejected"],
        pending_ids=pending,
        dead_ids=dead,
        missing_ids=missing,
        rejections=tuple(rejections),
        exported=counts["exported"],
        surplus=counts["surplus"],
        surplus_ids=surplus,
        documents=counts["documents"] if documents else None,
    )


def _fate(digest: bytes, file: bytes, state: State, unexported: str | None) -> str:
    """What became of the text with this digest. `file`: the digest in the exported files."""
    if digest == _NONE:  # it is not in the corpus
        return "surplus" if any(state) or file not in (_NONE, _TOMBSTONE) else "nowhere"
    if digest == _REJECTED:
        return "rejected id"
    superseded = state.queued not in (None, digest[:8])
    if state.stored == digest and not superseded:
        return "exported" if unexported and file == digest else unexported or "stored"
    if file == digest and not (superseded or state.stored or state.dead):
        return "exported"
    if state.queued == digest[:8]:
        return "pending"
    return "dead" if state.dead == digest else "missing"


def _latest(
    lines: Iterator[_Line], in_memory: int, documents: bool
) -> Iterator[dict[str, _Digests]]:
    """The last digests of every id, in dicts of bounded size; each document is in one of them."""
    latest: dict[str, _Digests] = {}
    for line in lines:
        _merge(latest, line, documents)
        if len(latest) > in_memory:
            break
    else:
        yield latest
        return
    spill = Spill(40 * in_memory)
    for id, digests in chain(latest.items(), lines):
        name = id.encode()
        spill.add(
            hash(document_of(id)[0]), len(name).to_bytes(4, "little") + b"".join(digests) + name
        )
    latest.clear()
    for part in spill.read():
        one: dict[str, _Digests] = {}
        begin = 0
        while begin < len(part):
            head = begin + 36
            end = head + int.from_bytes(part[begin : begin + 4], "little")
            digests = part[begin + 4 : begin + 20], part[begin + 20 : head]
            _merge(one, (part[head:end].decode(), digests), documents)
            begin = end
        yield one


def _without_rejected(latest: dict[str, _Digests]) -> Iterator[_Line]:
    """The lines, where what may be a piece of a rejected document is as rejected as that."""
    for id, (text, file) in latest.items():
        if text == _NONE and latest.get(document_of(id)[0], (_NONE, _NONE))[0] == _REJECTED:
            text = _REJECTED
        yield id, (text, file)


def _merge(latest: dict[str, _Digests], line: _Line, documents: bool) -> None:
    id, (text, file) = line
    if documents and text not in (_NONE, _REJECTED):
        document, number = document_of(id)
        if number < 2:  # the lines before had another text of the document
            _forget(latest, document)
    before = latest.get(id, (_NONE, _NONE))
    is_blank = text == _NONE or text == _REJECTED and before[0] != _NONE
    latest[id] = before[0] if is_blank else text, before[1] if file == _NONE else file


def _forget(latest: dict[str, _Digests], document: str) -> None:
    """Forget the text of a document that was not split, or those of its pieces."""
    id, number = document, 0
    blank = (_NONE, _REJECTED)
    while number == 0 or latest.get(id, (_NONE, _NONE))[0] not in blank:
        if id in latest:
            latest[id] = _NONE, latest[id][1]
        number += 1
        id = piece_id(document, number)


def _sample(samples: list[_Sampled], one: _Sampled) -> None:
    if len(samples) < _SAMPLES:
        samples.append(one)
