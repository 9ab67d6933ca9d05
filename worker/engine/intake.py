"""The intake of wake-ups: a worker that cannot work takes none, so that those who can get them.

Celery's consumer lives in a thread of its own. It is asked to change at every beat until it has, as
what it was asked is lost where its connection is.
"""

from __future__ import annotations

from typing import Any


class Intake:
    """The queues that a Celery consumer consumes, which can be stopped and begun again."""

    def __init__(self, consumer: Any, queues: list[str]) -> None:
        self._consumer = consumer
        self._queues = queues
        self._is_open = True

    def set(self, is_open: bool) -> None:
        """Consume, or do not."""
        if is_open != self._is_open:
            self._consumer.call_soon(self._change, is_open)

    def _change(self, is_open: bool) -> None:
        if self._consumer.task_consumer is None:  # it connects just now
            return
        for queue in self._queues:
            if is_open:
                self._consumer.add_task_queue(queue)
            else:
                self._consumer.cancel_task_queue(queue)
        self._is_open = is_open
