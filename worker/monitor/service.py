"""The service of collections: living workers, what their keys may do, and pauses by hand.

Any worker that consumes our queue serves any collection. So a collection stops only if none of them
can work on it. A throttle without living workers does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import NamedTuple

from ..store.connection import CLAIM_MEMORY, Redis
from ..store.keys import CollectionKeys
from ..store.ledgers import read_ledger, read_ledgers
from ..store.registry import collection_names
from ..store.server_memory import memory_used
from ..throttle import read_throttles
from ..throttle.holds import holding, read_holds
from ..types import Info, Ledger, Status, ThrottleStatus
from .fleet import WORKER_SECONDS, Recent, Worker, read_fleet

_ORDER = ("running", "paused", "halted")


class Standing(NamedTuple):
    """How a collection is served at one moment."""

    state: str  # running, paused or halted; running too where no worker is alive
    reason: str | None = None
    paused_until: float | None = None  # Unix seconds; None also for a pause by hand
    workers: int = 0  # alive, and consuming our queue
    able: int = 0  # of them neither halted nor unfit
    throttle: ThrottleStatus | None = None  # of the key that can serve it best
    held: bool = False  # by hand
    keys: Sequence[ThrottleStatus] = ()  # the throttles of all keys of these workers
    key_fault: str | None = None  # why one of them cannot read its key file


class Service:
    """The service at one moment, read once for any number of collections."""

    def __init__(self, client: Redis, prefix: str, queue: str) -> None:
        self._client = client
        self.fleet = read_fleet(client, prefix, WORKER_SECONDS)
        self._workers = [one for one in self.fleet if one.queue in (None, queue)]
        self._holds = read_holds(client, prefix)
        self._read = partial(read_throttles, client, prefix)
        self._recent = Recent(self.fleet)
        self._faulty = {name for one in self._workers for name in one.faults}
        self._usual: dict[tuple[str | None, str | None], Standing] = {}  # by model and throttle
        self._known: dict[tuple[str | None, str | None], Mapping[str, ThrottleStatus]] = {}

    @property
    def any_older(self) -> bool:
        """Whether a worker of an earlier version is alive, which announces no throttle."""
        return any(one.throttle is None for one in self._workers)

    def standing(self, collection: str, known: Info | Ledger) -> Standing:
        """How a collection is served."""
        older = known.throttle
        best = self._best(collection, known)
        held = holding(self._holds, collection)
        if held is None and older is not None:
            throttle = self._throttles(known.model, older)[older]
            held = throttle.reason if throttle.is_held else None
        if held is None:
            return best
        return best._replace(state="paused", reason=held, paused_until=None, held=True)

    def _best(self, collection: str, known: Info | Ledger) -> Standing:
        """How it is served by the worker that can serve it best."""
        kind = known.model, known.throttle
        is_usual = not known.halts and collection not in self._faulty
        if is_usual and kind in self._usual:  # of thousands, almost all
            return self._usual[kind]
        throttles = self._throttles(*kind)
        ways = [
            min(_ways(worker, collection, throttles, known), key=_rank) for worker in self._workers
        ]
        idle = Standing("running")
        if known.halts:
            idle = Standing("halted", "; ".join(known.halts.values()))
        best = min(ways, key=_rank, default=idle)
        able = sum(way.state != "halted" for way in ways)
        names = sorted({name for one in self._workers for name in one.keys})
        keys = tuple(throttles[name] for name in names)
        fault = next((one.key_fault for one in self._workers if one.key_fault), None)
        best = best._replace(workers=len(ways), able=able, keys=keys, key_fault=fault)
        if is_usual:
            self._usual[kind] = best
        return best

    def is_open(self, collection: str, info: Info) -> bool:
        """Whether a worker can work on a collection now, as far as is known."""
        return self.standing(collection, info).state == "running"

    def status(self, collection: str, ledger: Ledger) -> Status:
        """The ledger of a collection, and the state of the work on it."""
        standing = self.standing(collection, ledger)
        state, reason, until = self._state(ledger, standing)
        index = ledger.index
        return Status(
            collection=collection,
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
            rate=self._recent.rate(collection),
            throttle=standing.throttle,
            held=standing.held,
            seconds_since_done=self._recent.seconds_since_done(collection),
            able=standing.able,
            removed=ledger.removed_ever,
            index=None if index is None else index.kind,
            index_behind=0 if index is None else index.behind(ledger.commits),
            keys=standing.keys,
            key_fault=standing.key_fault,
        )

    def _state(self, ledger: Ledger, standing: Standing) -> tuple[str, str | None, float | None]:
        """The state of the work, the reason, and until when a pause lasts."""
        state = standing.state
        if state == "running" and ledger.backlog:
            if self._fullness >= CLAIM_MEMORY:
                full = f"Redis is {self._fullness:.0%} full: make room or raise maxmemory"
                return "paused", full, None
            state = "running" if standing.workers else "waiting"
        elif state == "running":
            state = "idle"
        return state, standing.reason, standing.paused_until

    @cached_property
    def _fullness(self) -> float:
        """The share of its memory that Redis uses."""
        return memory_used(self._client)

    def _throttles(self, model: str | None, older: str | None) -> Mapping[str, ThrottleStatus]:
        if (model, older) not in self._known:
            names = {name for one in self._workers for name in one.keys}
            named = sorted(names if older is None else {*names, older})
            self._known[model, older] = self._read(named, model)
        return self._known[model, older]


def is_open_under(
    client: Redis, keys: CollectionKeys, info: Info, throttles: Sequence[str]
) -> bool:
    """Whether a collection may be worked on now under an API key of these throttles."""
    names = [name for name in throttles if name not in info.halts]
    if not names or holding(read_holds(client, keys.prefix), keys.name) is not None:
        return False
    older = [] if info.throttle is None else [info.throttle]
    known = read_throttles(client, keys.prefix, [*names, *older], info.model)
    is_held = any(known[name].is_held for name in older)
    return not is_held and any(known[name].state == "running" for name in names)


def best(keys: Sequence[ThrottleStatus]) -> ThrottleStatus:
    """The throttle that lets a request go first, of at least one."""
    return min(keys, key=_rank)


def read_status(client: Redis, keys: CollectionKeys, queue: str) -> Status:
    """The ledger of a collection, and the state of the work on it."""
    ledger = read_ledger(client, keys)
    return Service(client, keys.prefix, queue).status(keys.name, ledger)


def read_statuses(
    client: Redis, prefix: str, queue: str, names: Sequence[str] | None = None
) -> Iterator[Status]:
    """The status of every collection, or of those named, in the order of the names.

    The workers and throttles are read once. Left out is what `read_ledgers` leaves out.
    """
    if names is None:
        names = collection_names(client, prefix)
    service = Service(client, prefix, queue)
    for name, ledger in read_ledgers(client, prefix, names):
        yield service.status(name, ledger)


def _ways(
    worker: Worker, collection: str, throttles: Mapping[str, ThrottleStatus], known: Info | Ledger
) -> Iterator[Standing]:
    """How one worker serves a collection, with each of its keys."""
    if collection in worker.faults:
        yield Standing("halted", worker.faults[collection])
        return
    for name in worker.keys or [known.throttle or ""]:
        halt, throttle = known.halts.get(name), throttles.get(name)
        if halt is not None:
            yield Standing("halted", halt)
        elif throttle is None:
            yield Standing("running")
        else:
            state, reason, until = throttle.state, throttle.reason, throttle.paused_until
            yield Standing(state, reason, until, throttle=throttle)


def _rank(way: Standing | ThrottleStatus) -> tuple[int, float]:
    return _ORDER.index(way.state), way.paused_until or float("inf")
