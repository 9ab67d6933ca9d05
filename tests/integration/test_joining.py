"""What is urgent joins a batch in hand: slices that run here, on a real Redis and a local API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
from forking import in_child
from servers import API, API_KEY
from stored import Bench, Store, check_ledger

from vector_embed_client import EmbeddingArray
from worker import enqueue
from worker.engine.process import Process
from worker.engine.slice import Slice
from worker.local.redis_server import RedisServer
from worker.settings import Settings
from worker.store.backlog import Backlog
from worker.store.connection import connect
from worker.store.urgent import urgent_collections
from worker.types import Info


def texts(name: str, first: int, end: int) -> list[str]:
    """Texts by their numbers."""
    return [f"{name} {number}" for number in range(first, end)]


bulk = partial(texts, "bulk")


class Held(Slice):
    """A slice that has a batch in hand when something happens, and notes what it sends."""

    def __init__(
        self, process: Process, store: Store, happens: Callable[[], object], urgent: bool
    ) -> None:
        super().__init__(process, store.backlog, store.reader.info(), urgent=urgent)
        self.sent: list[list[str]] = []
        self._happens: Callable[[], object] | None = happens

    def _join(self) -> None:
        happens, self._happens = self._happens, None
        if happens is not None:
            happens()
        super()._join()

    def _send(self, texts: Sequence[str]) -> EmbeddingArray:
        self.sent.append([*texts])
        return super()._send(texts)


class Fleet:
    """A backlog of bulk in `wiki`, which has a vector, and a slice that works on it."""

    def __init__(self, settings: Settings, texts: int) -> None:
        self.settings = settings
        self.process = Process(settings)
        self.stores: dict[str, Store] = {}
        self.wiki = self.store("wiki")
        self.enqueue("first", "wiki", "bulk")
        Slice(self.process, self.wiki.backlog, self.wiki.reader.info()).run()
        enqueue(bulk(0, texts), "wiki", priority="bulk", settings=settings)

    def store(self, name: str) -> Store:
        return self.stores.setdefault(name, Store(name, settings=self.settings))

    def enqueue(
        self, text: str, name: str, priority: str = "interactive", model: str | None = None
    ) -> None:
        self.store(name)
        enqueue([text], name, priority=priority, model=model, settings=self.settings)

    def run(self, happens: Callable[[], object], *, urgent: bool = False) -> list[list[str]]:
        """The texts of each request of a slice that has its first batch in hand when it happens."""
        self.held = Held(self.process, self.wiki, happens, urgent)
        self.held.run()
        for store in self.stores.values():
            assert check_ledger(store.status()).leased == 0
        return self.held.sent


@pytest.fixture
def fleet(redis_server: RedisServer, api: API) -> Fleet:
    settings = Settings(
        redis_url=redis_server.url,
        broker_url=redis_server.url,
        api_key=API_KEY,
        base_url=api.base_url,
        timeout=3600.0,  # a machine that is slow for a moment makes no request smaller
    )
    return Fleet(settings, 150)


def test_urgent_texts_of_all_collections_go_first(fleet: Fleet, api: API) -> None:
    def ask() -> None:
        fleet.enqueue("now", "wiki")
        fleet.enqueue("here", "other")
        fleet.enqueue("too", "another")

    before = api.log().texts
    first, second = fleet.run(ask)
    assert first[0] == "now"
    assert set(first[1:3]) == {"here", "too"}, "which of the two is first is left to chance"
    assert first[3:] == bulk(0, 97)
    assert second == bulk(97, 150)
    assert [len(fleet.store(name)) for name in ("wiki", "other", "another")] == [152, 1, 1]
    assert api.log().texts == before + 153, "none is paid for twice"
    assert urgent_collections(fleet.wiki.client, "vec", {}) == {}, "all are answered"


def test_normal_texts_wait_for_the_next_batch(fleet: Fleet) -> None:
    sent = fleet.run(lambda: fleet.enqueue("soon", "wiki", "normal"))
    assert sent == [bulk(0, 100), ["soon", *bulk(100, 150)]]


def test_only_what_may_share_the_request_joins(fleet: Fleet) -> None:
    sent = fleet.run(lambda: fleet.enqueue("now", "other", model="another-model"))
    assert sent == [bulk(0, 100)], "the slice has ended for it"
    assert fleet.store("other").status().pending == 1
    assert fleet.held.elsewhere == "other"
    assert fleet.run(lambda: None) == [bulk(100, 150)]
    assert fleet.held.elsewhere is None, "not for it again"
    assert len(fleet.wiki) == 151


def test_a_slice_ends_for_one_collection_and_the_others_are_seen_by_the_next(fleet: Fleet) -> None:
    def ask() -> None:
        fleet.enqueue("now", "other", model="another-model")
        fleet.enqueue("too", "third", model="third-model")

    fleet.run(ask)
    ended_for = [fleet.held.elsewhere]
    fleet.run(lambda: None)
    ended_for.append(fleet.held.elsewhere)
    assert set(ended_for) == {"other", "third"}


class Ended:
    """A slice that ends for the other one of two collections, with all its texts still there."""

    runs = 0

    def __init__(self, process: Process, backlog: Backlog, info: Info, *, urgent: bool) -> None:
        self.elsewhere = {"a": "b", "b": "a"}[backlog.name]

    def run(self) -> None:
        type(self).runs += 1
        assert self.runs < 100, "it goes on for ever"
        time.sleep(0.02)


def test_where_something_is_always_urgent_a_thread_is_free_after_a_while(
    fleet: Fleet,
) -> None:
    for name in "ab":
        fleet.enqueue("now", name)

    def hurry() -> None:
        from worker import tasks  # changes how this process logs

        shorter = replace(fleet.settings, slice_seconds=0.1)
        vars(tasks).update(settings=shorter, Slice=Ended)
        tasks._hurry(fleet.process, connect(fleet.settings), "a")
        assert Ended.runs >= 1

    assert in_child(hurry) == 0


def test_who_gives_way_first_tries_what_may_have_killed_its_worker(fleet: Fleet) -> None:
    wiki = Bench(fleet.settings, "wiki")
    for number in range(2):
        (deadly,) = wiki.claim(f"dead-{number}:1", 1)
        wiki.kill(f"dead-{number}:1")
    wiki.claim("next:1", 1)
    wiki.release("next:1", end_slice=True)
    assert wiki.collection.backlog.has_quarantined()
    fleet.run(lambda: fleet.enqueue("now", "other", model="another-model"))
    assert fleet.held.elsewhere == "other"
    assert deadly.job.id in set(fleet.wiki.reader.ids())


def test_a_flood_leaves_the_bulk_its_part(fleet: Fleet) -> None:
    def flood() -> None:
        for name in ("wiki", "other"):
            fleet.store(name)
            enqueue(texts(name, 0, 100), name, priority="interactive", settings=fleet.settings)

    first, *_ = fleet.run(flood)
    assert sorted(first[:80]) == sorted([*texts("wiki", 0, 40), *texts("other", 0, 40)])
    assert first[80:] == bulk(0, 20)


def test_a_flood_from_many_collections_leaves_it_too(fleet: Fleet) -> None:
    def flood() -> None:
        for number in range(50):
            name = f"c{number}"
            enqueue(texts(name, 0, 2), name, priority="interactive", settings=fleet.settings)

    first, *_ = fleet.run(flood)
    # Each gives one, and 30 a second one. Which 30, and in which order, is left to chance.
    assert [sum(f"c{n} {m}" in first[:80] for n in range(50)) for m in range(2)] == [50, 30]
    assert first[80:] == bulk(0, 20)


def test_what_is_urgent_in_the_batch_already_counts_too(fleet: Fleet) -> None:
    def flood(name: str) -> None:
        enqueue(texts(name, 0, 100), name, priority="interactive", settings=fleet.settings)

    def happens() -> None:
        client = fleet.wiki.client
        urgent_collections(client, "vec", urgent_collections(client, "vec", {}))  # all are over
        flood("other")

    flood("wiki")
    first, *_ = fleet.run(happens)
    assert first == [*texts("wiki", 0, 90), *bulk(0, 10)]


def test_what_is_urgent_and_could_not_be_sent_goes_first_again(fleet: Fleet) -> None:
    """The worker ends while it waits for a slot, with what is urgent in hand."""
    fleet.enqueue("now", "wiki")
    assert fleet.run(fleet.process.stopping.set, urgent=True) == []
    fleet.process.stopping.clear()
    fleet.wiki.backlog.keep_alive("another")
    leases = fleet.wiki.backlog.claim("another")
    assert (leases[0].job.text, leases[0].urgent) == ("now", True)
