"""Some dead letters of a collection, a page at a time, however many there are.

A page is what one or a few HSCANs give: it costs the same with a hundred letters and with a
million. So pages have no numbers, only a way on; a letter that comes or goes meanwhile may be seen
twice or not at all.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from ...settings import Settings
from ...store.connection import connect
from ...store.keys import CollectionKeys
from ...store.reader import Reader
from ...types import DeadLetter

PAGE = 100  # letters that a page shows, about
READ = 5000  # letters that are looked at for one page of one code, about

T = TypeVar("T")


class Letters(NamedTuple):
    """A page of dead letters, and where the next one begins: None if it was the last."""

    letters: Sequence[DeadLetter]
    next: int | None


def read_letters(settings: Settings, name: str, code: str | None, after: int) -> Letters:
    """The page that begins at `after`, 0 for the first. Raises `redis.RedisError`."""
    reader = Reader(connect(settings), CollectionKeys(settings.prefix, name))
    found: list[DeadLetter] = []
    looked = 0
    while True:
        after, some = reader.some_letters(after, PAGE)
        looked += PAGE
        found += [letter for letter in some if code is None or letter.code == code]
        if not after or len(found) >= PAGE or looked >= READ:
            return Letters(found, after or None)


class Brief(Generic[T]):
    """Remembers what was read for a few seconds, so that many browsers read it once.

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
