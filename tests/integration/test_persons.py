"""A person who waits for a vector, and workers that have a long backlog of bulk before it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import redis
from conftest import StartWorker
from earlier import unpack
from faulty_api.vectors import expected_vector
from servers import API, wait_until
from stored import Store, check_ledger

from worker import enqueue
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.types import Job

pytestmark = pytest.mark.heavy

BEFORE = "67c47c0"  # the last commit without priorities


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    """PYTHONPATH of the earlier version."""
    return os.pathsep.join([str(unpack(BEFORE, tmp_path)), os.environ.get("PYTHONPATH", "")])


class Load:
    """A long backlog of bulk in `wiki`, and persons who ask beside it."""

    def __init__(self, settings: Settings, texts: int) -> None:
        self.settings = settings
        self.wiki = Store("wiki", settings=settings)
        self.stores = {"wiki": self.wiki}
        self.texts = {"wiki": {f"bulk-{number}": f"bulk {number}" for number in range(texts)}}
        adder = self.wiki.adder()
        adder.priority = "bulk"
        jobs = [Job(id, text) for id, text in self.texts["wiki"].items()]
        for at in range(0, texts, 1000):
            adder.add(jobs[at : at + 1000])

    def ask(self, name: str, id: str, dtype: str | None = None) -> int:
        """Enqueue an interactive text, wait for its vector; returns what is left of the bulk."""
        self.texts.setdefault(name, {})[id] = f"text of {id}"
        store = self.stores.setdefault(name, Store(name, settings=self.settings))
        call = partial(enqueue, priority="interactive", dtype=dtype, settings=self.settings)
        call([(id, f"text of {id}")], name)
        wait_until(lambda: store.exists() and store.get(id), 60, "its vector")
        return self.wiki.status().backlog

    def check(self) -> None:
        """Wait until all is done, and look at every vector and every ledger."""
        for name, store in self.stores.items():
            wait_until(lambda: not self.stores[name].status().backlog, 120, f"{name} is done")  # noqa: B023
            status = check_ledger(store.status())
            assert (status.embedded, status.dead) == (len(self.texts[name]), 0)
            stored = {record.id: record.vector for record in store}
            assert stored.keys() == self.texts[name].keys()
            for id, vector in stored.items():
                assert list(vector) == pytest.approx(expected_vector(self.texts[name][id]))


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return Settings(redis_url=redis_server.url, broker_url=redis_server.url)


# An urgent collection that shares no request with the bulk has to wait until a slice ends for it.
@pytest.mark.parametrize(
    "name, dtype, rounds", [("wiki", None, 2), ("other", None, 2), ("apart", "float16", 4)]
)
def test_a_text_goes_with_the_next_request_although_all_threads_have_a_batch_in_hand(
    settings: Settings,
    api: API,
    worker_process: StartWorker,
    name: str,
    dtype: str | None,
    rounds: int,
) -> None:
    # Given four request slots, and four threads more that wait for one with a batch in hand
    load = Load(settings, 20_000)
    mark = {"answer": "error", "marker": "text of now", "times": 1}  # shows when it was sent first
    api.faults(latency=0.3, rules=[mark])
    # Where a machine is slow for a moment, no request is made smaller.
    worker = worker_process(VECTOR_EMBED_MAX_IN_FLIGHT="4", VECTOR_EMBED_TIMEOUT="3600")
    wait_until(lambda: load.wiki.status().leased == 800, 60, "all threads have a batch", every=0.01)
    # When the workers stand still while it is enqueued
    worker.freeze()
    before = api.log().requests
    enqueue([("now", "text of now")], name, priority="interactive", dtype=dtype, settings=settings)
    worker.thaw()
    # Then before it go only the requests whose slots were given out already
    wait_until(lambda: api.log().statuses.get(500), 60, "it was sent")
    log = api.log()
    place = [status for *_, status in log.recent][before - log.requests :].index(500)
    assert place < rounds * 4
    store = Store(name, settings=settings)
    wait_until(lambda: store.get("now"), 60, "its vector")


def test_none_is_paid_for_twice_where_the_backlog_is_short(
    settings: Settings, api: API, worker_process: StartWorker
) -> None:
    api.faults(latency=0.1)
    load = Load(settings, 0)
    worker_process(VECTOR_EMBED_MAX_IN_FLIGHT="2")
    for number in range(10):
        ids = [f"more-{number}-{at}" for at in range(250)]
        load.texts["wiki"].update({id: f"text of {id}" for id in ids})
        enqueue([(id, f"text of {id}") for id in ids], "wiki", priority="bulk", settings=settings)
        for at in range(3):
            load.ask("wiki", f"now-{number}-{at}")
    load.check()
    assert api.log().texts == len(load.texts["wiki"])


def test_workers_of_an_earlier_version_beside_new_ones_lose_nothing(
    settings: Settings,
    api: API,
    worker_process: StartWorker,
    earlier: str,
    redis_client: redis.Redis,
) -> None:
    api.faults(latency=0.1)
    load = Load(settings, 6000)
    worker_process(concurrency=4, PYTHONPATH=earlier)
    victim = worker_process(concurrency=4)
    for number in range(8):
        load.ask("wiki", f"now-{number}")
        load.ask("other", f"now-{number}")
        if number == 4:
            victim.kill()
            worker_process(concurrency=4)
    load.check()
    assert not redis_client.zcard("vec:{other}:ahead")
