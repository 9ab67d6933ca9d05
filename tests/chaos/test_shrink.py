"""`vec shrink`, killed fifty times while workers commit and texts change: each vector is right.

What must be stored is computed here, from the vector that the tests' API gives for the text in
force, by the model card of nomic-embed-text-v1.5: layer norm, cut, normalise. No code is shared
with the layout that is tested.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import redis
from faulty_api.vectors import expected_vector
from numpy.typing import NDArray
from servers import API, WorkerProcess
from stored import Store

from worker import enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings

from .points import KILL, End, Errand, Points
from .proof import balances

pytestmark = pytest.mark.heavy

MODEL = "nomic-v1.5"
TEXTS, KILLS = 250, 50
KINDS = {"float16": "<f2", "int8": "i1"}


def small(text: str, dimensions: int, dtype: str) -> NDArray[np.generic]:
    """The vector of a text as it must be stored."""
    row = np.array(expected_vector(text), dtype=np.float64)
    if dimensions < len(row):
        row = (row - row.mean()) / np.sqrt(row.var() + 1e-5)
    row = row[:dimensions] / np.sqrt((row[:dimensions] ** 2).sum())
    if dtype == "int8":
        row = np.round(row * 127 / np.abs(row).max())
    found: NDArray[np.generic] = row.astype(KINDS[dtype])
    return found


def faults(
    client: redis.Redis, texts: dict[str, str], dimensions: int, dtype: str, slack: float
) -> Iterator[str]:
    """What is wrong in Redis, read by the table of keys.

    `slack`: steps of its dtype by which a number may differ.
    """
    for id, text in texts.items():
        doc: Any = client.hgetall(f"vec:{{wiki}}:doc:{id}")
        if doc.keys() - {b"hash"} != {dtype.encode()}:
            yield f"{id} has {doc.keys()}"
            continue
        stored = np.frombuffer(doc[dtype.encode()], KINDS[dtype]).astype(float)
        wanted = small(text, dimensions, dtype).astype(float)
        # A number in the middle between two is rounded to either.
        unit = 1.0 if dtype == "int8" else np.spacing(np.abs(wanted).astype("<f2")).astype(float)
        if stored.shape != wanted.shape or (np.abs(stored - wanted) > slack * unit).any():
            yield f"{id} has not the vector of its text"
    ids = {key.partition(b":doc:")[2].decode() for key in client.scan_iter("vec:{wiki}:doc:*")}
    yield from (f"{id} should not be there" for id in ids - texts.keys())


class Changing:
    """A collection whose texts change."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        self.wiki = Store("wiki", settings=settings)
        self.texts = {f"id-{number}": f"text {number}" for number in range(TEXTS)}
        self._chance = chance
        self._edition = 0
        enqueue(self.texts.items(), "wiki", settings=settings)

    def change(self) -> None:
        """Replace, add and delete texts; leave some as a worker of an earlier version would."""
        self._edition += 1
        some = self._chance.sample(sorted(self.texts), 6)
        ids = [*some[:5], f"new-{self._edition}"]
        changed = {id: f"{id} of edition {self._edition}" for id in ids}
        self.texts.update(changed)
        enqueue(changed.items(), "wiki", settings=self.wiki.settings)
        self.wiki.delete(some[5:])
        for id in some[5:]:
            del self.texts[id]
        self.wiki.wait(30)
        for id in self._chance.sample(sorted(self.texts), 80):
            self.as_before(id)

    def as_before(self, id: str) -> None:
        """Store the vector of an id as a worker of the last release does."""
        client = redis.Redis.from_url(self.wiki.settings.redis_url)
        doc = self.wiki.keys.doc(id)
        client.hdel(doc, "float16", "int8")
        vector = np.array(expected_vector(self.texts[id]), "<f4").tobytes()
        client.hset(doc, "vector", vector)


def shrink(points: Points, dimensions: int, dtype: str, what: str = "", at: int = 0) -> End:
    words = ("wiki", "--dimensions", str(dimensions), "--dtype", dtype, "--yes")
    return points.run(Errand("shrink", what, at, words=words))


ONE_STAGE = [(256, "float16")]
THREE_STAGES = [(768, "float16"), (256, "float16"), (128, "int8")]


@pytest.mark.parametrize("stages", [ONE_STAGE, pytest.param(THREE_STAGES, marks=pytest.mark.slow)])
def test_a_shrink_killed_fifty_times_leaves_each_vector_right(
    redis_server: RedisServer,
    redis_client: redis.Redis,
    api: API,
    worker_process: Callable[..., WorkerProcess],
    points: Points,
    stages: list[tuple[int, str]],
) -> None:
    url = redis_server.url
    settings = Settings(redis_url=url, broker_url=url, model=MODEL)
    chance = random.Random(len(stages))
    worker_process()
    changing = Changing(settings, chance)
    wiki = changing.wiki
    assert not wiki.wait(60).backlog
    killed = 0
    while killed < KILLS:
        dimensions, dtype = stages[killed * len(stages) // KILLS]
        end = shrink(points, dimensions, dtype, KILL, chance.randrange(10, 60))
        assert not end.error, end
        killed += end.signal != 0
        assert balances(wiki.status())
        # Also in the middle; if it was killed at once, all are as they were.
        assert {record.dimensions for record in wiki} == {wiki.dimensions()}
        changing.change()
    charged = api.log().charged
    end = shrink(points, dimensions, dtype)
    assert not end.error, end
    slack = len(stages)
    assert list(faults(redis_client, changing.texts, dimensions, dtype, slack)) == []
    assert wiki.status().embedded == len(changing.texts)
    assert api.log().charged == charged
