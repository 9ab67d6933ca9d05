"""The throttle's policy under a virtual clock: a fleet, a limiting server, thousands of seconds.

It runs the very `policy.lua` that runs in Redis. Time jumps from event to event.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lupa.lua51 as lupa  # type: ignore[import-untyped]  # it ships none
from faulty_api.limiter import Limiter

from worker.store.connection import script_source

START = 1_790_000_000.0  # any time of our days: numbers have the size that they have in life


@dataclass
class Run:
    """What a simulated run came to. Times are seconds since its start."""

    passes: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    requests: list[tuple[float, int, str]] = field(default_factory=list)  # texts, what came of it
    asks: int = 0
    finished: float = 0.0

    def windows(self, per: float, first: int, last: int) -> list[tuple[int, int]]:
        """(passes, refusals) of each whole window from `first` to `last` (not included)."""
        passed = Counter(int(at // per) for at in self.passes)
        refused = Counter(int(at // per) for at in self.refusals)
        return [(passed[number], refused[number]) for number in range(first, last)]


Server = Callable[[float, int], "tuple[float, dict[str, Any]]"]


class Fleet:
    """Threads that all want to send, and the throttle between them and the server.

    The server is one that limits, or any: a function of (time, texts) that gives the seconds until
    its answer, and the answer as it is reported.
    """

    def __init__(
        self,
        limiter: Callable[[float], float | None] = lambda now: None,
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
        self.most = most
        self.latency = latency
        self.refusal_latency = refusal_latency
        self.retry_after = retry_after
        self.pause = pause
        self.work = work
        self.quota = quota  # texts, of which the refusals do not speak
        self.charged = 0
        self.per_second = per_second  # as VECTOR_EMBED_RATE says
        self.jitter = jitter
        self.chance = random.Random(seed)
        self.lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        self.policy = self.lua.execute(script_source("throttle/policy"))
        self.state = self.lua.table(model=self.lua.table(), endpoint=self.lua.table())
        self.run = Run()
        self.now = START
        self.flights: set[str] = set()
        self._resting = 0.0  # nobody wants to send before
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._permits = itertools.count()
        for _ in range(threads):
            self._at(self.chance.uniform(0, 0.02), self._ask)

    def _at(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), what))

    def trickle(self, seconds: float, every: float) -> None:
        """Let so much time pass, in which there is but one request now and then, while all others
        wait."""
        waiting, self._events = self._events, []
        end = self.now + seconds
        while self.now < end:
            self.work = 1
            self._at(0, self._ask)
            self.go(every)
        self.work = None
        self._events += [(self.now + at % 0.02, order, ask) for at, order, ask in waiting]
        heapq.heapify(self._events)

    def go(self, seconds: float) -> Run:
        """Let so much time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = end
        return self.run

    def _late(self) -> float:
        return 0.001 + self.chance.expovariate(1 / self.jitter)

    def _ms(self) -> float:
        return round(self.now * 1000, 3)

    def set_clock(self, seconds: float) -> None:
        """Set Redis' clock so much forward, or back; nothing else is moved."""
        self.now += seconds
        self._events = [(at + seconds, order, what) for at, order, what in self._events]

    def rest(self, seconds: float) -> None:
        """Let so much time pass, in which nobody wants to send."""
        self._resting = self.now + seconds
        self.go(seconds)

    def _ask(self) -> None:
        if self.now < self._resting:
            self._at(self._resting - self.now + self.chance.uniform(0, 0.02), self._ask)
            return
        if self.work is not None and self.work <= 0:
            return
        permit = f"p{next(self._permits)}"
        probe = self.state["probe"]
        self.run.asks += 1
        verdict, number, *_ = self.policy.ask(
            self.state,
            self.lua.table(
                now=self._ms(),
                permit=permit,
                in_flight=len(self.flights),
                probe_alive=probe in self.flights,
                model_probe_alive=self.state["model"]["probe"] in self.flights,
                most=self.most,
                per_second=self.per_second,
            ),
        )
        if verdict in ("wait", "full"):
            if number > 6000:  # the worker gives up, and comes again by a wake-up
                self._at(self.chance.uniform(0.5, 1.5), self._ask)
            else:
                self._at(number / 1000 + self._late(), self._ask)
            return
        assert verdict == "go", verdict
        self.flights.add(permit)
        if self.work is not None:
            self.work -= 1
        admitted = math.floor(self._ms())
        self._at(self._late(), lambda: self._arrive(permit, admitted, number))

    def _arrive(self, permit: str, admitted: int, texts: int) -> None:
        if self.quota is not None and self.charged + texts > self.quota:
            self.run.refusals.append(self.now - START)
            self._at(
                self.refusal_latency,
                lambda: self._report(permit, admitted, texts, "deferred", None),
            )
            return
        if self.server is not None:
            seconds, answer = self.server(self.now, texts)
            self.run.requests.append((self.now - START, texts, answer["outcome"]))
            self._at(seconds, lambda: self._report(permit, admitted, texts, **answer))
            return
        wait = self.limiter(self.now)
        if wait is None:
            self.charged += texts
            self.run.passes.append(self.now - START)
            self._at(
                self.latency * self.chance.uniform(0.7, 1.3),
                lambda: self._report(permit, admitted, texts, "passed", None),
            )
            return
        self.run.refusals.append(self.now - START)
        asked = None
        if self.retry_after == "seconds":
            asked = max(1, math.ceil(wait)) * 1000
        elif self.retry_after == "fraction":
            asked = math.ceil(wait * 1000)
        elif self.retry_after == "floored":
            asked = math.floor(wait) * 1000
        elif self.retry_after == "date":
            # Counted from the answer's own Date, which is whole seconds too.
            asked = (math.ceil(self.now + wait) - math.floor(self.now)) * 1000
        self._at(
            self.refusal_latency,
            lambda: self._report(permit, admitted, texts, "deferred", asked),
        )

    def _report(
        self,
        permit: str,
        admitted: int,
        texts: int,
        outcome: str,
        asked: float | None = None,
        **facts: float,
    ) -> None:
        self.flights.discard(permit)
        event: dict[str, Any] = {
            "now": self._ms(),
            "admitted": admitted,
            "outcome": outcome,
            "reason": "429",
        }
        event.update(reason="429", most=self.most, texts=texts, **facts)
        if asked is not None:
            event["asked"] = asked
        self.policy.report(self.state, self.lua.table_from(event))
        if outcome == "deferred" and self.work is not None:
            self.work += 1
        elif outcome == "passed":
            self.run.finished = self.now - START
        again = 0.0005 if outcome == "deferred" else self.pause * self.chance.uniform(0.5, 1.5)
        self._at(again, self._ask)


class Steps:
    """A limiter that changes its rate at given times (seconds since the start)."""

    def __init__(self, *parts: tuple[float, Limiter]) -> None:
        self.parts = parts

    def __call__(self, now: float) -> float | None:
        limiter = [limiter for begin, limiter in self.parts if now - START >= begin][-1]
        return limiter.refusal(now)
