"""Threads of a Client's own: work that somebody waits for, but may stop waiting for.

They are daemons: a process that ends waits for none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context


def start(work: Callable[[], None]) -> None:
    """Do `work` in a new thread, in this one's context; or here if no more threads can be had."""
    run = copy_context().run
    try:
        threading.Thread(target=run, args=(work,), name="vector-embed-client", daemon=True).start()
    except RuntimeError:
        work()
