"""Joining: what is urgent joins a batch in hand, at the moment when that may be sent.

While request slots are short, each thread holds a batch that it claimed before. A text for which
someone waits would wait for all of them. So whoever gets the next slot looks what is urgent, in its
own collection and in others that share its requests. That goes first, and as many texts of the
batch are released at its end. An urgent collection that shares no request (it has another model or
layout) gets the slice's thread after that batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import redis

from ..logs import logger
from ..store.backlog import BATCH_SIZE, claim_all
from ..store.connection import Redis
from ..store.urgent import urgent_collections
from ..types import Lease
from .filling import Filling, shares
from .portion import Portion
from .process import Process

MOST = BATCH_SIZE * 8 // 10  # urgent texts in a batch: both other priorities keep their parts


class Joining:
    """What joins the batches of one slice."""

    def __init__(
        self, process: Process, client: Redis, own: Portion, consumer: str, filling: Filling
    ) -> None:
        self.elsewhere: str | None = None  # an urgent collection that needs a slice of its own
        self._process = process
        self._redis = client
        self._prefix = process.settings.prefix
        self._own = own
        self._consumer = consumer
        self._filling = filling
        self._over: dict[str, bytes] = {}  # those of the last look with nothing urgent left
        self._apart: dict[str, bytes] = {}  # those that share no request with the slice's own

    def portions(self, others: Sequence[Portion], dimensions: int | None) -> list[Portion]:
        """The portions of the collections with urgent texts: known ones, and new ones, empty."""
        try:
            seen = urgent_collections(self._redis, self._prefix, self._over)
            names = {name: at for name, at in seen.items() if self._apart.get(name) != at}
            known = {one.name: one for one in (self._own, *others)}
            found = [known[name] for name in names if name in known]
            found += self._filling.portions_of(names.keys() - known.keys(), dimensions)
        except redis.RedisError as error:
            logger.debug("nothing urgent joins a batch: %s", error)
            return []
        sharing = {one.name for one in found}
        for name in names.keys() - sharing:  # one only: the others are for the next slice
            if self.elsewhere is None and self._process.gives_way(name, names[name]):
                self.elsewhere = name
        self._apart = {name: at for name, at in seen.items() if name not in sharing}
        self._over = {name: at for name, at in seen.items() if name in sharing}
        return found

    def join(self, portions: Sequence[Portion]) -> None:
        """Claim what is urgent, for these portions."""
        held = portions if self._own in portions else [self._own, *portions]
        room = MOST - sum(lease.urgent for one in held for lease in one.leases)
        portions = portions[: max(0, room)]
        if not portions:
            self._over = {}
            return
        counts = list(shares(room, portions))
        backlogs = [one.backlog for one in portions]
        claimed = claim_all(backlogs, self._consumer, counts, urgent=True)
        given = zip(portions, counts, claimed)
        left = {one.name for one, count, leases in given if len(leases) < count}
        self._over = {name: at for name, at in self._over.items() if name in left}
        for one, leases in zip(portions, claimed):
            one.hold([*leases, *one.leases])


def first_ones(leases: Iterable[Lease], most: int) -> list[Lease]:
    """The urgent leases, then the others; at most so many."""
    return sorted(leases, key=lambda lease: not lease.urgent)[:most]
