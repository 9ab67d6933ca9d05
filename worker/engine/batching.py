"""Batches: which leases go into one request.

A request takes at most 100 texts and 1,000,000 bytes, whichever binds first. Each distinct text
gets one slot, however many jobs share it: the API computes and charges duplicates in a batch one by
one. A job that has failed alone before is sent alone, so that it costs no neighbour anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from vector_embed_client import packing
from vector_embed_client.http import text_bytes

from ..types import Lease


class Slot(NamedTuple):
    """One distinct text and the leases that wait for its vector."""

    text: str
    leases: tuple[Lease, ...]


def slots_of(leases: Sequence[Lease]) -> list[Slot]:
    """One slot per distinct text, in the order of first appearance."""
    by_text: dict[str, list[Lease]] = {}
    for lease in leases:
        by_text.setdefault(lease.job.text, []).append(lease)
    return [Slot(text, tuple(sharing)) for text, sharing in by_text.items()]


def pack(leases: Sequence[Lease], model: str) -> Iterator[list[Slot]]:
    """Batches for `model`; those that failed alone before come last, each by itself."""
    plain: dict[str, Slot] = {}
    suspects: list[Slot] = []
    for slot in slots_of(leases):
        if any(lease.attempts for lease in slot.leases):
            suspects.append(slot)
        else:
            plain[slot.text] = slot
    for texts in packing.pack(plain, model):
        yield [plain[text] for text in texts]
    for suspect in suspects:
        yield [suspect]


def size_of(batch: Sequence[Slot]) -> int:
    """The bytes that its texts take in a request."""
    return sum(text_bytes(slot.text) for slot in batch)


def parts(batch: Sequence[Slot], room: int) -> Iterator[list[Slot]]:
    """`batch` in parts of at most `room` bytes, or of one text."""
    part: list[Slot] = []
    size = 0
    for slot in batch:
        more = text_bytes(slot.text)
        if part and size + more > room:
            yield part
            part, size = [], 0
        part.append(slot)
        size += more
    yield part
