"""The intake of wake-ups: a worker that cannot work takes none, so that other workers get them.

Celery's consumer runs in a thread of its own. It is asked again at every heartbeat until it has
changed, because a lost connection loses what was asked.
"""

from __future__ import annotations

from typing import Any


class Intake:
    """The queues of a Celery consumer, which can be closed and opened."""

    def __init__(self, consumer: Any, queues: list[str]) -> None:
        self._consumer = consumer
        self._queues = queues
        self._is_open = True

    def set(self, is_open: bool) -> None:
        """Consume the queues, or stop."""
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
