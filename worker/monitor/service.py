"""The service of collections: living workers, what their keys may do, and pauses by hand.

Any worker that consumes our queue serves any collection. So a collection stops only if none of them
can work on it. A throttle without living workers does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from ..store.connection import CLAIM_MEMORY, Redis, memory_used
from ..store.keys import CollectionKeys
from ..store.reader import Reader
from ..throttle import read_throttles
from ..throttle.holds import holding, read_holds
from ..types import Info, Ledger, Status, ThrottleStatus
from .fleet import WORKER_SECONDS, Worker, rate_of, read_fleet, seconds_since_done

_ORDER = ("running", "paused", "halted")


class Standing(NamedTuple):
    """How a collection is served at one moment."""

    state: str  # running, paused or halted; running too where no worker is alive
    reason: str | None = None
    paused_until: float | None = None  # Unix seconds; None also for a pause by hand
    workers: int = 0  # alive, and consuming our queue
    able: int = 0  # of them neither halted nor unfit
    throttle: ThrottleStatus | None = None  # of the worker that can serve it best
    held: bool = False  # by hand


class Service:
    """The service at one moment, read once for any number of collections."""

    def __init__(self, client: Redis, prefix: str, queue: str) -> None:
        self.fleet = read_fleet(client, prefix, WORKER_SECONDS)
        self._workers = [one for one in self.fleet if one.queue in (None, queue)]
        self._holds = read_holds(client, prefix)
        self._read = partial(read_throttles, client, prefix)
        self._known: dict[tuple[str | None, str | None], Mapping[str, ThrottleStatus]] = {}

    @property
    def any_older(self) -> bool:
        """Whether a worker of an earlier version is alive, which announces no throttle."""
        return any(one.throttle is None for one in self._workers)

    def standing(self, collection: str, known: Info | Ledger) -> Standing:
        """How a collection is served."""
        older = known.throttle
        throttles = self._throttles(known.model, older)
        ways = [_way(worker, collection, throttles, known) for worker in self._workers]
        idle = Standing("running")
        if known.halts:
            idle = Standing("halted", "; ".join(known.halts.values()))
        best = min(ways, key=_rank, default=idle)
        best = best._replace(workers=len(ways), able=sum(way.state != "halted" for way in ways))
        held = holding(self._holds, collection)
        if held is None and older is not None and throttles[older].is_held:
            held = throttles[older].reason
        if held is None:
            return best
        return best._replace(state="paused", reason=held, paused_until=None, held=True)

    def is_open(self, collection: str, info: Info) -> bool:
        """Whether a worker can work on a collection now, as far as is known."""
        return self.standing(collection, info).state == "running"

    def _throttles(self, model: str | None, older: str | None) -> Mapping[str, ThrottleStatus]:
        if (model, older) not in self._known:
            names = {one.throttle for one in self._workers} | {older}
            named = sorted(name for name in names if name is not None)
            self._known[model, older] = self._read(named, model)
        return self._known[model, older]


def is_open_under(client: Redis, keys: CollectionKeys, info: Info, throttle: str) -> bool:
    """Whether a collection may be worked on now under the API key of this throttle."""
    if throttle in info.halts or holding(read_holds(client, keys.prefix), keys.name) is not None:
        return False
    names = [throttle] if info.throttle is None else [throttle, info.throttle]
    known = read_throttles(client, keys.prefix, names, info.model)
    return known[throttle].state == "running" and not known[names[-1]].is_held


def read_status(client: Redis, keys: CollectionKeys, queue: str) -> Status:
    """The ledger of a collection, and the state of the work on it."""
    ledger = Reader(client, keys).ledger()
    service = Service(client, keys.prefix, queue)
    standing = service.standing(keys.name, ledger)
    state, reason, until = _state(client, ledger, standing)
    index = ledger.index
    return Status(
        collection=keys.name,
        model=ledger.model,
        dimensions=ledger.dimensions and ledger.layout.length(ledger.dimensions),
        answered_dimensions=ledger.dimensions,
        dtype=ledger.layout.dtype,
        enqueued=ledger.enqueued,
        embedded=ledger.embedded,
        evicted=ledger.evicted,
        dead=ledger.dead,
        pending=ledger.pending,
        leased=ledger.leased,
        unchanged=ledger.unchanged,
        cached=ledger.cached_ever,
        state=state,
        reason=reason,
        paused_until=until,
        workers=standing.workers,
        rate=rate_of(service.fleet, keys.name),
        throttle=standing.throttle,
        held=standing.held,
        seconds_since_done=seconds_since_done(service.fleet, keys.name),
        able=standing.able,
        removed=ledger.removed_ever,
        index=None if index is None else index.kind,
        index_behind=0 if index is None else index.behind(ledger.commits),
    )


def _state(
    client: Redis, ledger: Ledger, standing: Standing
) -> tuple[str, str | None, float | None]:
    """The state of the work, the reason, and until when a pause lasts."""
    state = standing.state
    if state == "running" and ledger.backlog:
        if (used := memory_used(client)) >= CLAIM_MEMORY:
            return "paused", f"Redis is {used:.0%} full: make room or raise maxmemory", None
        state = "running" if standing.workers else "waiting"
    elif state == "running":
        state = "idle"
    return state, standing.reason, standing.paused_until


def _way(
    worker: Worker, collection: str, throttles: Mapping[str, ThrottleStatus], known: Info | Ledger
) -> Standing:
    """How one worker serves a collection."""
    if collection in worker.faults:
        return Standing("halted", worker.faults[collection])
    halt = known.halts.get(worker.throttle or "")
    if halt is not None:
        return Standing("halted", halt)
    throttle = throttles.get(worker.throttle or known.throttle or "")
    if throttle is None:
        return Standing("running")
    return Standing(throttle.state, throttle.reason, throttle.paused_until, throttle=throttle)


def _rank(way: Standing) -> tuple[int, float]:
    return _ORDER.index(way.state), way.paused_until or float("inf")
