"""The dry run: the texts, requests and bytes of a corpus, counted without Redis and without a key.

Texts are packed by the worker's own code, a claim's worth at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import NamedTuple

from vector_embed_client.http import body_frame_bytes, text_bytes

from ..corpus.spill import Distinct
from ..engine.batching import pack
from ..store.backlog import BATCH_SIZE
from ..types import Job, Lease, Rate
from . import figures, pace

# Measured: what Redis keeps beside a queued text and its id twice, and beside a vector.
QUEUED_BYTES = 130
STORED_BYTES = 1000


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


class Planner:
    """Adds up the costs of jobs."""

    def __init__(self, model: str, *, keep_text: bool) -> None:
        self._model = model
        self._keep_text = keep_text
        self._frame = body_frame_bytes(model)
        self._claim: list[Lease] = []
        self._ids = Distinct()
        self._texts = Distinct()
        self.texts = self.rejected = 0
        self._requests = self._request_bytes = self._queued_bytes = self._kept_bytes = 0

    def add(self, job: Job, collection: str) -> None:
        """Add one text of a collection."""
        self.texts += 1
        self._ids.add((collection, job.id))
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
        for slots in pack(self._claim, self._model):
            self._requests += 1
            self._request_bytes += self._frame + sum(text_bytes(slot.text) for slot in slots)
        self._claim.clear()

    def plan(self) -> Plan:
        """The sum; to be asked once."""
        self.pack()
        return Plan(
            self.texts,
            self.rejected,
            self._ids.count(),
            self._texts.count(),
            self._requests,
            self._request_bytes,
            self._queued_bytes,
            self._kept_bytes,
        )


def plan_page(
    label: str,
    plan: Plan,
    *,
    dimensions: int,
    high_water: int,
    quota: int | None,
    rate: Rate | None,
) -> Iterator[str]:
    """The result of a dry run, a line for each fact."""
    yield f"{label}: a dry run, nothing was sent"
    queue = plan.queued_bytes * min(1.0, high_water / plan.texts) if plan.texts else 0
    vectors = plan.ids * (4 * dimensions + STORED_BYTES) + plan.kept_bytes
    rows = [
        ("texts", f"{plan.texts:,}", _apart(plan)),
        (
            "distinct texts",
            f"{plan.distinct:,}",
            "charged once each; twice if two requests overlap",
        ),
        ("rejected lines", f"{plan.rejected:,}", ""),
        ("requests", f"{plan.requests:,}", f"{figures.size(plan.request_bytes)} to send"),
        ("Redis", figures.size(queue), f"for the queue, of at most {high_water:,} texts"),
        (
            "",
            figures.size(vectors),
            f"for {figures.count(plan.ids, 'vector')} of {dimensions} dimensions",
        ),
    ]
    if quota is not None:
        days = math.ceil(plan.distinct / quota)
        rows.append(("quota", figures.count(days, "day"), f"at {quota:,} texts a day"))
    if rate is not None:
        seconds = (plan.requests if rate.of == "requests" else plan.distinct) / rate.per_second
        given = pace.per_second(rate.per_second, rate.of[:-1])
        rows.append(("time", figures.duration(seconds), f"at {given}"))
    width = max(len(figure) for _, figure, _ in rows)
    for name, figure, remark in rows:
        yield f"  {name:<14}  {figure:>{width}}  {remark}".rstrip()
    yield "  It may be less: what is stored, queued or cached already costs nothing."


def _apart(plan: Plan) -> str:
    replaced = plan.texts - plan.ids
    return f"{replaced:,} of them under the id of another" if replaced else ""
