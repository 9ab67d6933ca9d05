"""One snapshot for all browsers.

A thread reads it every few seconds while someone looks, and less often while no one does, for the
history. So a hundred browsers cost Redis no more than one. While Redis does not answer, the last
snapshot stays, with the reason and since when.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import redis

from ...logs import logger
from .history import STEP_SECONDS, History
from .snapshot import Snapshot

LOOK_SECONDS = 5.0  # between two readings while someone looks
AWAY_SECONDS = 1.0  # while Redis does not answer
REST_SECONDS = STEP_SECONDS  # and while no one does: as often as Prometheus usually asks
LOOKED_SECONDS = 30.0  # how long someone counts as looking
PATIENCE = 0.8  # seconds that a browser waits for a reading that is newer than the last one
FIRST_PATIENCE = 2.0  # and for the first one
SHARE = 10  # of the time, at most this part is spent reading


class Seen(NamedTuple):
    """The latest snapshot, None before the first; and why there is no newer one."""

    snapshot: Snapshot | None
    fault: str | None = None
    since: float | None = None  # Unix seconds: when Redis first did not answer


class Shared:
    """Reads snapshots in a thread of its own, from `start` to `stop`."""

    def __init__(self, read: Callable[[], Snapshot], seconds: float = LOOK_SECONDS) -> None:
        self._read = read
        self.seconds = seconds  # how old a snapshot may be, as long as reading it is quick
        self.history = History()
        self._seen = Seen(None)
        self._looked = float("-inf")
        self._begun = 0.0  # when the latest reading began; monotonic, as the one above
        self._readings = 0
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a reading under way is finished first, if it is quick."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(FIRST_PATIENCE)

    def look(self) -> Seen:
        """What was read last. An old snapshot is read again first, if that is quick."""
        now = time.monotonic()
        with self._changed:
            self._looked = now
            before = self._readings
            is_first = self._seen == Seen(None)
            if now - self._begun > self.seconds or is_first:
                patience = FIRST_PATIENCE if is_first else PATIENCE
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._readings > before or self._ended, patience)
            return self._seen

    def _run(self) -> None:
        pause = 0.0
        while self._rest(pause):
            begun = time.monotonic()
            with self._changed:
                self._begun = begun
            seen = self._look_again()
            pause = (time.monotonic() - begun) * (SHARE - 1)
            with self._changed:
                self._seen = seen
                self._readings += 1
                self._changed.notify_all()

    def _rest(self, pause: float) -> bool:
        """Wait until it is time to read, at least `pause`; False at the end."""
        earliest = time.monotonic() + pause
        with self._changed:
            while not self._ended:
                now = time.monotonic()
                is_looked_at = now - self._looked < LOOKED_SECONDS
                due = self._begun + (self.seconds if is_looked_at else REST_SECONDS)
                due = due if self._seen.fault is None else self._begun + AWAY_SECONDS
                due = max(due if self._readings else now, earliest)
                if now >= due:
                    return True
                self._changed.wait(due - now)
            return False

    def _look_again(self) -> Seen:
        before = self._seen
        try:
            snapshot = self._read()
        except redis.RedisError as error:
            fault = str(error).rstrip(".") or type(error).__name__
            return Seen(before.snapshot, fault, before.since or time.time())
        except Exception:  # our own bug must not end the page
            logger.exception("the page cannot be read")
            fault = "this page failed to read it: see the exporter's log"
            return Seen(before.snapshot, fault, before.since or time.time())
        self.history.add(snapshot)
        return Seen(snapshot)
