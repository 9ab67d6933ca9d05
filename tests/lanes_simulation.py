"""The policy of the lanes under a virtual clock: a fleet that works on three lanes, for minutes.

It runs the same `lanes.lua` that runs in Redis. Each thread claims a batch, waits with it in hand
for a request slot, lets join what is urgent then, and sends it.
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
LANES = (INTERACTIVE, NORMAL, BULK)


def lanes_policy() -> Any:
    """`lanes.lua`, as a table of Lua whose `parts` takes and returns lists."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)
    policy = lua.execute(script_source("store/lanes"))

    def parts(size: int, waiting: list[int], ages: list[float], turn: int) -> list[int]:
        table = policy.parts(size, lua.table_from(waiting), lua.table_from(ages), turn)
        return [int(part) for part in table.values()]

    return parts


class Text(NamedTuple):
    """A text of a lane, and when it was enqueued."""

    lane: int
    at: float


@dataclass
class Arrivals:
    """Texts of a lane: `first` at the beginning, and then `per_second`."""

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
    waits: dict[int, list[float]] = field(default_factory=lambda: {lane: [] for lane in LANES})

    def __post_init__(self) -> None:
        self._parts = lanes_policy()
        self._turn = 0
        self._lanes = {lane: deque[Text]() for lane in LANES}
        self._arrived = dict.fromkeys(LANES, 0)
        for lane, its in self.arrivals.items():
            self._lanes[lane].extend(Text(lane, 0.0) for _ in range(its.first))

    def go(self, seconds: float) -> None:
        """Let this much time pass."""
        order = count()
        free = [(0.0, next(order), list[Text]()) for _ in range(self.slots)]
        hands = deque(self._claim() for _ in range(self.threads - self.slots))
        while free and free[0][0] < seconds:
            self.now, _, answered = heapq.heappop(free)
            for text in answered:
                self.waits[text.lane].append(self.now - text.at)
            self._arrive()
            hands.append(self._claim())
            # Whoever has something urgent in hand gets the slot.
            first = next((hand for hand in hands if hand and hand[0].lane == INTERACTIVE), hands[0])
            hands.remove(first)
            sent = self._join(first)
            heapq.heappush(free, (self.now + self.latency, next(order), sent))

    def shares(self) -> list[float]:
        """The part of each lane of all that is done."""
        done = [len(self.waits[lane]) for lane in LANES]
        return [each / sum(done) for each in done]

    def _arrive(self) -> None:
        for lane, its in self.arrivals.items():
            until = int(its.per_second * self.now)
            for number in range(self._arrived[lane], until):
                self._lanes[lane].append(Text(lane, (number + 1) / its.per_second))
            self._arrived[lane] = until

    def _claim(self) -> list[Text]:
        self._turn += 1
        waiting = [len(self._lanes[lane]) for lane in LANES]
        ages = [1000 * (self.now - its[0].at) if its else 0.0 for its in self._lanes.values()]
        parts = self._parts(self.batch, waiting, ages, self._turn)
        return [self._lanes[lane].popleft() for lane in LANES for _ in range(parts[lane])]

    def _join(self, batch: list[Text]) -> list[Text]:
        """What is urgent joins a batch in hand; as many texts at its end go back."""
        room = MOST * self.batch // 100 - sum(text.lane == INTERACTIVE for text in batch)
        urgent = self._lanes[INTERACTIVE]
        joining = [urgent.popleft() for _ in range(min(max(0, room), len(urgent)))]
        batch = [*joining, *batch]
        for text in reversed(batch[self.batch :]):
            self._lanes[text.lane].appendleft(text)
        return batch[: self.batch]
