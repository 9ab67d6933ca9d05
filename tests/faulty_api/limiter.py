"""Rate limiters as servers and proxies have them. The clock is the caller's, in seconds.

* `window`: a fixed window that begins with the first request after the end of the last one.
* `aligned`: a fixed window that begins at every whole multiple of its length.
* `bucket`: a token bucket, full at first, that holds `capacity` and fills evenly.
* `sliding`: no more than `rate` in any stretch of `per` seconds.

A refused request does not count.
"""

from __future__ import annotations

from collections import deque

KINDS = ("window", "aligned", "bucket", "sliding")


class Limiter:
    """Lets `rate` requests through per `per` seconds."""

    def __init__(self, kind: str, rate: int, per: float, capacity: int | None = None) -> None:
        self.kind = kind
        self.rate = rate
        self.per = per
        self.capacity = float(rate if capacity is None else capacity)
        self._begin: float | None = None  # of the window; when the bucket was last filled
        self._count = 0.0  # requests in the window, or tokens in the bucket
        self._passed: deque[float] = deque()

    def refusal(self, now: float) -> float | None:
        """None if a request may pass now, and is counted; else the seconds until one may."""
        if self.kind == "bucket":
            return self._bucket(now)
        if self.kind == "sliding":
            return self._sliding(now)
        if self._begin is None or now - self._begin >= self.per:
            self._begin = now - now % self.per if self.kind == "aligned" else now
            self._count = 0
        if self._count < self.rate:
            self._count += 1
            return None
        return self._begin + self.per - now

    def _bucket(self, now: float) -> float | None:
        if self._begin is None:
            self._count = self.capacity
        else:
            filled = self._count + (now - self._begin) * self.rate / self.per
            self._count = min(self.capacity, filled)
        self._begin = now
        if self._count >= 1:
            self._count -= 1
            return None
        return (1 - self._count) * self.per / self.rate

    def _sliding(self, now: float) -> float | None:
        while self._passed and now - self._passed[0] >= self.per:
            self._passed.popleft()
        if len(self._passed) < self.rate:
            self._passed.append(now)
            return None
        return self._passed[0] + self.per - now
