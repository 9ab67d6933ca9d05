"""The pump: sends the wake-ups that are missing, in one process of the fleet at a time.

So the work continues after a purged broker, a killed worker or a pause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis

from ..monitor.service import Service
from ..store.backlog import Backlog
from ..store.connection import Redis, connect
from ..store.keys import CollectionKeys, CommonKeys
from ..store.reader import Reader
from ..store.registry import announce_backlogs, busy_collections
from .broker import send_wakeups, threads_worth_having
from .loop import Loop
from .parts import Parts
from .process import Process

PUMP_SECONDS = 1.0
LOCK_SECONDS = 3  # after which the lock of a holder that does not renew it is free
HUNG_SECONDS = 60.0  # a round of the pump that takes longer hangs: the broker does not answer

Part = Callable[[str, Callable[[], object]], object]


class Pump:
    """The pump of one process. `part` runs one step, and logs its failure."""

    def __init__(self, process: Process, ended: threading.Event, part: Part) -> None:
        self._process = process
        self._settings = process.settings
        self._part = part
        self._key = CommonKeys(self._settings.prefix).pump
        self._looked = -1  # the number of losses of Redis at the last look at all collections
        self._loop = Loop("pump", self._pump, PUMP_SECONDS, ended)

    def start(self) -> None:
        """Begin."""
        self._loop.start()

    @property
    def hangs(self) -> bool:
        """Whether the round under way takes too long: the broker does not answer."""
        return self._loop.busy_seconds > HUNG_SECONDS

    def end(self) -> None:
        """Wait for its end."""
        self._loop.join(1)

    def free_lock(self, client: Redis) -> None:
        """Let another process pump at once."""
        if client.get(self._key) == self._process.name.encode():
            client.delete(self._key)

    def _pump(self) -> None:
        try:
            self._top_up(connect(self._settings))
        except (redis.ConnectionError, redis.TimeoutError):
            self._process.losses += 1  # the heartbeat says that Redis is away

    def _top_up(self, client: Redis) -> None:
        """Send the missing wake-ups of each busy collection, if this process has the lock."""
        if not self._has_lock(client) or self._process.memory_full:
            return
        threads = threads_worth_having(client, self._settings)
        losses = self._process.losses
        if self._looked != losses:
            announce_backlogs(client, self._settings.prefix)
            self._looked = losses
        service = Service(client, self._settings.prefix, self._settings.queue)
        parts = Parts(client, self._part)
        for name in busy_collections(client, self._settings.prefix):

            def wake(name: str = name) -> None:
                keys = CollectionKeys(self._settings.prefix, name)
                if service.is_open(name, Reader(client, keys).info()):
                    send_wakeups(self._settings, Backlog(client, keys), threads)

            parts.do(f"wake the workers for {name}", wake)
        parts.check()

    def _has_lock(self, client: Redis) -> bool:
        """Whether this process has the lock of the pump.

        The lock is free soon after its holder died, also if Redis' clock was set back meanwhile.
        """
        most = LOCK_SECONDS * 1000
        if client.set(self._key, self._process.name, nx=True, px=most):
            self._looked = -1
            return True
        mine = client.get(self._key) == self._process.name.encode()
        if mine or not 0 <= client.pttl(self._key) <= most:
            client.pexpire(self._key, most)
        return mine
