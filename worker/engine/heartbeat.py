"""The heartbeat of a worker process: once a second it tells Redis what lives here.

It renews the open slices, announces the worker to the fleet, and updates what the slices read. If
one part of a beat fails, that is logged once, and the other parts are still done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TypeVar

import redis

from ..health import beat
from ..logs import logger
from ..monitor.requests import statistics
from ..settings import Settings
from ..store.connection import CLAIM_MEMORY, Redis, connect
from ..store.server_memory import fullest, read_memories
from ..throttle.holds import read_holds
from .broker import close_idle
from .loop import Loop
from .parts import Parts
from .presence import Presence
from .process import OpenSlice, Process
from .pump import Pump
from .sender import HOLD_SECONDS

T = TypeVar("T")

BEAT_SECONDS = 1.0


def heartbeat(settings: Settings) -> Heartbeat:
    """The heartbeat of this process."""
    return _heartbeat(settings, os.getpid())


@cache
def _heartbeat(settings: Settings, pid: int) -> Heartbeat:
    return Heartbeat(settings)


class Heartbeat:
    """Keeps this process alive in the eyes of the fleet.

    A process of a prefork pool has no presence of its own: it only renews its slices.
    """

    def __init__(self, settings: Settings) -> None:
        self.process = Process(settings)
        self._settings = settings
        self._presence: Presence | None = None
        self._lock = threading.Lock()
        self._started = False
        self._ended = threading.Event()
        self._away = ""  # why Redis does not answer
        self._failing: dict[str, str] = {}  # which part of a beat fails, and why
        self._overstaying: set[str] = set()  # consumers whose slice is too long, as was logged
        self._pump_hangs = False  # as was logged
        self._file = settings.heartbeat_file
        self._loop = Loop("heartbeat", self._beat, BEAT_SECONDS, self._ended)
        # In a thread of its own: a broker that hangs must not stop the heartbeat.
        closer = partial(close_idle, settings)
        self._closer = Loop("closer of idle connections", closer, BEAT_SECONDS, self._ended)
        self._pump = Pump(self.process, self._ended, self._part)

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._lock:
            started, self._started = self._started, True
        if not started:
            self._loop.start()
            self._closer.start()

    def serve(self, presence: Presence) -> None:
        """Announce the worker from now on, and pump."""
        self._presence = presence
        logger.addHandler(presence.troubles)
        self.start()
        self._pump.start()

    def end(self) -> None:
        """Announce the end of the process, and stop."""
        self._ended.set()
        self._loop.join(5)
        self._pump.end()
        if self._presence is None:
            return
        try:
            client = connect(self._settings)
            statistics.tell(client, self._settings.prefix)
            self._presence.leave(client)
            self._pump.free_lock(client)
        except redis.RedisError:
            logger.debug("Redis is away at the end of the worker", exc_info=True)

    def _beat(self) -> None:
        self._touch()
        try:
            self._tell(connect(self._settings))
            self.process.beat()
            if self._away:
                logger.warning("Redis is back")
            self._away = ""
        except (redis.RedisError, OSError) as error:
            if not self._away:
                logger.warning("Redis does not answer (%s): trying again", error)
            self._away = str(error) or "no answer"
            # One node of a cluster may have lost data that the other nodes still have.
            self.process.losses += 1

    def _touch(self) -> None:
        if self._file is not None:
            try:
                beat(self._file)
            except OSError as error:
                logger.warning("cannot write the heartbeat file (%s): probes will fail", error)
                self._file = None

    def _tell(self, client: Redis) -> None:
        """Do the parts of one beat that need Redis."""
        process, prefix = self.process, self._settings.prefix
        slices, parts = process.slices(), Parts(client, self._part)
        told = [parts.do(f"renew {one.consumer}", one.renew) for one in slices]
        for owed in process.owed():
            what = f"give back what {owed.consumer} held"
            # A try that fails takes a second, and sixteen of them would outlast the leases.
            if not parts.do(what, partial(process.settle, owed)):
                break
        parts.do("look at Redis' memory", partial(self._look_at_memory, client))
        parts.do("count requests", partial(statistics.tell, client, prefix))
        parts.do("look at holds", partial(self._look_at_holds, client))
        self._watch(slices)
        if self._presence is not None:
            work = [one for one in told if one is not None]
            for what, step in self._presence.steps(client, work):
                parts.do(what, step)
        parts.check()

    def _part(self, what: str, step: Callable[[], T]) -> T | None:
        """Do one part. If it fails, the others are still done. Raises if Redis is away."""
        try:
            result = step()
        except (redis.ConnectionError, redis.TimeoutError, MemoryError):
            raise
        except redis.exceptions.OutOfMemoryError:
            return None  # a full Redis is logged once, elsewhere
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            if self._failing.get(what) != why:
                logger.error("the heartbeat cannot %s (%s): trying again", what, why)
            self._failing[what] = why
            return None
        self._failing.pop(what, None)
        return result

    def _look_at_memory(self, client: Redis) -> None:
        memories = read_memories(client)
        used = fullest(memories).share
        full = used >= CLAIM_MEMORY
        if full and not self.process.memory_full:
            logger.warning("Redis is %.0f %% full: claims wait until there is room", used * 100)
        self.process.memory_full = full
        # While a node is away all leases there run out, whoever holds them: the beat has failed.
        for fault in memories:
            if isinstance(fault, redis.RedisError):
                raise fault

    def _look_at_holds(self, client: Redis) -> None:
        self.process.holds = read_holds(client, self._settings.prefix)

    def _watch(self, slices: Iterable[OpenSlice]) -> None:
        """Log, once each, the slices and the pump that take too long."""
        longest = self._settings.slice_seconds + self._settings.timeout + HOLD_SECONDS
        seconds = {one.consumer: one.unmoved_seconds for one in slices}
        late = {consumer: each for consumer, each in seconds.items() if each > longest}
        for consumer in late.keys() - self._overstaying:
            logger.error(
                "slice %s has not moved for %.0f s, and may not for %.0f s: "
                "if it never ends, restart this worker",
                consumer,
                late[consumer],
                longest,
            )
        self._overstaying = set(late)
        hangs = self._pump.hangs
        if hangs and not self._pump_hangs:
            logger.error("the broker does not answer: no wake-ups are sent")
        self._pump_hangs = hangs
