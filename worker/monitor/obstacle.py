"""The obstacle: what blocks the backlog of a collection, in words, and what to do.

A pure function over a `Scene`, and the module that decides these words. It names the first
obstacle that applies: what stops everything comes before what stops a part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..types import Status
from . import figures, pace

if TYPE_CHECKING:  # it imports redis, which --help does not need
    from .fleet import Trouble, Work, Worker

# The command line for these words, about the same Redis; empty if it is not for people to type.
CommandLine = Callable[..., str]
RECENT_SECONDS = 90.0  # a worker's complaint may be the reason for this long


@dataclass(frozen=True)
class Scene:
    """A collection's status, and what may block its work. None: not looked at.

    `scene.py` reads it.
    """

    status: Status
    command: CommandLine
    fleet: Sequence[Worker] | None = None  # seen within the hour
    queue: str = ""  # where the workers' wake-ups go
    refusal: str | None = None  # why Redis takes no change
    broker: str | None = None  # why the broker does not answer
    quarantined: bool = False  # there are texts that may have killed their worker


class Obstacle(NamedTuple):
    """A short word for its kind, what blocks the backlog, and what to do."""

    kind: str
    said: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """Both in one line."""
        return f"{self.said}: {self.remedy}" if self.remedy else self.said


def start_worker(command: CommandLine) -> str:
    """What to do if no worker is alive."""
    start = command("worker")
    return f"start one with {start}" if start else "--local starts one for a command that waits"


def obstacle(scene: Scene) -> Obstacle | None:
    """What blocks the backlog; None if nothing is known, or if there is no backlog.

    If the fleet was not looked at, only the status decides.
    """
    if not scene.status.backlog:
        return None
    stalls = () if scene.fleet is None or _is_guest(scene) else _STALLS
    for look in (*_STOPS, *stalls):
        found = look(scene)
        if found is not None:
            return found
    return None


# What stops every text


def _halted(scene: Scene) -> Obstacle | None:
    if scene.status.state != "halted":
        return None
    reason = figures.plain(scene.status.reason or "no reason given").rstrip(".")
    return Obstacle("halted", f"halted: {reason}", f"fix that, then {scene.command('resume')}")


def _refused(scene: Scene) -> Obstacle | None:
    # Comes before the workers: they cannot announce themselves either.
    if scene.refusal is None:
        return None
    reason = figures.plain(scene.refusal)
    return Obstacle(
        "refused",
        f"Redis takes no changes ({reason})",
        "fix it, or name its primary; workers then continue by themselves",
    )


def _no_worker(scene: Scene) -> Obstacle | None:
    alive = _alive(scene)
    fleet = scene.fleet or ()
    if scene.status.workers or alive:
        return None
    lost = ""
    if fleet:
        seen = figures.duration(min(worker.seen_seconds for worker in fleet))
        lost = f" ({figures.count(len(fleet), 'worker')} lost, last seen {seen} ago: see its log)"
    return Obstacle("no worker", f"no worker is alive{lost}", start_worker(scene.command))


def _other_queue(scene: Scene) -> Obstacle | None:
    alive = _alive(scene)
    if not alive or _serving(scene):
        return None
    queues = sorted({worker.queue or "" for worker in alive})
    return Obstacle(
        "other queue",
        f"no worker takes wake-ups from the queue {scene.queue}: "
        f"{figures.count(len(alive), 'worker')} alive, on {figures.plain(', '.join(queues))}",
        f"start them without -Q, or with -Q {scene.queue}",
    )


def _unfit(scene: Scene) -> Obstacle | None:
    serving = _serving(scene)
    if not serving or any(worker.state in (None, "working") for worker in serving):
        return None
    worker = serving[0]
    reason = figures.plain(worker.reason or "no reason given").rstrip(".")
    return Obstacle(
        worker.state or "unfit",
        f"no worker alive can work: {figures.plain(worker.host)} {worker.pid} is {worker.state}: "
        f"{reason}",
        f"fix that, then {scene.command('resume')}, or restart it",
    )


def _paused(scene: Scene) -> Obstacle | None:
    status = scene.status
    if status.state != "paused":
        return None
    why = f": {figures.plain(status.reason).rstrip('.')}" if status.reason else ""
    left = f"; {pace.time_left(status)}" if pace.quota_days(status) > 1 else ""
    if status.paused_until is None:
        return Obstacle("paused", f"paused{why}{left}")
    seconds = figures.duration(max(0.0, status.paused_until - time.time()))
    until = figures.clock(status.paused_until)
    return Obstacle("paused", f"paused for {seconds}, until {until}{why}{left}")


def _broker_away(scene: Scene) -> Obstacle | None:
    said = scene.broker
    if said is None and not _at(scene):
        told = [one for one in _troubles(scene) if "broker does not answer" in one.said]
        said = told[0].said if told else None
    if said is None:
        return None
    return Obstacle(
        "broker",
        f"the broker does not answer ({figures.plain(said)}), so no worker is woken",
        "start it; what is queued is safe in Redis",
    )


# What stops this collection, or makes it slow


def _crowded_out(scene: Scene) -> Obstacle | None:
    work = [one for worker in _serving(scene) for one in worker.work or ()]
    threads = sum(worker.threads for worker in _serving(scene))
    if len(work) < threads or any(one.collection == scene.status.collection for one in work):
        return None
    others = figures.names(sorted({one.collection for one in work}))
    return Obstacle(
        "busy",
        f"{figures.count(threads, 'thread')} of all workers work on other collections "
        f"({figures.plain(others)})",
        "it has to wait for its turn; add workers or threads to shorten that",
    )


def _throttled(scene: Scene) -> Obstacle | None:
    work, throttle = _at(scene), scene.status.throttle
    if throttle is None or not work or not all(one.waiting for one in work):
        return None
    most = throttle.in_flight_ceiling
    if most is not None and throttle.in_flight >= most:
        return Obstacle(
            "in flight",
            f"all {most:,} requests that may be in flight are under way",
            "each ends with its answer, or after VECTOR_EMBED_TIMEOUT",
        )
    if throttle.rate is None and throttle.configured is None:
        told = _troubles(scene)
        last = f"; the last failure: {figures.plain(told[0].said)}" if told else ""
        return Obstacle("first", f"one request at a time shows whether the API works{last}")
    return Obstacle(
        "rate", f"waiting for the rate: {pace.sending(throttle)}", "see VECTOR_EMBED_RATE"
    )


def _failing(scene: Scene) -> Obstacle | None:
    name = scene.status.collection
    told = [one for one in _troubles(scene) if one.said.startswith((f"{name} ", f"{name}:"))]
    if not told:
        return None
    last = told[0]
    return Obstacle(
        "failing",
        f"{figures.duration(last.seconds)} ago a worker said: {figures.plain(last.said)}",
        "see its log",
    )


def _slow(scene: Scene) -> Obstacle | None:
    work = [one for one in _at(scene) if not one.waiting]
    texts = sum(one.texts for one in work)
    if not texts:
        return None
    return Obstacle(
        "slow",
        f"{figures.count(len(work), 'thread')} with {figures.count(texts, 'text')} wait for an "
        "answer of the API",
        "it ends with the answer, or after VECTOR_EMBED_TIMEOUT",
    )


def _alone(scene: Scene) -> Obstacle | None:
    if not scene.quarantined:
        return None
    return Obstacle(
        "quarantined",
        "texts that may have killed their worker wait to be tried alone",
        "they are tried when a worker has nothing else in hand",
    )


def _orphaned(scene: Scene) -> Obstacle | None:
    status = scene.status
    if not status.leased or _at(scene):
        return None
    return Obstacle(
        "leased",
        f"{figures.count(status.leased, 'text')} leased to workers that are gone",
        "the others take over after 15 s; if they do not, restart a worker and report it",
    )


def _unknown(scene: Scene) -> Obstacle | None:
    every = _troubles(scene)
    said = f"; the last complaint of one: {figures.plain(every[0].said)}" if every else ""
    return Obstacle(
        "idle",
        f"{figures.count(len(_serving(scene)), 'worker')} alive, and none works on it{said}",
        f"see {scene.command('workers')}, and their logs",
    )


_Look = Callable[[Scene], "Obstacle | None"]
_STOPS: Sequence[_Look] = (
    _halted,
    _refused,
    _no_worker,
    _other_queue,
    _unfit,
    _paused,
    _broker_away,
)
_STALLS: Sequence[_Look] = (_crowded_out, _throttled, _failing, _slow, _alone, _orphaned, _unknown)


def _alive(scene: Scene) -> list[Worker]:
    return [worker for worker in scene.fleet or () if worker.alive]


def _serving(scene: Scene) -> list[Worker]:
    """The living workers that take our wake-ups. Older versions do not name their queue."""
    return [worker for worker in _alive(scene) if worker.queue in (None, scene.queue)]


def _at(scene: Scene) -> list[Work]:
    """What is under way for this collection."""
    work = [one for worker in _alive(scene) for one in worker.work or ()]
    return [one for one in work if one.collection == scene.status.collection]


def _is_guest(scene: Scene) -> bool:
    """Whether its texts may be in requests of other collections, which had room."""
    return scene.status.leased > 0 and any(worker.guests for worker in _alive(scene))


def _troubles(scene: Scene) -> list[Trouble]:
    """The recent complaints of living workers, the latest first."""
    every = [trouble for worker in _alive(scene) for trouble in worker.troubles]
    return sorted(trouble for trouble in every if trouble.seconds <= RECENT_SECONDS)
