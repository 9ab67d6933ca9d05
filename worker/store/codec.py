"""How values are packed in Redis: vectors, dead letters, metas and ids."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from ..layout import DTYPES, SIZES, Layout, decode_field
from ..logs import skip
from ..types import DeadLetter, Indexed, Refused, Stored, text_digest

VECTOR_FIELDS = ("vector", *DTYPES)  # one of them has the numbers of a stored vector


def fields_of(layout: Layout) -> tuple[str, ...]:
    """Those that a vector may have in a collection with this layout."""
    return VECTOR_FIELDS[:1] if layout.is_plain else VECTOR_FIELDS


class Hash(NamedTuple):
    """The field `hash` of a stored vector; `commit.lua` writes it."""

    digest: bytes  # of its text
    number: int
    cached: bool


def load_hash(packed: bytes) -> Hash:
    """The parts of `hash`."""
    _, number = packed[16:].split(b" ")
    return Hash(packed[:16], int(number.rstrip(b"c")), number.endswith(b"c"))


def load_page(layout: Layout, rows: Sequence[bytes]) -> list[Stored]:
    """The vectors in a reply of `finished.lua`."""
    model, dtype = layout.model, layout.dtype
    if layout.is_plain:
        return [load_record(model, id.decode(), *row) for id, *row in zip(*[iter(rows)] * 5)]
    return [
        load_record(
            model, id.decode(), load_data(layout, field.decode(), data), packed, text, meta, dtype
        )
        for id, field, data, packed, text, meta in zip(*[iter(rows)] * 6)
    ]


def load_fields(layout: Layout, id: str, *row: bytes | None) -> Stored | None:
    """A stored vector from VECTOR_FIELDS and the other fields of its key; None if there is none."""
    *forms, packed, text, meta = row
    for field, numbers in zip(VECTOR_FIELDS, forms):
        if numbers and packed:
            data = load_data(layout, field, numbers)
            return load_record(layout.model, id, data, packed, text, meta, layout.dtype)
    return None


def load_data(layout: Layout, field: str, data: bytes) -> bytes:
    """A vector in the layout, from the field that its numbers are in.

    A worker of an earlier version writes `vector`, and so did all before the collection was shrunk;
    the others may be of a larger layout, while it is shrunk again.
    """
    if field == layout.dtype and len(data) == layout.size(len(data) // SIZES[field]):
        return data
    return layout.encode(decode_field(field, data))[0]


def load_record(
    model: str,
    id: str,
    data: bytes,
    packed: bytes,
    text: bytes | None,
    meta: bytes | None,
    dtype: str = "float32",
) -> Stored:
    """A stored vector from the fields of its key, and its data in the layout."""
    digest, number, cached = load_hash(packed)
    kept = text.decode() if text else None
    return Stored(id, data, model, cached, kept, load_meta(meta), number, digest, dtype)


def id_digest(id: str) -> bytes:
    """What remains of an id when its vector is evicted."""
    return hashlib.sha256(id.encode()).digest()[:6]


def dump_meta(meta: Mapping[str, object] | None) -> str:
    """JSON; empty where there is no meta."""
    return json.dumps(meta, ensure_ascii=False, separators=(",", ":")) if meta else ""


def load_meta(raw: bytes | None) -> Mapping[str, object] | None:
    """What `dump_meta` made."""
    return cast(Mapping[str, object], json.loads(raw)) if raw else None


def dump_letter(refused: Refused) -> bytes:
    """A dead letter as it is kept: the digest of its text, then JSON."""
    job = refused.lease.job
    letter = {
        "text": job.text,
        "meta": job.meta,
        "code": refused.code,
        "reason": refused.reason,
        "attempts": refused.lease.attempts + 1,
        "at": time.time(),
    }
    return text_digest(job.text) + json.dumps(letter, ensure_ascii=False).encode()


def load_letter(id: str, raw: bytes) -> DeadLetter:
    """What `dump_letter` made. Raises ValueError or TypeError for anything else."""
    letter = DeadLetter(id=id, **json.loads(raw[16:]))
    words = (letter.text, letter.code, letter.reason)
    if not all(isinstance(word, str) for word in words):
        raise TypeError("text, code and reason must be strings")
    return replace(letter, attempts=int(letter.attempts), at=float(letter.at))


def load_halts(collection: str, raw: str | None) -> Mapping[str, str]:
    """Why workers do not work on a collection, by throttle."""
    if raw is None:
        return {}
    try:
        halts = json.loads(raw)
        return {str(throttle): str(reason) for throttle, reason in halts.items()}
    except (ValueError, AttributeError, RecursionError):
        skip(f"halted of collection {collection}", raw)
        return {}


def load_index(collection: str, raw: str | None) -> Indexed | None:
    """The index of a collection; None if it has none."""
    try:
        return None if raw is None else Indexed.read(raw)
    except ValueError:
        skip(f"index of collection {collection}", raw)
        return None
