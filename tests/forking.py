"""Forked children of a test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable


def in_child(work: Callable[[], object], tell: Callable[[int], object] = lambda pid: None) -> int:
    """The exit status of a forked child that does `work`: 0 if it ends well.

    `tell` gets its process id.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    tell(child)
    return os.waitpid(child, 0)[1]
