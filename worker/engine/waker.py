"""The waker: lets other threads wake Celery's event loop.

A wake-up that was taken is acknowledged by the loop, and only then is another one taken. kombu
before 5.7 does not wake its loop for that: it looked again when a timer was over, after up to ten
seconds. Where slices are short, as of many small collections, a worker stood still meanwhile.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import kombu

IS_NEEDED = kombu.VERSION[:2] < (5, 7)


class Waker:
    """Wakes the loop of the hub that watches it."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)

    def watch(self, hub: Any) -> None:
        """Let a hub of kombu watch it, until the hub is reset."""
        hub.add_reader(self._reader.fileno(), self._drain)

    def wake(self) -> None:
        """Let the loop look at what there is to do."""
        with suppress(OSError):  # it is full: the loop has yet to look
            self._writer.send(b"\0")

    def close(self) -> None:
        """Wake no more."""
        self._reader.close()
        self._writer.close()

    def _drain(self) -> None:
        with suppress(OSError):
            self._reader.recv(4096)
