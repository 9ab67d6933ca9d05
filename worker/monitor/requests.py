"""The tally: what became of the requests to the API, and how long they took, for the metrics.

Counted in the process, and added to Redis by the heartbeat once a second: a request pays nothing
for it. These are statistics, not the ledger: a killed worker, or an answer of Redis that is lost,
costs at most a second of them. Nothing is counted twice.
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

# Upper bounds in seconds of the classes that durations are counted in; slower ones are in the last,
# which has none.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Requests(NamedTuple):
    """All requests of the fleet through one throttle so far."""

    outcomes: Mapping[str, int]  # by `ok` or the code of the error
    durations: tuple[int, ...]  # a number for each of BOUNDS, and of those slower than all
    seconds: float  # that they took together


class Tally:
    """What this process has counted and not yet told. Any thread may call anything."""

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
            outcome = ""  # broken off here: no answer of the API's
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
        """Add what was counted to Redis. Lost if that fails: sent again it might count twice."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return
        pipeline = client.pipeline(transaction=False)
        for (throttle, field), number in counts.items():
            pipeline.hincrby(requests_key(prefix, throttle), field, number)
        pipeline.execute()


tally = Tally()  # this process's


def read_requests(client: Redis, prefix: str, throttle: str) -> Requests:
    """What all workers have told so far."""
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
        durations=tuple(counts.get(f"within:{place}", 0) for place in range(len(BOUNDS) + 1)),
        seconds=counts.get("us", 0) / 1e6,
    )
