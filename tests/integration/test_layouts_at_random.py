"""Smaller vectors under producers and workers that freeze, die, answer late, twice, and are old."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from test_any_order import Draw, Fleet

from worker.layout import Layout, decode
from worker.settings import Settings
from worker.types import Committed, Embedded, Refused, text_digest

LAYOUTS = [
    Layout("m", None, "float16"),
    Layout("m", 6, "float16"),
    Layout("m", 4, "float16"),
    Layout("m", 4, "int8"),
]


def vector_of(text: str, dimensions: int = 8) -> bytes:
    """Numbers that belong to this text alone."""
    seed = int.from_bytes(text_digest(text)[:4], "big")
    return np.random.default_rng(seed).standard_normal(dimensions).astype("<f4").tobytes()


class SmallFleet(Fleet):
    """A collection that begins with float16 vectors, and is made smaller again and again."""

    vector = staticmethod(vector_of)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0  # of LAYOUTS
        self.seen = 0  # by the worker that commits
        self.adders = {name: self.collection.adder(layout=LAYOUTS[0]) for name in self.adders}

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.now]

    def more_events(self) -> list[Callable[[Draw], None]]:
        return [self.shrink, self.work_as_an_earlier_version] * bool(self.vectors)

    def store(self, embedded: list[Embedded], refused: list[Refused]) -> Committed:
        """By a worker that may have begun before the collection was made smaller."""
        layout, self.seen = LAYOUTS[self.seen], self.now
        return self.collection.backlog.commit(embedded, refused, layout=layout)

    def is_of(self, data: bytes, text: str) -> bool:
        whole = self.layout.cut(decode(self.vector(text), "float32"))
        return np.allclose(decode(data, self.layout.dtype), whole, atol=0.02)

    def shrink(self, draw: Draw) -> None:
        """The next layout. What is stored stays as it is: readers bring it into the new one."""
        if self.now + 1 < len(LAYOUTS):
            self.now += 1
            self.direct.hset(self.collection.keys.info, "layout", str(self.layout))
            for adder in self.adders.values():
                adder.layout = self.layout

    def work_as_an_earlier_version(self, draw: Draw) -> None:
        """It has written the whole vector."""
        id = draw(st.sampled_from(sorted(self.vectors)))
        key = self.collection.keys.doc(id)
        self.direct.hdel(key, "float16", "int8")
        self.direct.hset(key, "vector", self.vector(self.vectors[id].text))


@pytest.mark.heavy
def test_smaller_vectors_survive_any_order_of_events(
    settings: Settings, redis_client: redis.Redis
) -> None:
    SmallFleet.settings_in_use, SmallFleet.direct = settings, redis_client
    run_state_machine_as_test(
        SmallFleet,
        settings=hypothesis_settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
