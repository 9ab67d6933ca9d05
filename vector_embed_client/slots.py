"""Request slots that cannot be lost.

A signal's exception (KeyboardInterrupt, Celery's soft time limit) may be raised between any two
steps of Python code, also just after a semaphore was counted down and before a variable holds it.
That count is never given back, and in the end every call hangs. So a slot is an object that a queue
hands out in one step of C code. It is put back when its request has ended. If its frames disappear
without that, a new slot replaces it.

The limit: an exception that is kept keeps the frames of its traceback, and with them the slot.
"""

from __future__ import annotations

from queue import SimpleQueue
from weakref import ref


class Slot:
    """The right to have one request in flight."""

    __slots__ = ("_free",)

    def __init__(self, free: SimpleQueue[Slot]) -> None:
        # Weak: otherwise the slots of a client that is gone would keep each other alive.
        self._free = ref(free)

    def __del__(self) -> None:
        free = self._free()
        if free is not None:
            free.put(Slot(free))


def open_slots(count: int) -> SimpleQueue[Slot]:
    """A queue of `count` slots: `get` takes one, `put` gives it back."""
    free: SimpleQueue[Slot] = SimpleQueue()
    for _ in range(count):
        free.put(Slot(free))
    return free
