"""Answers that are remembered for a while, so that many browsers read Redis once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Brief(Generic[T]):
    """Remembers what was read, each answer for so many seconds.

    At most `most` answers are kept. What raises is not remembered.
    """

    def __init__(self, seconds: float, most: int = 32) -> None:
        self._seconds, self._most = seconds, most
        self._kept: OrderedDict[object, tuple[float, T]] = OrderedDict()
        self._locks = [threading.Lock() for _ in range(8)]
        self._lock = threading.Lock()

    def kept(self, key: object) -> T | None:
        """The answer for `key`, if it is known and not too old."""
        with self._lock:
            at, kept = self._kept.get(key, (float("-inf"), None))
        return kept if time.monotonic() - at < self._seconds else None

    def get(self, key: object, read: Callable[[], T]) -> T:
        """The answer for `key`, read again if it is too old."""
        with self._locks[hash(key) % len(self._locks)]:  # the others wait for the first
            kept = self.kept(key)
            if kept is not None:
                return kept
            answer = read()
            with self._lock:
                self._kept[key] = time.monotonic(), answer
                self._kept.move_to_end(key)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            return answer
