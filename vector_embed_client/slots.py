"""The slots for requests in flight, of which none can be lost.

A signal's exception (KeyboardInterrupt, Celery's soft time limit) may strike between any two steps
of Python code, so also when a semaphore has been counted down and nobody knows of it yet: what is
not given back then is gone for ever, and in the end every call hangs. Here a slot is an object that
one queue hands out in one step of C code. It is put back when its request has ended; and if the
frames that held it are gone without that, its place is taken by a new one.

The limit: an exception that is kept keeps the frames of its traceback, and the slot with them.
"""

from __future__ import annotations

from queue import SimpleQueue
from weakref import ref


class Slot:
    """The right to have one request in flight."""

    __slots__ = ("_free",)

    def __init__(self, free: SimpleQueue[Slot]) -> None:
        # Weak, or the slots of a client that is gone would keep each other alive.
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
