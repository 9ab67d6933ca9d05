"""A loop: a step that a background thread repeats for as long as its process lives.

An error of a step is logged, and the loop continues. If it cannot continue (no thread can be
started, there is no memory, or an exception ends the thread), the process ends with status 70, so
that its supervisor starts another: without a heartbeat no one would see the worker.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import redis

from ..logs import logger

STATUS = 70  # of a process that ends for this: EX_SOFTWARE in sysexits.h


class Loop:
    """Repeats `step` in a thread called `name`, `seconds` after its end, until `ended` is set."""

    def __init__(
        self, name: str, step: Callable[[], object], seconds: float, ended: threading.Event
    ) -> None:
        self._name = name
        self._step = step
        self._seconds = seconds
        self._ended = ended
        self._begun: float | None = None
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. If no thread can be started, the process ends."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self._end_process(error)

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    @property
    def busy_seconds(self) -> float:
        """How long the step under way has taken so far."""
        begun = self._begun
        return 0.0 if begun is None else time.monotonic() - begun

    def _run(self) -> None:
        try:
            while True:
                self._begun = time.monotonic()
                self._try()
                self._begun = None
                if self._ended.wait(self._seconds):
                    return
        except BaseException as error:
            self._end_process(error)

    def _try(self) -> None:
        try:
            self._step()
            if self._trouble:
                logger.warning("the %s works again", self._name)
            self._trouble = ""
        except MemoryError:
            raise
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
            if trouble != self._trouble:
                told = "the %s failed (%s): trying again"
                is_bug = not isinstance(error, redis.RedisError)
                logger.error(told, self._name, trouble, exc_info=is_bug)
            self._trouble = trouble

    def _end_process(self, error: BaseException) -> None:
        try:
            logger.critical("the %s cannot continue (%r): the process ends", self._name, error)
            logging.shutdown()
        finally:
            os._exit(STATUS)
