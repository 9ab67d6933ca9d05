"""Trials of texts, with an API in memory that refuses what a test says."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Optional

from vector_embed_client import EmbeddingArray, VectorEmbedError
from worker.engine.evidence import Experience
from worker.engine.verdicts import Outcome, embed
from worker.types import Embedded, Job, Lease, Refused

Fault = Callable[[Sequence[str]], Optional[VectorEmbedError]]


class Api:
    """Answers each text with its length as a vector of one, unless `fault` finds one."""

    def __init__(self, fault: Fault = lambda texts: None) -> None:
        self.requests: list[list[str]] = []
        self._fault = fault

    def send(self, texts: Sequence[str]) -> EmbeddingArray:
        self.requests.append(list(texts))
        error = self._fault(texts)
        if error is not None:
            raise error
        data = struct.pack(f"<{len(texts)}f", *map(len, texts))
        return EmbeddingArray(data, 1, [False] * len(texts))


def lease(number: int, text: str, attempts: int = 0) -> Lease:
    return Lease(f"1-{number}".encode(), Job(f"id{number}", text), attempts, 0)


def leases(count: int, *, poison: Sequence[int] = ()) -> list[Lease]:
    return [
        lease(number, ("poison " if number in poison else "text ") + str(number))
        for number in range(count)
    ]


def run(given: Sequence[Lease], api: Api, experience: Experience | None = None) -> list[Outcome]:
    trial = embed(given, "nomic-v1.5", api.send, experience, dimensions=1)
    return [outcome for outcomes in trial for outcome in outcomes]


def ids(outcomes: Sequence[Outcome], kind: type) -> set[str]:
    return {
        outcome.lease.job.id
        for outcome in outcomes
        if isinstance(outcome, kind) and isinstance(outcome, (Embedded, Refused))
    }


def poisoned(texts: Sequence[str]) -> list[int]:
    return [index for index, text in enumerate(texts) if text.startswith("poison")]
