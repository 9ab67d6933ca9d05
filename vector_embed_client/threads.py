"""Threads of a Client: for work that a caller waits for, but may stop waiting for.

They are daemons: a process that ends does not wait for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TypeVar

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
