"""A job: one text to be turned into a vector, under an id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple


class Job(NamedTuple):
    """One text to embed. `meta` is any JSON object to keep beside the vector."""

    id: str
    text: str
    meta: Mapping[str, object] | None = None


class Rejection(NamedTuple):
    """One record of a corpus that cannot become a job, and why. Nothing was paid for it."""

    line: int  # of the file, counted from 1, where the record begins; the row for parquet
    id: str | None
    reason: str
    raw: str  # the line as read, cut to a sensible length


class State(NamedTuple):
    """What is known of an id. The digests are those of `text_digest`."""

    stored: bytes | None  # of the text whose vector is stored
    queued: bytes | None  # of the latest text queued or leased, its first eight bytes
    dead: bytes | None  # of the text among the dead letters


def default_id(text: str) -> str:
    """The id of a text that came without one: the sha256 of its UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def text_digest(text: str) -> bytes:
    """The first 16 bytes of the text's sha256: what is stored to say which text a vector is of."""
    return hashlib.sha256(text.encode()).digest()[:16]
