"""The heartbeat: two background threads in each worker process.

Every second one says that the process and its slices of work are alive. The other, in one process
of the fleet at a time, pumps: tops up the wake-ups from the backlog. So a purged broker, a killed
worker or a pause heals by itself. A broker that hangs holds up the pump alone.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TypeVar

import redis

from vector_embed_client.http import VERSION

from ..health import beat
from ..logs import logger
from ..monitor.fleet import (
    Done,
    Trouble,
    Work,
    Worker,
    announce_worker,
    forget_worker,
    workers_alive,
)
from ..monitor.requests import tally
from ..monitor.service import Service
from ..settings import Settings
from ..settings.keyfile import current
from ..store.backlog import Backlog
from ..store.connection import CLAIM_MEMORY, Redis, connect, memory_used
from ..store.keys import CollectionKeys, CommonKeys
from ..store.reader import Reader
from ..store.registry import announce_backlogs, busy_collections
from ..throttle import announce_throttle, read_throttle, throttle_name
from ..throttle.holds import holding, read_holds
from .broker import send_wakeups
from .exclusion import Room
from .fitness import Condition, Fitness
from .intake import Intake
from .loop import Loop
from .sender import HOLD_SECONDS

T = TypeVar("T")

BEAT_SECONDS = 1.0
# Who missed beats for so long was cut off or frozen itself. It judges nobody dead for a while, nor
# does who is new: when Redis was away all leases have run out, and the others need a moment to say
# that they live.
MISSED_SECONDS = 5.0
GRACE_SECONDS = 5.0
KEPT_TROUBLES = 5
PUMP_SECONDS = 3  # without news of its holder the pump's place is free
HUNG_SECONDS = 60.0  # the pump has never been at work for so long


def heartbeat(settings: Settings) -> Heartbeat:
    """This process's heartbeat."""
    return _heartbeat(settings, os.getpid())


@cache
def _heartbeat(settings: Settings, pid: int) -> Heartbeat:
    return Heartbeat(settings)


@dataclass
class _Slice:
    """A slice of work that is open."""

    renew: Callable[[], Work]
    opened: float
    overstays: bool = False  # and that was said


