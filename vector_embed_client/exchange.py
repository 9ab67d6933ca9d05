"""One exchange with the server: a request and the whole answer to it, within a time limit."""

from __future__ import annotations

import time


class Exchange(float):
    """The seconds that one exchange may take in all, and the moment when they are over.

    It is a float, so that it can be given to httpx as a timeout. httpx and httpcore pass it on
    unchanged down to `transport`, which holds all steps together to the one limit. Any other
    transport takes it as a number: the seconds for each step.

    reused: whether the connection had served a request before; False if that is not known.
    """

    def __new__(cls, seconds: float) -> Exchange:
        return super().__new__(cls, seconds)

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.reused = False

    def left(self) -> float:
        """The seconds until the end, 0 or less after it."""
        return self.ends - time.monotonic()
