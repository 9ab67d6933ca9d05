"""A portion: what a slice holds of one collection.

A batch has a portion of the slice's own collection and, where that does not fill it, of others.
Each is committed in a step of its own, so the ledger of each collection is exact by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..logs import logger
from ..store.backlog import Backlog
from ..types import Embedded, Info, Lease, Refused
from .process import Process
from .verdicts import Outcome


class Portion:
    """The leases of one slice on one collection, and their outcomes."""

    def __init__(self, process: Process, backlog: Backlog, info: Info) -> None:
        self.backlog = backlog
        self.info = info
        self.leases: list[Lease] = []
        self.failed: list[Lease] = []  # alone, and not yet counted in Redis
        self.tested = 0  # of the leases: they have an outcome
        self._process = process

    @property
    def name(self) -> str:
        return self.backlog.name

    def hold(self, leases: list[Lease]) -> None:
        """Begin with these."""
        self.leases, self.failed, self.tested = leases, [], 0

    def settle(self, outcomes: Sequence[Outcome]) -> int:
        """Store the outcomes of some leases; returns the length of their vectors, 0 without any.

        Raises DimensionsDiffer.
        """
        self.tested += len(outcomes)
        embedded = [one for one in outcomes if isinstance(one, Embedded)]
        refused = [one for one in outcomes if isinstance(one, Refused)]
        for outcome in outcomes:
            if not isinstance(outcome, (Embedded, Refused)):
                lease = outcome.lease
                counts = range(lease.attempts, lease.attempts + outcome.times)
                self.failed += [lease._replace(attempts=before) for before in counts]
        if not embedded and not refused:
            return 0
        committed = self.backlog.commit(
            embedded, refused, keep_text=self.info.keep_text, layout=self.info.layout
        )
        self._process.count(self.name, committed.stored + committed.dead)
        if committed.fenced and self.backlog.is_gone():
            logger.error(
                "%s is gone from Redis, with all that was queued and stored: enqueue it again",
                self.name,
            )
        for refusal in refused:
            logger.warning("%s: text %s is dead: %s", self.name, refusal.lease.job.id, refusal.code)
        return len(embedded[0].vector) // 4 if embedded else 0
