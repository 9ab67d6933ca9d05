"""The fitness of a worker process: working, halted or unfit.

Halted: all its keys are refused. Unfit: its slices raise errors that no text causes, such as a bug,
or a fault of its surroundings. Slices report their ends, the heartbeat reads the keys' throttles,
and the worker announces the result. While it cannot work it takes no wake-ups, so that other
workers get them. An unfit worker tries again every few seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..logs import logger
from ..types import ThrottleStatus

REST_SECONDS = 3.0  # during which an unfit worker takes no wake-ups after a failure
SETTLED_SECONDS = 2.0  # a fault that was seen for this long is no accident
FORGET_SECONDS = 15.0  # a fault that is not seen again for this long is forgotten
LONG_SECONDS = 5.0  # during a longer pause the worker takes no wake-ups
REASON_LENGTH = 300


class _Fault(NamedTuple):
    """Why slices raise, and when the first and the last one did."""

    since: float
    last: float
    reason: str


class Condition(NamedTuple):
    """What a worker announces, and whether it takes wake-ups."""

    state: str = "working"  # or halted, or unfit
    reason: str | None = None
    takes: bool = True  # wake-ups
    faults: Mapping[str, str] = {}  # why its slices of some collections raise


class Fitness:
    """What the slices of one process and its keys' throttles say.

    Times are of a clock that only grows. Any thread may call anything.
    """

    def __init__(self) -> None:
        self._faults: dict[str, _Fault] = {}  # by collection
        self._worked = float("-inf")  # when a slice last did
        self._halts: set[str] = set()  # the reasons that were logged
        self._halted: Mapping[str, str] = {}  # keys, when last looked at, and why
        self._lock = threading.Lock()

    def worked(self, collection: str, now: float) -> None:
        """Note that a slice of a collection embedded texts."""
        with self._lock:
            self._worked = now
            self._halts.clear()
            fault = self._faults.pop(collection, None)
        if fault is not None:
            logger.warning("%s is worked on again", collection)

    def failed(self, collection: str, error: BaseException, now: float) -> None:
        """Note that a slice raised an error. Logged once, with traceback, until a slice works."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH]
        with self._lock:
            before = self._faults.get(collection)
            since = now if before is None else before.since
            self._faults[collection] = _Fault(since, now, reason)
        if before is None:
            logger.error("%s cannot be worked on here: %s", collection, reason, exc_info=error)

    def halted(self, reason: str) -> None:
        """Note that the API refuses everything. Logged once, however many slices report it."""
        with self._lock:
            is_known = reason in self._halts
            self._halts.add(reason)
        if not is_known:
            logger.error("halted: %s. When that is fixed: vec resume", reason.rstrip("."))

    def look(self, keys: Sequence[ThrottleStatus], now: float) -> Condition:
        """The condition of the worker, given the present status of its keys' throttles."""
        with self._lock:
            self._faults = {
                name: fault
                for name, fault in self._faults.items()
                if now - fault.last < FORGET_SECONDS
            }
            settled = [
                (fault, name)
                for name, fault in self._faults.items()
                if fault.last - fault.since >= SETTLED_SECONDS
            ]
            worked = self._worked
        faults = {name: fault.reason for fault, name in settled}
        halted = {key.name: key.reason or "" for key in keys if key.state == "halted"}
        self._say_halts(halted, [key.name for key in keys])
        if len(halted) == len(keys):
            return Condition("halted", "; ".join(dict.fromkeys(halted.values())), False, faults)
        for fault, _ in sorted(settled, reverse=True):
            if fault.since > worked:
                rests = now - fault.last < REST_SECONDS
                return Condition("unfit", fault.reason, not rests, faults)
        waits = all(_pause_of(key) >= LONG_SECONDS for key in keys)
        return Condition("working", None, not waits, faults)

    def _say_halts(self, halted: Mapping[str, str], names: Sequence[str]) -> None:
        """Log which of the keys were halted or resumed since it last looked."""
        before, self._halted = self._halted, halted
        is_one = len(names) == 1
        for name, reason in halted.items():
            if is_one:
                self.halted(reason)
            elif name not in before:
                logger.error(
                    "key %s is halted, %d of %d are not: %s. When that is fixed: vec resume",
                    *(name, len(names) - len(halted), len(names), reason.rstrip(".")),
                )
        for name in before.keys() - halted.keys():
            with self._lock:
                self._halts.discard(before[name])
            if name in names:
                logger.warning("resumed" if is_one else f"key {name} is resumed")


def _pause_of(key: ThrottleStatus) -> float:
    """The seconds for which nothing can be sent with a key, as far as is known."""
    if key.state == "running":
        return 0.0
    return LONG_SECONDS if key.pause_seconds is None else key.pause_seconds
