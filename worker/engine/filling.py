"""Filling: texts of other collections for the room that a batch has left.

So a thousand collections with a text each need ten requests. The others are chosen at random among
those that have a backlog, and each gives an equal part of what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import redis

from ..logs import logger
from ..store.backlog import Backlog, claim_all
from ..store.connection import Redis
from ..store.keys import CollectionKeys
from ..store.reader import read_infos
from ..store.registry import some_busy
from ..types import Info
from .portion import Portion
from .process import Process

ROUNDS = 2  # what some could not give, the others may
LOOKED_AT = 2  # times as many collections as texts are wanted: not all may share a request


class Filling:
    """The portions of other collections beside those of `own`, for one slice.

    `throttles`: says under which ones the process works now.
    """

    def __init__(
        self,
        process: Process,
        client: Redis,
        own: Portion,
        consumer: str,
        throttles: Callable[[], Iterable[str]],
    ) -> None:
        self._process = process
        self._redis = client
        self._prefix = process.settings.prefix
        self._own = own
        self._consumer = consumer
        self._throttles = throttles

    def portions(self, texts: int, dimensions: int | None) -> list[Portion]:
        """Portions, still empty, of collections that may give up to `texts`.

        `dimensions`: as the API answers, if that is known. Those come last that a thread of this
        process has in hand: often nothing is left of them. Nor are those found whose node of a
        cluster is away.
        """
        found: list[Portion] = []
        try:
            most = LOOKED_AT * texts + 1
            names = some_busy(self._redis, self._prefix, most, but=self._own.name)
            names.sort(key=self._process.in_hand().__contains__)
            while names and len(found) < texts:
                found += self.portions_of(names[:texts], dimensions)
                del names[:texts]
        except redis.RedisError as error:
            logger.debug("no other collections share a request: %s", error)
            return []
        return found[:texts]

    def portions_of(self, names: Iterable[str], dimensions: int | None) -> list[Portion]:
        """Portions, still empty, of those of some collections that may share a request."""
        names = [name for name in names if self._process.may_claim(name)]
        infos = read_infos(self._redis, self._prefix, names)
        throttles = set(self._throttles()) - self._own.info.halts.keys()  # that the batch may ask
        found = []
        for name, info in zip(names, infos):
            if info is not None and self._fits(info, dimensions, throttles):
                keys = CollectionKeys(self._prefix, name)
                found.append(Portion(self._process, Backlog(self._redis, keys), info))
        return found

    def fill(self, portions: Sequence[Portion], texts: int) -> None:
        """Claim up to `texts` for all portions together."""
        giving = list(portions)
        for _ in range(ROUNDS):
            if not giving or texts <= 0:
                return
            # What a consumer holds already is given to it again, before anything new.
            counts = [len(one.leases) + more for one, more in zip(giving, shares(texts, giving))]
            backlogs = [one.backlog for one in giving[: len(counts)]]
            full = []
            for one, count, leases in zip(
                giving, counts, claim_all(backlogs, self._consumer, counts)
            ):
                texts -= len(leases) - len(one.leases)
                one.hold(leases)
                if len(leases) == count:
                    full.append(one)
            giving = full

    def _fits(self, info: Info, dimensions: int | None, throttles: Iterable[str]) -> bool:
        """Whether its texts may go into a request for the slice's own collection."""
        own = self._own.info
        return (
            (info.model, info.layout) == (own.model, own.layout)
            and info.dimensions in (None, dimensions)
            and info.halts.keys().isdisjoint(throttles)
            and info.throttle is None
        )


def shares(texts: int, givers: Sequence[Portion]) -> Iterator[int]:
    """How many texts each giver is asked for: equal parts, the first ones a text more."""
    each, more = divmod(texts, len(givers))
    for place in range(min(len(givers), texts)):
        yield each + (place < more)
