"""Threads and request slots of a Client. The exception of a signal breaks neither.

The threads do what a caller waits for, but may stop waiting for. They are daemons: a process that
ends does not wait for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TypeVar
from weakref import ref

T = TypeVar("T")


class Overdue(Exception):
    """The work did not end in time. Its thread continues."""


def start(work: Callable[[], None]) -> None:
    """Do `work` in a new thread, in this one's context; or here if no thread can be started.

    If a signal's exception interrupts the start, the work may have begun or not. If not, nothing
    keeps a reference to it.
    """
    todo = [work]

    def run() -> None:
        while todo:
            todo.pop()()

    thread = threading.Thread(
        target=copy_context().run, args=(run,), name="vector-embed-client", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:
        run()
    except BaseException as error:
        # `threading` never forgets a thread whose start was interrupted, and may itself raise a
        # KeyError because of it.
        todo.clear()
        if isinstance(error, KeyError) and error.__context__ is not None:
            raise error.__context__ from None
        raise


def within(seconds: float, work: Callable[[], T], discard: Callable[[T], object]) -> T:
    """What `work` returns or raises, done in a thread of its own. Raises Overdue after `seconds`.

    A result that comes after that is given to `discard`.
    """
    done: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()
    left: list[bool] = []  # not empty once no one waits

    def drop() -> None:
        with suppress(Empty):
            result, error = done.get_nowait()  # one of the two threads gets it
            if error is None:
                discard(result)  # type: ignore[arg-type]  # there is no error, so it is a T

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))
        if left:
            drop()

    try:
        start(run)
        result, error = done.get(timeout=seconds)
    except BaseException as error:
        left.append(True)
        drop()
        if isinstance(error, Empty):
            raise Overdue from None
        raise
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # as above


class Slot:
    """The right to have one request in flight. It cannot be lost.

    A signal's exception (KeyboardInterrupt, Celery's soft time limit) may be raised between any two
    steps of Python code, also just after a semaphore was counted down and before a variable holds
    it. That count is never given back, and in the end every call hangs. So a slot is an object that
    a queue hands out in one step of C code. It is put back when its request has ended. If its
    frames disappear without that, a new slot replaces it.

    The limit: an exception that is kept keeps the frames of its traceback, and with them the slot.
    """

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
