"""Any number of texts into batches, in order: each as full as its two limits allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .http import MAX_BATCH_SIZE, MAX_BODY_BYTES, body_frame_bytes, text_bytes


class Packer:
    """Takes one valid text at a time and returns the batches that it completes.

    It holds fewer than MAX_BATCH_SIZE texts. A valid text always fits alone: 10,000 characters are
    at most 60,000 bytes.
    """

    def __init__(self, model: str) -> None:
        self._room = MAX_BODY_BYTES - body_frame_bytes(model)
        self._texts: list[str] = []
        self._bytes = 0

    def add(self, text: str) -> list[list[str]]:
        """Add `text`. Returns the batches that are full now: at most two."""
        full = []
        size = text_bytes(text)
        if self._texts and self._bytes + size > self._room:
            full.append(self.rest())
        self._texts.append(text)
        self._bytes += size
        if len(self._texts) == MAX_BATCH_SIZE:
            full.append(self.rest())
        return full

    def rest(self) -> list[str]:
        """The texts that were added and not yet returned."""
        texts, self._texts, self._bytes = self._texts, [], 0
        return texts


def pack(texts: Iterable[str], model: str) -> Iterator[list[str]]:
    """Batches that each make one request under both limits, greedily and in order."""
    packer = Packer(model)
    for text in texts:
        yield from packer.add(text)
    if rest := packer.rest():
        yield rest
