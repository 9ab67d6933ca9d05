"""One exchange with the server: a request and the whole answer to it, within a time limit."""

from __future__ import annotations

import time


class Exchange(float):
    """The seconds that one exchange may take in all, and the moment when they are over.

    It is a float, so httpx takes it as a timeout. httpx and httpcore hand it on unchanged to
    `transport`, which applies the one limit to all steps together. Any other transport takes it as
    a number: the seconds for each step.

    reused: whether the connection had served a request before; False if that is not known.
    """

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.reused = False

    def left(self) -> float:
        """The seconds until the end, 0 or less after it."""
        return self.ends - time.monotonic()