class Heartbeat:
    """Keeps this process and its slices alive in the eyes of the fleet, and pumps."""

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self.stopping = threading.Event()
        self.memory_full = False
        self.room = Room()
        self._settings = settings
        self._places = 0  # 0: a process of a prefork pool, which only keeps its slices alive
        self._queue = settings.queue
        self._intake: Intake | None = None
        self.fitness = Fitness()
        self._condition = Condition()
        self._holds: dict[str, str] = {}
        self._threads_work = True  # not the processes of a prefork pool, unseen from here
        self._since = time.monotonic()
        self._done = Done()
        self._troubles = _Troubles()
        self._slices: dict[str, _Slice] = {}
        self._owed: dict[str, Callable[[], object]] = {}  # what ended slices could not give back
        self._steady_since = self._last_beat = time.time()
        self._counter = 0
        self._looked = False  # at all collections, as the pump and since Redis was last away
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._started = False
        self._away = ""  # why Redis does not answer
        self._failing: dict[str, str] = {}  # what part of a beat fails, and why
        self._pump_hangs = False  # and that was said
        self._file = settings.heartbeat_file
        self._beats = Loop("heartbeat", self._beat, BEAT_SECONDS, self._ended)
        self._pumping = Loop("pump", self._pump, BEAT_SECONDS, self._ended)

    def serve(
        self, places: int, *, threads: bool, queue: str | None = None, intake: Intake | None = None
    ) -> None:
        """Announce the worker process with its `places` for slices, and pump from now on.
        `threads`: the slices are worked on in this process. `queue`: where its wake-ups come from,
        unless that is the one of the settings; `intake`: what takes them.
        """
        self._queue = queue or self._settings.queue
        self._intake = intake
        self._places = places
        self._threads_work = threads
        logger.addHandler(self._troubles)
        self._start()
        self._pumping.start()

    def new_consumer(self) -> str:
        """A name that no slice of work had before."""
        with self._lock:
            self._counter += 1
            return f"{self.name}:{self._counter}"

    def open_slice(self, consumer: str, renew: Callable[[], Work]) -> None:
        """Call `renew`, which says what the slice is at, now and at every beat, until it is
        closed.
        """
        with self._lock:
            self._slices[consumer] = _Slice(renew, time.monotonic())
        try:
            renew()
        except BaseException:
            with self._lock:
                del self._slices[consumer]
            raise
        self._start()

    def living(self) -> list[str]:
        """The consumers of this process that hold what they hold: the open slices, and the ended
        ones that could not give it back yet.
        """
        with self._lock:
            return [*self._slices, *self._owed]

    def count(self, collection: str, texts: int) -> None:
        """Take note of texts that are done."""
        self.fitness.worked(collection, time.monotonic())
        if self._places:
            self._done.add(collection, texts, time.monotonic())

    def close_slice(self, consumer: str, give_back: Callable[[], object]) -> None:
        """Stop keeping a consumer alive, and give back what it holds.

        Where Redis is away, that is done as soon as it is back: the texts wait for no lease to run
        out, and are not suspected of having killed their owner.
        """
        with self._lock:
            self._slices.pop(consumer, None)
            self._owed[consumer] = give_back
        self._settle(consumer, give_back)

    def is_held(self, collection: str) -> bool:
        """Whether a collection was held by hand when last looked at."""
        return holding(self._holds, collection) is not None

    @property
    def judges(self) -> bool:
        """Whether this process may take it that a consumer without a heartbeat is dead."""
        now = time.time()
        steady = abs(now - self._last_beat) < MISSED_SECONDS
        return steady and now - self._steady_since >= GRACE_SECONDS

    def end(self) -> None:
        """The process ends: say so, and stop."""
        self._ended.set()
        self._beats.join(5)
        self._pumping.join(1)
        if self._places:
            try:
                tally.tell(connect(self._settings), self._settings.prefix)
                self._leave()
            except redis.RedisError:
                logger.debug("Redis is away at the end of the worker", exc_info=True)

    def slots(self) -> int:
        """How many slices at once are worth having in the fleet."""
        # Twice the requests in flight: while one half waits for the API, the other decodes and
        # commits.
        _, places = workers_alive(connect(self._settings), self._settings.prefix)
        return min(places, 2 * self._settings.max_in_flight)

    def _start(self) -> None:
        with self._lock:
            started, self._started = self._started, True
        if not started:
            self._beats.start()

    def _beat(self) -> None:
        self._touch()
        try:
            self._tell()
            now = time.time()
            if abs(now - self._last_beat) >= MISSED_SECONDS:
                self._steady_since = now
            self._last_beat = now
            if self._away:
                logger.warning("Redis is back")
            self._away = ""
        except (redis.RedisError, OSError) as error:
            if not self._away:
                logger.warning("Redis does not answer (%s): trying on", error)
            self._away = str(error) or "no answer"
            # Of two nodes of a cluster, one may have lost what the other still has.
            self._looked = False

    def _touch(self) -> None:
        if self._file is not None:
            try:
                beat(self._file)
            except OSError as error:
                logger.warning("cannot write the heartbeat file (%s): probes will fail", error)
                self._file = None

    def _tell(self) -> None:
        client = connect(self._settings)
        with self._lock:
            slices = dict(self._slices)
        told = [self._part(f"renew {consumer}", one.renew) for consumer, one in slices.items()]
        work = [one for one in told if one is not None]
        self._give_back()
        self._part("look at Redis' memory", partial(self._look_at_memory, client))
        self._part("count requests", partial(tally.tell, client, self._settings.prefix))
        self._part("look at holds", partial(self._look_at_holds, client))
        self._watch(slices)
        if self._places:
            self._part("look at the key's throttle", partial(self._look, client))
            known = self._settings.prefix, self._throttle, self._settings.base_url
            self._part("announce the throttle", partial(announce_throttle, client, *known))
        if self._places and not self.stopping.is_set():
            told_of = self._worker(work)
            self._part(
                "announce the worker",
                partial(announce_worker, client, self._settings.prefix, told_of),
            )

    def _part(self, what: str, step: Callable[[], T]) -> T | None:
        """Do a part of the beat. If it fails, the others are done all the same."""
        try:
            answer = step()
        except (redis.ConnectionError, redis.TimeoutError, MemoryError):
            raise  # nothing else would be answered either
        except redis.exceptions.OutOfMemoryError:
            return None  # a full Redis is said once, elsewhere
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if self._failing.get(what) != why:
                logger.error("the heartbeat cannot %s (%s): trying again", what, why)
            self._failing[what] = why
            return None
        self._failing.pop(what, None)
        return answer

    def _look_at_memory(self, client: Redis) -> None:
        used = memory_used(client)
        full = used >= CLAIM_MEMORY
        if full and not self.memory_full:
            logger.warning("Redis is %.0f %% full: claims wait until there is room", used * 100)
        self.memory_full = full

    def _look_at_holds(self, client: Redis) -> None:
        self._holds = read_holds(client, self._settings.prefix)

    def _look(self, client: Redis) -> None:
        """Whether this process can work, and so takes wake-ups."""
        key = read_throttle(client, self._settings.prefix, self._throttle)
        self._condition = self.fitness.look(key, time.monotonic())
        if self._intake is not None:
            self._intake.set(self._condition.takes)

    @property
    def _throttle(self) -> str:
        return throttle_name(self._settings.base_url, current(self._settings).api_key or "")

    def _give_back(self) -> None:
        with self._lock:
            owed = dict(self._owed)
        for consumer, give_back in owed.items():
            self._part(
                f"give back what {consumer} held", partial(self._settle, consumer, give_back)
            )

    def _settle(self, consumer: str, give_back: Callable[[], object]) -> None:
        give_back()
        with self._lock:
            self._owed.pop(consumer, None)

    def _watch(self, slices: Mapping[str, _Slice]) -> None:
        """Say what takes longer than it may, once."""
        longest = self._settings.slice_seconds + self._settings.timeout + HOLD_SECONDS
        for consumer, one in slices.items():
            seconds = time.monotonic() - one.opened
            if seconds > longest and not one.overstays:
                one.overstays = True
                logger.error(
                    "slice %s has been at work for %.0f s, and may for %.0f s: "
                    "if it never ends, restart this worker",
                    consumer,
                    seconds,
                    longest,
                )
        hangs = self._pumping.busy_seconds > HUNG_SECONDS
        if hangs and not self._pump_hangs:
            logger.error("the broker does not answer for %.0f s: no wake-ups", HUNG_SECONDS)
        self._pump_hangs = hangs

    def _pump(self) -> None:
        try:
            self._top_up(connect(self._settings))
        except (redis.ConnectionError, redis.TimeoutError):
            self._looked = False  # the heartbeat says that Redis is away

    def _top_up(self, client: Redis) -> None:
        if not self._has_place(client) or self.memory_full:
            return
        slots = self.slots()
        if not self._looked:
            announce_backlogs(client, self._settings.prefix)
            self._looked = True
        service = Service(client, self._settings.prefix, self._settings.queue)
        for name in busy_collections(client, self._settings.prefix):
            self._part(f"wake the workers for {name}", partial(self._wake, name, slots, service))

    def _has_place(self, client: Redis) -> bool:
        """Whether this process pumps: one in the fleet does at a time. The place is free again soon
        after its holder died, also where it was taken by a clock that has been set back since.
        """
        place, most = CommonKeys(self._settings.prefix).pump, PUMP_SECONDS * 1000
        if client.set(place, self.name, nx=True, px=most):
            self._looked = False
            return True
        mine = client.get(place) == self.name.encode()
        if mine or not 0 <= client.pttl(place) <= most:
            client.pexpire(place, most)
        return mine

    def _wake(self, name: str, slots: int, service: Service) -> None:
        client, keys = connect(self._settings), CollectionKeys(self._settings.prefix, name)
        if service.is_open(name, Reader(client, keys).info()):
            send_wakeups(self._settings, Backlog(client, keys), slots)

    def _worker(self, work: Sequence[Work] = ()) -> Worker:
        return Worker(
            self.name,
            self._places,
            up_seconds=round(time.monotonic() - self._since, 1),
            version=VERSION,
            work=work if self._threads_work else None,
            rates=self._done.rates(time.monotonic()) if self._threads_work else None,
            troubles=self._troubles.read(),
            throttle=self._throttle,
            queue=self._queue,
            takes=self._condition.takes and self._queue == self._settings.queue,
            faults=self._condition.faults,
            state=self._condition.state,
            reason=self._condition.reason,
        )

    def _leave(self) -> None:
        client = connect(self._settings)
        forget_worker(client, self._settings.prefix, self._worker())
        place = CommonKeys(self._settings.prefix).pump
        if client.get(place) == self.name.encode():
            client.delete(place)


class _Troubles(logging.Handler):
    """The last warnings and errors that this process logged: there is no text in them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: deque[tuple[float, str]] = deque(maxlen=KEPT_TROUBLES)

    def emit(self, record: logging.LogRecord) -> None:
        self._last.append((time.monotonic(), record.getMessage()[:300]))

    def read(self) -> list[Trouble]:
        """With their age, the oldest first."""
        now = time.monotonic()
        return [Trouble(round(now - at, 1), said) for at, said in list(self._last)]
