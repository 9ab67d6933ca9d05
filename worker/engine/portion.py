"""A portion: what a slice holds of one collection.

A batch has a portion of the slice's own collection and, where that does not fill it, of others.
Each is committed in a step of its own, so the ledger of each collection is exact by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..logs import ONCE, logger
from ..store.backlog import Backlog, Commit, commit_all
from ..types import Committed, Embedded, Info, Lease, Refused
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
        self.dimensions = 0  # of the vectors that were stored last
        self._process = process

    @property
    def name(self) -> str:
        return self.backlog.name

    def hold(self, leases: list[Lease]) -> None:
        """Begin with these."""
        self.leases, self.failed, self.tested = leases, [], 0

    def _commit(self, outcomes: Sequence[Outcome]) -> Commit | None:
        """Sort outcomes; what of them is to be stored."""
        self.tested += len(outcomes)
        embedded = [one for one in outcomes if isinstance(one, Embedded)]
        refused = [one for one in outcomes if isinstance(one, Refused)]
        for outcome in outcomes:
            if not isinstance(outcome, (Embedded, Refused)):
                lease = outcome.lease
                counts = range(lease.attempts, lease.attempts + outcome.times)
                self.failed += [lease._replace(attempts=before) for before in counts]
        if not embedded and not refused:
            return None
        return Commit(self.backlog, embedded, refused, self.info.keep_text, self.info.layout)

    def _settled(self, commit: Commit, committed: Committed) -> None:
        if commit.embedded:
            self.dimensions = len(commit.embedded[0].vector) // 4
        self._process.count(self.name, committed.stored + committed.dead)
        if committed.fenced and self.backlog.is_gone():
            logger.error(
                "%s is gone from Redis, with all that was queued and stored: enqueue it again",
                self.name,
            )
        for refusal in commit.refused:
            logger.warning("%s: text %s is dead: %s", self.name, refusal.lease.job.id, refusal.code)


def settle_all(
    settled: Iterable[tuple[Portion, Sequence[Outcome]]], own: Portion | None = None
) -> None:
    """Store outcomes of several portions, in one round trip to each node of a cluster.

    Where the outcomes of `own` are not stored, raises why: DimensionsDiffer, LayoutError or
    `redis.RedisError`. Where those of others are not, it is logged.
    """
    found = [(one, one._commit(outcomes)) for one, outcomes in settled]
    commits = [(one, commit) for one, commit in found if commit is not None]
    fault: Exception | None = None
    for (one, commit), said in zip(commits, commit_all([commit for _, commit in commits])):
        if isinstance(said, Committed):
            one._settled(commit, said)
        elif one is own:
            fault = said
        else:
            logger.warning("%s will be tried again: %s", one.name, said, extra=ONCE)
    if fault is not None:
        raise fault
