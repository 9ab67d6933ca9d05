"""Batches: which leases go into one request.

A request takes at most 100 texts and 1,000,000 bytes, whichever binds first. Each distinct text is
one item of a request, however many jobs share it: the API would charge each duplicate in a batch. A
job that failed alone before is sent alone again, so that it costs no other text anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vector_embed_client import calls
from vector_embed_client.http import text_bytes

from ..types import Lease


class Item(NamedTuple):
    """An item of a request: a distinct text and the leases that wait for its vector."""

    text: str
    leases: tuple[Lease, ...]


def items_of(leases: Sequence[Lease]) -> list[Item]:
    """One item for each distinct text, in the order of first appearance."""
    by_text: dict[str, list[Lease]] = {}
    for lease in leases:
        by_text.setdefault(lease.job.text, []).append(lease)
    return [Item(text, tuple(sharing)) for text, sharing in by_text.items()]


def pack(leases: Sequence[Lease], model: str) -> Iterator[list[Item]]:
    """Batches for `model`. Items that failed alone before come last, each in a batch of its own."""
    plain: dict[str, Item] = {}
    alone: list[Item] = []
    for item in items_of(leases):
        if any(lease.attempts for lease in item.leases):
            alone.append(item)
        else:
            plain[item.text] = item
    for texts in calls.pack(plain, model):
        yield [plain[text] for text in texts]
    for item in alone:
        yield [item]


def size_of(batch: Sequence[Item]) -> int:
    """Bytes that the texts of `batch` take in a request."""
    return sum(text_bytes(item.text) for item in batch)


def parts(batch: Sequence[Item], room: int) -> Iterator[list[Item]]:
    """Split `batch` into parts of at most `room` bytes, or of one text."""
    part: list[Item] = []
    size = 0
    for item in batch:
        more = text_bytes(item.text)
        if part and size + more > room:
            yield part
            part, size = [], 0
        part.append(item)
        size += more
    yield part
