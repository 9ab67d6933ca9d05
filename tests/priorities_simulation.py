"""The policy of the priorities under a virtual clock: a fleet that works for minutes.

It runs the same `priorities.lua` that runs in Redis. Each thread claims a batch, waits with it in
hand for a request slot, lets join what is urgent then, and sends it.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import lupa.lua51 as lupa  # type: ignore[import-untyped]  # it ships none

from worker.engine.joining import MOST
from worker.store.connection import script_source

INTERACTIVE, NORMAL, BULK = range(3)
PRIORITIES = (INTERACTIVE, NORMAL, BULK)


def policy_parts() -> Any:
    """`priorities.lua`, as a table of Lua whose `parts` takes and returns lists."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    policy = lua.execute(script_source("store/priorities"))

    def parts(size: int, waiting: list[int], ages: list[float], turn: int) -> list[int]:
        table = policy.parts(size, lua.table_from(waiting), lua.table_from(ages), turn)
        return [int(part) for part in table.values()]

    return parts


class Text(NamedTuple):
    """A text of a priority, and when it was enqueued."""

    priority: int
    at: float


@dataclass
class Arrivals:
    """Texts of a priority: `first` at the beginning, and then `per_second`."""

    first: int = 0
    per_second: float = 0.0


@dataclass
class Fleet:
    """Threads and request slots, the texts that wait, and how long those took that are done."""

    arrivals: dict[int, Arrivals]
    slots: int = 8
    threads: int = 16
    latency: float = 0.2
    batch: int = 100
    now: float = 0.0
    waits: dict[int, list[float]] = field(
        default_factory=lambda: {priority: [] for priority in PRIORITIES}
    )

    def __post_init__(self) -> None:
        self._parts = policy_parts()
        self._turn = 0
        self._queues = {priority: deque[Text]() for priority in PRIORITIES}
        self._arrived = dict.fromkeys(PRIORITIES, 0)
        for priority, its in self.arrivals.items():
            self._queues[priority].extend(Text(priority, 0.0) for _ in range(its.first))

    def go(self, seconds: float) -> None:
        """Let this much time pass."""
        order = count()
        free = [(0.0, next(order), list[Text]()) for _ in range(self.slots)]
        hands = deque(self._claim() for _ in range(self.threads - self.slots))
        while free and free[0][0] < seconds:
            self.now, _, answered = heapq.heappop(free)
            for text in answered:
                self.waits[text.priority].append(self.now - text.at)
            self._arrive()
            hands.append(self._claim())
            # Whoever has something urgent in hand gets the slot.
            first = next(
                (hand for hand in hands if hand and hand[0].priority == INTERACTIVE), hands[0]
            )
            hands.remove(first)
            sent = self._join(first)
            heapq.heappush(free, (self.now + self.latency, next(order), sent))

    def shares(self) -> list[float]:
        """The part of each priority of all that is done."""
        done = [len(self.waits[priority]) for priority in PRIORITIES]
        return [each / sum(done) for each in done]

    def _arrive(self) -> None:
        for priority, its in self.arrivals.items():
            until = int(its.per_second * self.now)
            for number in range(self._arrived[priority], until):
                self._queues[priority].append(Text(priority, (number + 1) / its.per_second))
            self._arrived[priority] = until

    def _claim(self) -> list[Text]:
        self._turn += 1
        waiting = [len(self._queues[priority]) for priority in PRIORITIES]
        ages = [1000 * (self.now - its[0].at) if its else 0.0 for its in self._queues.values()]
        parts = self._parts(self.batch, waiting, ages, self._turn)
        return [
            self._queues[priority].popleft()
            for priority in PRIORITIES
            for _ in range(parts[priority])
        ]

    def _join(self, batch: list[Text]) -> list[Text]:
        """What is urgent joins a batch in hand; as many texts at its end go back."""
        room = MOST * self.batch // 100 - sum(text.priority == INTERACTIVE for text in batch)
        urgent = self._queues[INTERACTIVE]
        joining = [urgent.popleft() for _ in range(min(max(0, room), len(urgent)))]
        batch = [*joining, *batch]
        for text in reversed(batch[self.batch :]):
            self._queues[text.priority].appendleft(text)
        return batch[: self.batch]
