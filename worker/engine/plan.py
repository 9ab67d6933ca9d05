"""The plan of a dry run: texts, requests and bytes of corpora, counted without Redis and a key.

Texts are packed by the worker's own code, as many at a time as a worker claims.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from vector_embed_client.http import body_frame_bytes, text_bytes

from ..corpus.spill import Distinct, Latest
from ..layout import memory
from ..store.backlog import BATCH_SIZE
from ..types import Job, Lease, document_of
from .batching import pack

# Measured: what Redis keeps beside a queued text and its id twice; and for ids of vectors of up to
# 64 characters.
QUEUED_BYTES = 130
ID_BYTES = 158


class Plan(NamedTuple):
    """The costs of corpora.

    All but the first two are upper bounds: what is stored or cached already costs nothing.
    """

    texts: int
    rejected: int
    ids: int
    distinct: int  # texts
    requests: int
    request_bytes: int
    queued_bytes: int  # of Redis' memory, all texts queued at once
    kept_bytes: int  # of Redis' memory, for texts and fields kept beside their vectors
    documents: int = 0  # different ids in the corpora; some may be split
    split: int = 0

    def stored_bytes(self, length: int, dtype: str = "float32") -> int:
        """The bytes of Redis' memory for all vectors and what is kept beside them."""
        return self.ids * (memory(length, dtype) + ID_BYTES) + self.kept_bytes


class Planner:
    """Adds up the costs of jobs.

    `documents`: the jobs may be pieces. Of a document that comes again, the last pieces count.
    """

    def __init__(self, model: str, *, keep_text: bool, documents: bool = False) -> None:
        self._may_be_pieces = documents
        self._model = model
        self._keep_text = keep_text
        self._frame = body_frame_bytes(model)
        self._claim: list[Lease] = []
        self._pieces = Latest()  # of each document; 0 if it has its own id
        self._last = ("", ""), 0  # the latest one
        self._texts = Distinct()
        self.texts = self.rejected = 0
        self._requests = self._request_bytes = self._queued_bytes = self._kept_bytes = 0

    def add(self, job: Job, collection: str) -> None:
        """Add one text of a collection."""
        self.texts += 1
        document, number = document_of(job.id) if self._may_be_pieces else (job.id, 0)
        if number < 2:
            self._end_document()
        self._last = (collection, document), number
        self._texts.add(job.text)
        size = len(job.text.encode())
        meta = len(json.dumps(job.meta, ensure_ascii=False).encode()) if job.meta else 0
        self._queued_bytes += size + meta + 2 * len(job.id.encode()) + QUEUED_BYTES
        self._kept_bytes += meta + (size if self._keep_text else 0)
        self._claim.append(Lease(b"", job, 0, 0))
        if len(self._claim) == BATCH_SIZE:
            self.pack()

    def pack(self) -> None:
        """Pack what is left: the next text belongs to another collection."""
        for batch in pack(self._claim, self._model):
            self._requests += 1
            self._request_bytes += self._frame + sum(text_bytes(one.text) for one in batch)
        self._claim.clear()

    def _end_document(self) -> None:
        key, pieces = self._last
        if key[1]:
            self._pieces.set(key, pieces)

    def plan(self) -> Plan:
        """The sum. Call it once."""
        self.pack()
        self._end_document()
        ids = documents = split = 0
        for pieces in self._pieces.read():
            ids += pieces or 1
            documents += 1
            split += pieces > 0
        return Plan(
            self.texts,
            self.rejected,
            ids,
            self._texts.count(),
            self._requests,
            self._request_bytes,
            self._queued_bytes,
            self._kept_bytes,
            documents,
            split,
        )
