"""Request statistics, for the metrics: how requests to the API ended, and how long they took.

Each process counts, and its heartbeat adds the counts to Redis once a second, so a request costs no
Redis command. These are statistics, not the ledger: a killed worker, or a lost reply of Redis,
loses at most a second of them. Nothing is counted twice.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from vector_embed_client import VectorEmbedError

from ..logs import skip
from ..store.connection import Redis
from ..store.keys import requests_key

# Upper bounds of the classes of durations, in seconds. One more class has all slower requests.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Requests(NamedTuple):
    """All requests of the fleet through one throttle so far."""

    outcomes: Mapping[str, int]  # by `ok` or the code of the error
    durations: tuple[int, ...]  # how many in each class of BOUNDS, and how many slower ones
    seconds: float  # of all together


class Statistics:
    """What this process has counted and not yet added to Redis. Any thread may call anything."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()  # (throttle, field): number
        self._lock = threading.Lock()

    @contextmanager
    def request(self, throttle: str) -> Iterator[None]:
        """Counts the block as one request, by how it ends."""
        outcome = "ok"
        start = time.perf_counter()
        try:
            yield
        except VectorEmbedError as error:
            outcome = error.code
            raise
        except BaseException:
            outcome = ""  # broken off here, not answered by the API
            raise
        finally:
            if outcome:
                self._count(throttle, outcome, time.perf_counter() - start)

    def _count(self, throttle: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self._counts[throttle, f"outcome:{outcome}"] += 1
            self._counts[throttle, f"within:{bisect_left(BOUNDS, seconds)}"] += 1
            self._counts[throttle, "us"] += round(seconds * 1e6)

    def tell(self, client: Redis, prefix: str) -> None:
        """Add the counts to Redis. Lost if that fails: sent again, they might count twice."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        pipeline = client.pipeline(transaction=False)
        for (throttle, field), number in counts.items():
            pipeline.hincrby(requests_key(prefix, throttle), field, number)
        pipeline.execute()


statistics = Statistics()  # of this process


def read_requests(client: Redis, prefix: str, throttle: str) -> Requests:
    """The counts of all workers so far."""
    counts: dict[str, int] = {}
    for field, number in client.hgetall(requests_key(prefix, throttle)).items():
        try:
            counts[field.decode()] = int(number)
        except ValueError:
            skip("count of requests", field)
    return Requests(
        outcomes={
            field.partition(":")[2]: number
            for field, number in counts.items()
            if field.startswith("outcome:")
        },
        durations=tuple(counts.get(f"within:{number}", 0) for number in range(len(BOUNDS) + 1)),
        seconds=counts.get("us", 0) / 1e6,
    )
