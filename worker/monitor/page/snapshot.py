"""The snapshot: all that the overview shows, as it was read from Redis together.

It is read as `vec watch` reads it: the ledgers some hundreds in a round trip, the workers and the
throttles once. No text, vector or dead letter is read, and no key is scanned.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...settings import Settings
from ...store.connection import Redis, connect
from ...store.keys import CommonKeys
from ...store.nodes import time_of
from ...store.server_memory import Memory, read_memory
from ...throttle import known_throttles, read_throttles
from ...types import Status, ThrottleStatus
from ..fleet import LOST_SECONDS, Worker, read_fleet
from ..obstacle import CommandLine, Obstacle
from ..overview import Sums, overview
from ..requests import read_requests
from ..scene import Surroundings
from ..service import read_statuses

MOST = 1000  # collections that are listed; the sums are of all
LOOKED_AT = 100  # of these, the first, for which it is asked what blocks them


class Endpoint(NamedTuple):
    """A throttle, and the address that it is for; empty where no worker announced it."""

    address: str
    throttle: ThrottleStatus


@dataclass(frozen=True)
class Snapshot:
    """What there is in one Redis at one moment."""

    at: float  # Unix seconds, of this machine's clock
    seconds: float  # that it took to read
    sums: Sums
    first: Sequence[Status]  # at most MOST, the one to look at first, first
    obstacles: Mapping[str, Obstacle]  # what blocks a collection, by its name
    fleet: Sequence[Worker]  # seen within the hour
    endpoints: Sequence[Endpoint]
    outcomes: Mapping[str, int]  # of all requests so far: `ok`, or the code of the error
    memory: Memory

    @property
    def alive(self) -> list[Worker]:
        """The living workers."""
        return [worker for worker in self.fleet if worker.alive]


def read_snapshot(settings: Settings, command: CommandLine) -> Snapshot:
    """Read what there is now. Raises `redis.RedisError`."""
    begun = time.monotonic()
    client = connect(settings)
    seen = overview(read_statuses(client, settings.prefix, settings.queue), MOST)
    obstacles = Surroundings(settings, command).obstacles(seen.first[:LOOKED_AT])
    fleet = read_fleet(client, settings.prefix)
    endpoints = _endpoints(client, settings.prefix, fleet, seen.first)
    outcomes: Counter[str] = Counter()
    for one in endpoints:
        outcomes.update(read_requests(client, settings.prefix, one.throttle.name).outcomes)
    memory = read_memory(client)
    seconds = time.monotonic() - begun
    return Snapshot(
        time.time(), seconds, *seen, obstacles, fleet, endpoints, dict(outcomes), memory
    )


def _endpoints(
    client: Redis, prefix: str, fleet: Sequence[Worker], statuses: Sequence[Status]
) -> list[Endpoint]:
    """The throttles of living workers, and those that were announced within the hour."""
    now, _ = time_of(client, CommonKeys(prefix).throttles)
    announced = known_throttles(client, prefix)
    names = {name for name, one in announced.items() if one.seen > now - LOST_SECONDS}
    names |= {name for worker in fleet if worker.alive for name in worker.keys}
    # A halt or a pause of one model under a key is told by the collections of that model.
    stopped = {one.name: one for one in _throttles(statuses) if one.state != "running" and one.name}
    known = read_throttles(client, prefix, sorted(names))
    return [
        Endpoint(
            announced[name].endpoint if name in announced else "",
            stopped.get(name, one) if one.state == "running" else one,
        )
        for name, one in known.items()
    ]


def _throttles(statuses: Sequence[Status]) -> Iterator[ThrottleStatus]:
    for status in statuses:
        yield from status.keys or ([] if status.throttle is None else [status.throttle])
