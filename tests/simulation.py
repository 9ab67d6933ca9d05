"""The throttle's policy under a virtual clock: a fleet before a server that limits, for hours.

The fleet's loop is `simulation.lua`. It runs the same `policy.lua` that runs in Redis. Here is the
server, and what a test sees of the run.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lupa.lua51 as lupa  # type: ignore[import-untyped]  # it ships none
from faulty_api.limiter import Limiter

from worker.store.connection import script_source

START = 1_790_000_000.0  # a recent time: numbers are as large as in production


@dataclass
class Run:
    """The result of a simulated run. Times are seconds since its start."""

    passes: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    requests: list[tuple[float, int, str]] = field(default_factory=list)  # time, texts, outcome
    asks: int = 0
    finished: float = 0.0  # the last pass

    def windows(self, per: float, first: int, last: int) -> list[tuple[int, int]]:
        """(passes, refusals) of each whole window from `first` to `last` (not included)."""
        passed = Counter(int(at // per) for at in self.passes)
        refused = Counter(int(at // per) for at in self.refusals)
        return [(passed[number], refused[number]) for number in range(first, last)]


Answer = tuple[float, "dict[str, Any]"]
Server = Callable[[float, int], Answer]
Limit = Callable[[float], "float | None"]
LOOP = Path(__file__).with_suffix(".lua")


def _of_loop(name: str) -> Any:
    """An attribute that is a field of the loop in Lua."""
    return property(
        lambda fleet: getattr(fleet.loop, name),
        lambda fleet, value: setattr(fleet.loop, name, value),
    )


class Fleet:
    """Threads that all want to send, and the throttle between them and the server.

    The server is one that limits, or any: a function of (time, texts) that returns the seconds
    until its answer, and the answer as it is reported.
    """

    now: float = _of_loop("now")
    state: Any = _of_loop("state")
    per_second: float | None = _of_loop("per_second")  # as VECTOR_EMBED_RATE says

    def __init__(
        self,
        limiter: Limit = lambda now: None,
        *,
        server: Server | None = None,
        threads: int = 16,
        most: int = 8,
        latency: float = 0.05,
        refusal_latency: float = 0.004,
        retry_after: str = "none",
        pause: float = 0.005,
        work: int | None = None,
        quota: int | None = None,
        per_second: float | None = None,
        jitter: float = 0.001,
        seed: int = 0,
    ) -> None:
        self.limiter = limiter
        self.server = server
        self.refusal_latency = refusal_latency
        self.retry_after = retry_after
        self.quota = quota  # texts, of which the refusals do not speak
        self.charged = 0
        self.run = Run()
        self._chance = random.Random(seed)
        lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        self._table = lua.table_from
        options = self._table(
            {
                "now": START,
                "threads": threads,
                "most": most,
                "latency": latency,
                "pause": pause,
                "work": work,
                "per_second": per_second,
                "jitter": jitter,
            }
        )
        policy = lua.execute(script_source("throttle/policy"))
        self.loop = lua.execute(LOOP.read_text(), policy, options, self._answer, self._chances)

    def go(self, seconds: float) -> Run:
        """Let this much time pass."""
        self.loop.go(seconds)
        self.run.asks = self.loop.asks
        self.run.finished = self.loop.finished - START
        return self.run

    def trickle(self, seconds: float, every: float) -> None:
        """Let this much time pass, in which one request is sent now and then."""
        self.loop.trickle(seconds, every)

    def person(self, every: float, *, urgent: bool) -> None:
        """From now on someone wants a text, and so many seconds after its answer the next."""
        self.loop.person(every, urgent)

    @property
    def waits(self) -> list[float]:
        """How many seconds the person waited, each time."""
        return list(self.loop.waits.values())

    def rest(self, seconds: float) -> None:
        """Let this much time pass, in which no thread wants to send."""
        self.loop.resting = self.now + seconds
        self.go(seconds)

    def set_clock(self, seconds: float) -> None:
        """Set Redis' clock forward, or back; nothing else is moved."""
        self.loop.set_clock(seconds)

    def _chances(self) -> Any:
        return self._table([self._chance.random() for _ in range(1000)])

    def _answer(self, now: float, texts: int) -> tuple[float | None, str, Any]:
        """The seconds until the server's answer, its outcome, and the facts to report."""
        if self.quota is not None and self.charged + texts > self.quota:
            self.run.refusals.append(now - START)
            return self.refusal_latency, "deferred", None
        if self.server is not None:
            seconds, answer = self.server(now, texts)
            self.run.requests.append((now - START, texts, answer["outcome"]))
            return seconds, answer["outcome"], self._table(answer)
        wait = self.limiter(now)
        if wait is None:
            self.charged += texts
            self.run.passes.append(now - START)
            return None, "passed", None
        self.run.refusals.append(now - START)
        asked = self._retry_after(now, wait)
        facts = None if asked is None else self._table({"asked": asked})
        return self.refusal_latency, "deferred", facts

    def _retry_after(self, now: float, wait: float) -> float | None:
        """The wait that the server names, in ms."""
        if self.retry_after == "seconds":
            return max(1, math.ceil(wait)) * 1000
        if self.retry_after == "fraction":
            return math.ceil(wait * 1000)
        if self.retry_after == "floored":
            return math.floor(wait) * 1000
        if self.retry_after == "date":
            # Counted from the answer's own Date, which is whole seconds too.
            return (math.ceil(now + wait) - math.floor(now)) * 1000
        return None


class Steps:
    """A limiter that changes its rate at given times (seconds since the start)."""

    def __init__(self, *parts: tuple[float, Limiter]) -> None:
        self.parts = parts

    def __call__(self, now: float) -> float | None:
        limiter = [limiter for begin, limiter in self.parts if now - START >= begin][-1]
        return limiter.refusal(now)


# Servers, for `Fleet(server=...)`


def passes(texts: int, seconds: float = 0.5) -> Answer:
    """A healthy API's answer to texts that are new to it."""
    return seconds, {"outcome": "passed", "uncached": texts, "timeout_ms": 30_000}


def told(seconds: float, *, unavailable: bool = False) -> Answer:
    """A 429, or a 503, with Retry-After."""
    answer = {"outcome": "deferred", "asked": seconds * 1000}
    return 0.01, {**answer, "unavailable": 1} if unavailable else answer


def slow(each: float, first: float = 0.0, timeout: float = 30.0) -> Server:
    """A provider that takes this many seconds for each text, and some for the request."""

    def answer(now: float, texts: int) -> Answer:
        took = first + each * texts
        if took > timeout:
            return timeout, {"outcome": "failed", "timeout": 1, "timeout_ms": timeout * 1000}
        return took, {"outcome": "passed", "uncached": texts, "timeout_ms": timeout * 1000}

    return answer


def until(seconds: float, before: Server, after: Server) -> Server:
    """One server, and another one from this many seconds after the start."""
    return lambda now, texts: (before if now - START < seconds else after)(now, texts)


def well(now: float, texts: int) -> Answer:
    """A healthy API."""
    return passes(texts)


def sent(fleet: Fleet, first: float, last: float) -> list[tuple[float, int, str]]:
    """The requests between two times."""
    return [request for request in fleet.run.requests if first <= request[0] < last]
