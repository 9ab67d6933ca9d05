"""Threads of a Client's own: work that somebody waits for, but may stop waiting for.

They are daemons: a process that ends waits for none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context


def start(work: Callable[[], None]) -> None:
    """Do `work` in a new thread, in this one's context; or here if no more threads can be had.

    Interrupted by a signal's exception, it may have begun or not; but nothing holds what was not.
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
        # `threading` remembers a thread whose start was interrupted for good, and may stumble over
        # it itself, with a KeyError.
        todo.clear()
        if isinstance(error, KeyError) and error.__context__ is not None:
            raise error.__context__ from None
        raise
