"""A shared/exclusive lock between the slices of one process.

A text that may have killed its owners is worked on with nothing else in the process. If it kills
the process again, no other text is blamed for having been there too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """Held by many threads in shared mode, or by one in exclusive mode.

    A thread that waits for exclusive mode goes before threads that ask for shared mode after it.
    It is not reentrant: a holder must not acquire it again in either mode.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._sharing = 0
        self._exclusive = False
        self._waiting = 0  # for exclusive mode

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it in shared mode for as long as the block."""
        with self._change:
            self._change.wait_for(lambda: not self._exclusive and not self._waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._change:
                self._sharing -= 1
                self._change.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold it in exclusive mode for as long as the block."""
        with self._change:
            self._waiting += 1
            self._change.wait_for(lambda: not self._exclusive and not self._sharing)
            self._waiting -= 1
            self._exclusive = True
        try:
            yield
        finally:
            with self._change:
                self._exclusive = False
                self._change.notify_all()
