"""The heartbeat: one background thread in each worker process.

Every second it says that the process and its slices of work are alive, and, as one of the fleet at
a time, pumps: tops up the wake-ups from the backlog. So a purged broker, a killed worker or a pause
heals by itself.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache

import redis
from kombu.exceptions import OperationalError

from vector_embed_client.http import VERSION

from .broker import send_wakeups
from .collection import Collection, announce_backlogs, busy_collections
from .connection import CLAIM_MEMORY, Redis, connect, memory_used
from .fleet import Done, Trouble, Work, Worker, announce_worker, forget_worker, workers_alive
from .health import beat
from .logs import logger
from .room import Room
from .settings import Settings
from .tally import tally
from .throttle import throttle_name

BEAT_SECONDS = 1.0
# Who missed beats for so long was cut off or frozen itself. It judges nobody dead for a while, nor
# does who is new: when Redis was away all leases have run out, and the others need a moment to say
# that they live.
MISSED_SECONDS = 5.0
GRACE_SECONDS = 5.0
KEPT_TROUBLES = 5


def heartbeat(settings: Settings) -> Heartbeat:
    """This process's heartbeat."""
    return _heartbeat(settings, os.getpid())


@cache
def _heartbeat(settings: Settings, pid: int) -> Heartbeat:
    return Heartbeat(settings)


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
        self._threads_work = True  # not the processes of a prefork pool, unseen from here
        self._since = time.monotonic()
        self._done = Done()
        self._troubles = _Troubles()
        self._slices: dict[str, Callable[[], Work]] = {}
        self._owed: dict[str, Callable[[], object]] = {}  # what ended slices could not give back
        self._steady_since = self._last_beat = time.time()
        self._counter = 0
        self._looked = False  # at all collections, as the pump and since Redis was last away
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def serve(self, places: int, *, threads: bool, queue: str | None = None) -> None:
        """Announce the worker process with its `places` for slices, and pump from now on.
        `threads`: the slices are worked on in this process. `queue`: where its wake-ups come from,
        unless that is the one of the settings.
        """
        self._queue = queue or self._settings.queue
        self._places = places
        self._threads_work = threads
        logger.addHandler(self._troubles)
        self._start()

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
            self._slices[consumer] = renew
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
        give_back()
        with self._lock:
            self._owed.pop(consumer, None)

    @property
    def judges(self) -> bool:
        """Whether this process may take it that a consumer without a heartbeat is dead."""
        now = time.time()
        steady = abs(now - self._last_beat) < MISSED_SECONDS
        return steady and now - self._steady_since >= GRACE_SECONDS

    def end(self) -> None:
        """The process ends: say so, and stop."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
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
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        trouble = ""
        file = self._settings.heartbeat_file
        while True:
            if file is not None:
                try:
                    beat(file)
                except OSError as error:
                    logger.warning("cannot write the heartbeat file (%s): probes will fail", error)
                    file = None
            try:
                self._beat()
                now = time.time()
                if abs(now - self._last_beat) >= MISSED_SECONDS:
                    self._steady_since = now
                self._last_beat = now
                if trouble:
                    logger.warning("Redis is back")
                trouble = ""
            except (redis.RedisError, OperationalError, OSError) as error:
                if not trouble:
                    logger.warning("Redis does not answer (%s): trying on", error)
                trouble = str(error) or "no answer"
                # Of two nodes of a cluster, one may have lost what the other still has.
                self._looked = False
            if self._ended.wait(BEAT_SECONDS):
                return

    def _beat(self) -> None:
        client = connect(self._settings)
        used = memory_used(client)
        full = used >= CLAIM_MEMORY
        if full and not self.memory_full:
            logger.warning("Redis is %.0f %% full: claims wait until there is room", used * 100)
        self.memory_full = full
        with self._lock:
            slices = list(self._slices.values())
        work: list[Work] = []
        for renew in slices:
            with suppress(redis.ResponseError):  # full: the others are renewed all the same
                work.append(renew())
        self._give_back()
        with suppress(redis.exceptions.OutOfMemoryError):
            tally.tell(client, self._settings.prefix)
        if self._places:
            if not self.stopping.is_set():
                announce_worker(client, self._settings.prefix, self._worker(work))
            self._pump(client)

    def _give_back(self) -> None:
        with self._lock:
            owed = dict(self._owed)
        for consumer, give_back in owed.items():
            with suppress(redis.ResponseError):  # full, or read-only: at the next beat, then
                give_back()
                with self._lock:
                    self._owed.pop(consumer, None)

    def _pump(self, client: Redis) -> None:
        # One in the fleet at a time; the place is free again soon after its holder died.
        place = f"{self._settings.prefix}:pump"
        mine = self.name
        if client.set(place, mine, nx=True, px=3000):
            self._looked = False
        elif client.get(place) != mine.encode():
            return
        else:
            client.pexpire(place, 3000)
        if self.memory_full:
            return
        slots = self.slots()
        if not self._looked:
            announce_backlogs(client, self._settings.prefix)
            self._looked = True
        for name in busy_collections(client, self._settings.prefix):
            collection = Collection(name, settings=self._settings)
            if collection.is_open():
                send_wakeups(self._settings, collection, slots)

    def _worker(self, work: Sequence[Work] = ()) -> Worker:
        return Worker(
            self.name,
            self._places,
            up_seconds=round(time.monotonic() - self._since, 1),
            version=VERSION,
            work=work if self._threads_work else None,
            rates=self._done.rates(time.monotonic()) if self._threads_work else None,
            troubles=self._troubles.read(),
            throttle=throttle_name(self._settings.base_url, self._settings.api_key or ""),
            queue=self._queue,
            state="working",
        )

    def _leave(self) -> None:
        client = connect(self._settings)
        forget_worker(client, self._settings.prefix, self._worker())
        place = f"{self._settings.prefix}:pump"
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
