"""The room in which the slices of one process work on their batches: many together, or one alone.

A text that may have killed its owners is worked on with nothing else in hand. Should the process
die of it again, no other text is suspected for having been beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Many together, or one alone. Who waits to be alone is let in before those who come later.

    Neither way in may be taken by a thread that is inside.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._together = 0
        self._alone = False
        self._waiting = 0  # to be alone

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be inside with others like it."""
        with self._change:
            self._change.wait_for(lambda: not self._alone and not self._waiting)
            self._together += 1
        try:
            yield
        finally:
            with self._change:
                self._together -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside with nobody else."""
        with self._change:
            self._waiting += 1
            self._change.wait_for(lambda: not self._alone and not self._together)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._change:
                self._alone = False
                self._change.notify_all()
